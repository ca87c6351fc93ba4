"""nginx and Caddy with the files of deploy/, of which only ports and paths are others here."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests
import sseclient

from tests.support.deployment import DEPLOY
from tests.support.processes import Program, free_port
from tests.support.proxies import started
from tests.support.waiting import eventually

TOKEN = "a-token-of-16-letters"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}
# what Debian's nginx.conf has around it
NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/log;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    include {folder}/kafka-state.conf;
}}
"""

Proxy = Callable[..., AbstractContextManager[str]]


@contextlib.contextmanager
def nginx(folder: Path, service: int, adds_token: bool = False) -> Iterator[str]:
    port, token = free_port(), folder / "token.conf"
    text = _placed(DEPLOY / "nginx/kafka-state.conf", service, port)
    text = text.replace("/etc/nginx/kafka-state-token.conf", str(token))
    if adds_token:
        text = text.replace("# include", "include")
        placeholder = "one-of-the-tokens-of-API_TOKEN_FILE"
        token.write_text((DEPLOY / "nginx/token.conf").read_text().replace(placeholder, TOKEN))
    (folder / "kafka-state.conf").write_text(text)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder))
    options = ["-p", str(folder), "-c", str(folder / "nginx.conf")]
    with started("nginx", options, folder, lambda: _listens(port)):
        yield f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def caddy(folder: Path, service: int, adds_token: bool = False) -> Iterator[str]:
    port = free_port()
    text = _placed(DEPLOY / "caddy/Caddyfile", service, port)
    if adds_token:
        text = text.replace("# header_up", "header_up")
    # its port for administration is one of the machine, for which others may be running
    (folder / "Caddyfile").write_text(f"{{\n\tadmin off\n}}\n{text}")
    options = ["run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]
    with started("caddy", options, folder, lambda: _listens(port), UPSTREAM_TOKEN=TOKEN):
        yield f"http://127.0.0.1:{port}"


def _placed(file: Path, service: int, port: int) -> str:
    text = file.read_text()
    for there, here in (("127.0.0.1:8000", f"127.0.0.1:{service}"), ("8080", str(port))):
        assert text.count(there) == 1
        text = text.replace(there, here)
    return text


def _listens(port: int) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return bool(requests.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code)
    return False


@pytest.fixture(params=[nginx, caddy], ids=lambda proxy: proxy.__name__)
def proxy(request, tmp_path) -> Proxy:
    def run(service: int, **options: bool) -> AbstractContextManager[str]:
        folder = tmp_path / "proxy"
        folder.mkdir()
        return request.param(folder, service, **options)

    return run


def test_each_event_comes_when_it_is_sent(proxy, topic, serving):
    topic.send_state(1)
    with serving() as program, proxy(program.port) as url:
        program.comes_to(1)
        stream = f"{url}/state/stream?events=state"
        with requests.get(stream, stream=True, timeout=10) as answer:
            events = sseclient.SSEClient(answer).events()
            assert next(events).data == '{"state":1}'
            for state in (2, 3):
                topic.send_state(state)
                assert next(events).data == f'{{"state":{state}}}'


def test_a_read_that_waits_is_answered_when_there_is_something(proxy, topic, serving):
    topic.send_state(1)
    with serving() as program, proxy(program.port) as url:
        program.comes_to(1)
        known = {"If-None-Match": program.get().headers["ETag"], "Prefer": "wait=10"}
        sending = threading.Timer(1, topic.send_state, [2])
        sending.start()
        answer = requests.get(f"{url}/state", headers=known, timeout=20)
        sending.join()
        assert answer.json() == {"state": 2}


def test_who_has_no_token_is_told_so_and_who_has_is_answered(proxy, serving):
    with serving(API_TOKEN=TOKEN) as program, proxy(program.port) as url:
        eventually(lambda: _is_ready(program))
        assert requests.get(f"{url}/state", timeout=10).status_code == 401
        assert requests.get(f"{url}/state", headers=AUTHORIZED, timeout=10).status_code == 200


def test_where_the_proxy_adds_the_token_nobody_needs_one(proxy, serving):
    with serving(API_TOKEN=TOKEN) as program, proxy(program.port, adds_token=True) as url:
        eventually(lambda: _is_ready(program))
        assert requests.get(f"{url}/state", timeout=10).status_code == 200
        # nor is what a client sends passed on
        others = {"Authorization": "Bearer not-one-of-its-tokens"}
        assert requests.get(f"{url}/state", headers=others, timeout=10).status_code == 200
        # of all that can be asked, the stream among it
        with requests.get(f"{url}/state/stream", stream=True, timeout=10) as answer:
            assert answer.status_code == 200


def test_what_a_client_says_of_where_it_comes_from_is_replaced(proxy, echo):
    said = {"X-Forwarded-For": "10.9.8.7", "X-Forwarded-Proto": "https"}
    with proxy(echo) as url:
        arrived = requests.get(f"{url}/state", headers=said, timeout=10).json()
    assert arrived["x-forwarded-for"] == "127.0.0.1"
    assert arrived["x-forwarded-proto"] == "http"
    assert arrived["host"] == url.removeprefix("http://")


def test_connections_to_the_service_are_used_again(proxy, echo):
    with proxy(echo) as url:
        ports = {requests.get(url, timeout=10).json()["from-port"] for _ in range(3)}
    assert len(ports) == 1


def _is_ready(program: Program) -> bool:
    answer = program.get("/readyz")
    return answer is not None and answer.ok


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that answers with the headers that have arrived."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            body = json.dumps({**headers, "from-port": self.client_address[1]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()
