"""gunicorn's own options, as the table of docs/gunicorn.md has them."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests
import trustme

from app.server import launch
from tests.support.docs import table_rows
from tests.support.processes import (
    ROOT,
    Program,
    copy_program,
    ended,
    following,
    free_port,
    gunicorn,
    running_on,
)
from tests.support.proxies import proxy
from tests.support.topics import Topic
from tests.support.waiting import eventually

PROXY_V2 = (
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 127, 0, 0, 1]) + b"\0\7\0\7"
)
HEAD = b"GET /state HTTP/1.1\r\nHost: localhost\r\n\r\n"

tried: set[str] = set()


def of_table(*options: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The test is what the table says of these options."""
    tried.update(options)
    return lambda test: test


def test_the_docs_have_a_table_of_what_is_tried_here():
    rows = table_rows("gunicorn", "Which options of gunicorn work?")
    told = {option for row in rows for option in re.findall(r"`([^`]+)`", row[0])}
    assert told == tried


@pytest.fixture
def streaming() -> Iterator[Callable[[Program], requests.Response]]:
    """Open a stream, and wait for its first event."""
    with contextlib.ExitStack() as opened:

        def stream(program: Program) -> requests.Response:
            url = f"http://127.0.0.1:{program.port}/state/stream"
            answer = opened.enter_context(requests.get(url, stream=True, timeout=20))
            assert b"event: state" in answer.iter_lines()
            return answer

        yield stream


def ends_properly(stream: requests.Response) -> None:
    """Raises where it is cut off: a chunked answer has an end."""
    for _ in stream.iter_content(None):
        pass


def worker(program: Program) -> int:
    return program.tree()[-1].pid


def serves_the_state(port: int) -> bool:
    """Also where the process that was started is no more the one that answers."""
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}/state", timeout=5).json() == {"state": 1}
    return False


def metrics_folders(folder: Path) -> list[Path]:
    return list(folder.glob("kafka-state-metrics-*"))


def run(topic: Topic, folder: Path, *options: str, cwd: Path = ROOT, **environ: str) -> str:
    """What gunicorn says that ends by itself."""
    given = {"KAFKA_TOPIC": topic.name, "TMPDIR": str(folder), "PORT": "0", **environ}
    command = ended(gunicorn(*options), cwd, **given)
    return f"{command.returncode}\n{command.stdout}{command.stderr}"


NOBODY = "nobody"
SITE_PACKAGES = str(Path(requests.__file__).parent.parent)


def readable_python() -> str | None:
    """A Python that may be read by more users than root, which the one that runs this need not be."""
    for python in (sys.executable, *filter(None, [shutil.which("python3", path="/usr/bin")])):
        with contextlib.suppress(PermissionError):
            imports = subprocess.run(
                [python, "-c", "import encodings.idna, flask, gunicorn, kafka, marshmallow"],
                user=NOBODY,
                cwd="/",
                env={"PYTHONPATH": SITE_PACKAGES},
                capture_output=True,
                timeout=60,
                check=False,
            )
            if imports.returncode == 0:
                return python
    return None


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Which others may read; those of pytest it makes private again whenever it starts."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@of_table("--user", "--group")
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_workers_of_another_user_share_their_metrics(topic, open_folder, preload):
    python = readable_python()
    if python is None:
        pytest.skip("only root may become another user, who has to be able to read Python")
    topic.send_state(1)
    nobody = pwd.getpwnam(NOBODY)
    options = ["--user", NOBODY, "--group", str(nobody.pw_gid), "--workers", "2", *preload]
    command = [python, *gunicorn(*options)[1:]]
    with running_on(topic, command, open_folder / "output", PYTHONPATH=SITE_PACKAGES) as program:
        program.comes_to(1)
        eventually(lambda: len(program.tree()) == 3)
        assert {process.uids().real for process in program.tree()[1:]} == {nobody.pw_uid}
        eventually(lambda: 'route="/state"' in program.get("/metrics").text)
        (folder,) = metrics_folders(open_folder)
        assert folder.stat().st_uid == nobody.pw_uid
        first = worker(program)
        os.kill(first, signal.SIGTERM)  # what it counted is folded by the master
        eventually(lambda: not list(folder.glob(f"*_{first}.db")))
        assert 'route="/state"' in program.get("/metrics").text
        program.process.terminate()
        assert program.process.wait(10) == 0
        assert not metrics_folders(open_folder)


@pytest.mark.alone
@of_table("--max-requests")
def test_a_worker_that_has_answered_enough_ends_its_streams_properly(topic, serving, streaming):
    topic.send_state(1)
    with serving("--max-requests", "50") as program:
        program.comes_to(1)
        first, stream = worker(program), streaming(program)
        waiting = threading.Thread(target=program.get, args=["/state?min_offset=0:1000"])
        waiting.start()
        while worker(program) == first and "Autorestarting" not in program.output:
            program.get()
        began = time.monotonic()
        ends_properly(stream)
        waiting.join(5)
        assert not waiting.is_alive()
        assert time.monotonic() - began < 2
        program.comes_to(1)


@of_table("--reload")
def test_a_changed_file_is_served_and_streams_end_properly(topic, serving, tmp_path, streaming):
    topic.send_state(1)
    copy_program(tmp_path)
    with serving("--reload", cwd=tmp_path, PYTHONPATH="") as program:
        program.comes_to(1)
        stream = streaming(program)
        views = tmp_path / "app" / "web" / "views.py"
        views.write_text(views.read_text().replace("Hello World", "Hello again, World"))
        ends_properly(stream)
        eventually(lambda: "again" in getattr(program.get("/"), "text", ""))
        program.comes_to(1)


@of_table("--reload-engine")
def test_settings_that_make_no_sense_end_it_with_reload_too(topic, tmp_path):
    said = run(topic, tmp_path, "--reload", "--reload-engine", "poll", STATE_INITIAL="nope")
    assert said.startswith("1\nError: STATE_INITIAL is 'nope'")
    assert "Traceback" not in said


@of_table("--proxy-protocol")
def test_what_a_proxy_says_of_the_client_is_no_end_of_a_head(topic, serving):
    topic.send_state(1)
    halves = [PROXY_V2[:12], PROXY_V2[:20], PROXY_V2, PROXY_V2 + HEAD[:-2], b"A\n\n"]
    with (
        serving("--proxy-protocol", "v2", "--threads", "2") as program,
        contextlib.ExitStack() as held,
    ):

        def connect(sent: bytes) -> socket.socket:
            client = socket.create_connection(("127.0.0.1", program.port), timeout=4)
            client.sendall(sent)
            return held.enter_context(client)

        eventually(lambda: connectable(program))
        for half in halves:
            connect(half)
        whole = connect(PROXY_V2 + HEAD)
        assert whole.recv(15) == b"HTTP/1.1 200 OK"
        late = connect(PROXY_V2[:14])
        late.sendall(PROXY_V2[14:] + HEAD)
        assert late.recv(15) == b"HTTP/1.1 200 OK"
        eventually(lambda: '192.0.2.7 "GET /state' in program.output)


def connectable(program: Program) -> bool:
    with contextlib.suppress(ConnectionError):
        socket.create_connection(("127.0.0.1", program.port), timeout=4).close()
        return "Initializing API" in program.output
    return False


def test_haproxy_tells_who_its_client_is(topic, serving, tmp_path):
    topic.send_state(1)
    with serving("--proxy-protocol", "v2") as program:
        eventually(lambda: connectable(program))
        with (
            proxy(
                "haproxy", program.port, tmp_path / "proxy", proxy_protocol="send-proxy-v2"
            ) as port,
            socket.create_connection(
                ("127.0.0.1", port), timeout=5, source_address=("127.0.0.9", 0)
            ) as client,
        ):
            client.sendall(HEAD)
            assert client.recv(15) == b"HTTP/1.1 200 OK"
        eventually(lambda: '127.0.0.9 "GET /state' in program.output)


@of_table("--chdir")
def test_another_folder_loses_the_configuration_and_the_log_says_so(topic, tmp_path):
    with following(topic, tmp_path / "output", "--chdir", str(ROOT), cwd=tmp_path) as program:
        program.comes_to(0)
        assert "gunicorn has not read this program's gunicorn.conf.py" in program.output
        assert f"start it there, or with --config {launch.CONFIG}" in program.output


@of_table("--config")
def test_its_configuration_may_be_named_from_another_folder(topic, tmp_path):
    options = ["--config", str(ROOT / "gunicorn.conf.py"), "--chdir", str(ROOT)]
    environ = {"PYTHONPATH": str(ROOT)}
    with following(topic, tmp_path / "output", *options, cwd=tmp_path, **environ) as program:
        program.comes_to(0)
        assert "gunicorn has not read" not in program.output
        assert "Using worker: app.server.worker.Worker" in program.output


@of_table("--worker-class sync", "--worker-class gthread")
@pytest.mark.parametrize("options", [["sync", "--threads", "1"], ["gthread"]])
def test_a_worker_class_that_is_less_is_a_warning(topic, serving, options):
    with serving("-k", *options) as program:
        program.comes_to(0)
        assert f"The worker class is {options[0]}: with it a few clients" in program.output


@of_table("--worker-class gevent", "--worker-class asgi")
@pytest.mark.parametrize("worker_class", ["gevent", "asgi"])
def test_a_worker_class_that_cannot_work_is_refused(topic, tmp_path, worker_class):
    said = run(topic, tmp_path, "-k", worker_class)
    assert f"\nError: the worker class is {worker_class}: accepted are" in said
    assert said.startswith("1\n")
    assert "Traceback" not in said
    assert not metrics_folders(tmp_path)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--protocol", "uwsgi"], "--protocol uwsgi"),
        (["--http2-cleartext", "upgrade"], "HTTP/2"),
    ],
)
def test_a_protocol_that_is_left_to_gunicorn_wants_its_worker(topic, tmp_path, options, named):
    said = run(topic, tmp_path, *options)
    assert said.startswith("1\n")
    assert (
        f"\nError: {named} is left to gunicorn's own workers: choose one, with -k gthread" in said
    )


def test_a_worker_class_that_cannot_work_is_refused_without_the_configuration_too(topic, tmp_path):
    options = ["-k", "gevent", "--chdir", str(ROOT)]
    said = run(topic, tmp_path, *options, cwd=tmp_path)
    assert "CannotServe: gunicorn has not read" in said
    assert said.startswith("3\n")


@of_table("--check-config", "--print-config")
@pytest.mark.parametrize("option", ["--check-config", "--print-config"])
def test_what_only_looks_leaves_nothing_behind_and_follows_nothing(topic, tmp_path, option):
    said = run(topic, tmp_path, option)
    assert said.startswith("0\n")
    assert "Following as" not in said
    assert not metrics_folders(tmp_path)
    refused = run(topic, tmp_path, option, STATE_INITIAL="nope")
    assert "Error: STATE_INITIAL is 'nope'" in refused
    assert not metrics_folders(tmp_path)


@of_table("--timeout")
def test_a_timeout_that_a_start_or_a_stream_would_exceed_is_refused(topic, tmp_path):
    said = run(topic, tmp_path, "--timeout", "2")
    assert said.startswith("1\n")
    assert "\nError: --timeout is 2: accepted are 0, and 3 or more" in said


@of_table("--bind")
def test_a_port_in_use_leaves_nothing_behind(topic, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = run(topic, tmp_path, "--bind", f"127.0.0.1:{taken.getsockname()[1]}")
    assert "Connection in use" in said
    assert not said.startswith("0\n")
    assert not metrics_folders(tmp_path)


def test_a_worker_that_cannot_boot_ends_it_and_leaves_nothing_behind(topic, tmp_path):
    said = run(topic, tmp_path, STATE_LOADER="nowhere.load")
    assert said.startswith(("1\n", "3\n"))
    assert "STATE_LOADER is 'nowhere.load'" in said
    assert not metrics_folders(tmp_path)


@of_table("--daemon", "--pid")
def test_a_daemon_serves_and_leaves_nothing_behind(topic, tmp_path):
    topic.send_state(1)
    pid_file, port = tmp_path / "pid", free_port()
    options = ["--daemon", "--pid", str(pid_file), "--bind", f"127.0.0.1:{port}"]
    environ = {"KAFKA_BOOTSTRAP_SERVERS": topic.servers}
    assert run(topic, tmp_path, *options, **environ).startswith("0\n")
    eventually(pid_file.exists)
    daemon = psutil.Process(int(pid_file.read_text()))
    try:
        eventually(lambda: serves_the_state(port))
        assert metrics_folders(tmp_path)
        daemon.terminate()
        daemon.wait(10)
        assert not metrics_folders(tmp_path)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in (*daemon.children(), daemon):
                process.kill()


@pytest.mark.alone
@of_table("--certfile", "--keyfile")
def test_a_thousand_clients_that_begin_a_handshake_hold_nobody_up(topic, serving, tmp_path):
    topic.send_state(1)
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    for name, blob in (
        ("cert", certificate.cert_chain_pems[0]),
        ("key", certificate.private_key_pem),
        ("ca", authority.cert_pem),
    ):
        blob.write_to_path(tmp_path / name)
    options = ["--certfile", str(tmp_path / "cert"), "--keyfile", str(tmp_path / "key")]
    session = requests.Session()
    session.verify, session.trust_env = str(tmp_path / "ca"), False
    with serving(*options) as program, contextlib.ExitStack() as held:
        url = f"https://localhost:{program.port}/state"
        eventually(lambda: connectable(program))
        clients = []
        for _ in range(1000):
            client = socket.create_connection(("127.0.0.1", program.port), timeout=10)
            client.sendall(b"\x16")
            clients.append(held.enter_context(client))
        for _ in range(2):  # the second on a connection that is kept alive
            began = time.monotonic()
            assert session.get(url, timeout=10).json() == {"state": 1}
            assert time.monotonic() - began < 1
        assert clients[0].recv(1) == b""  # a handshake has its time, too
        half = held.enter_context(over_tls(program, tmp_path / "ca"))
        half.sendall(HEAD[:20])
        half.sendall(HEAD[20:])
        assert half.recv(15) == b"HTTP/1.1 200 OK"
        with session.get(f"{url}/stream", stream=True, timeout=20) as stream:
            assert b"event: state" in stream.iter_lines()
            program.process.terminate()
            ends_properly(stream)


def over_tls(program: Program, authority: Path) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(authority))
    client = socket.create_connection(("127.0.0.1", program.port), timeout=10)
    return context.wrap_socket(client, server_hostname="localhost")


@of_table("SCRIPT_NAME")
def test_a_sub_path_is_set_by_the_operator_and_not_by_a_client(topic, serving, tmp_path):
    with serving() as program:
        program.comes_to(0)
        url = f"http://127.0.0.1:{program.port}"
        for name in ("SCRIPT_NAME", "Script-Name", "PATH_INFO"):
            answer = requests.get(f"{url}/x/metrics", headers={name: "/x"}, timeout=5)
            assert answer.status_code == 404
            answer = requests.get(f"{url}/state", headers={name: "/metrics"}, timeout=5)
            assert answer.json() == {"state": 0}
        with proxy("haproxy", program.port, tmp_path / "proxy", denied="/metrics") as port:
            url = f"http://127.0.0.1:{port}"
            assert requests.get(f"{url}/metrics", timeout=5).status_code == 403
            answer = requests.get(f"{url}/x/metrics", headers={"SCRIPT_NAME": "/x"}, timeout=5)
            assert answer.status_code == 404
    with serving(SCRIPT_NAME="/numbers") as program:
        eventually(lambda: program.get("/numbers/state") is not None)
        eventually(lambda: program.get("/numbers/state").json() == {"state": 0})
        page = requests.get(
            f"http://127.0.0.1:{program.port}/numbers/", headers={"Accept": "text/html"}, timeout=5
        )
        for path in re.findall(r'(?:src|href)="(/[^"]*)"', page.text):
            assert path.startswith("/numbers/")


def test_a_master_that_takes_over_and_the_one_before_leave_nothing_behind(topic, tmp_path):
    topic.send_state(1)
    pid_file = tmp_path / "pid"
    # which it runs again: the module's file could not be
    command = [str(Path(sys.executable).parent / "gunicorn"), "--pid", str(pid_file), "wsgi:app"]
    with running_on(topic, command, tmp_path / "output") as program:
        program.comes_to(1)
        program.process.send_signal(signal.SIGUSR2)
        eventually(lambda: len(metrics_folders(tmp_path)) == 2)
        eventually(lambda: program.output.count("Initializing API") == 2)
        master = psutil.Process(int(Path(f"{pid_file}.2").read_text()))
        program.process.terminate()
        assert program.process.wait(10) == 0
        eventually(lambda: len(metrics_folders(tmp_path)) == 1)
        assert serves_the_state(program.port)
        master.terminate()
        master.wait(10)
        assert not metrics_folders(tmp_path)
