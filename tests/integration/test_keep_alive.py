"""Clients and proxies keep a connection and use it again some seconds later."""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import requests

from tests.processes import Program, free_port
from tests.waiting import eventually

CLIENTS = 30
REQUESTS = 5  # of each client
# gunicorn closes after two by its default: as they ask again, which is when it hurts
IDLE_SECONDS = 1.99, 2.01

NGINX = """
daemon off;
pid {folder}/pid;
error_log {folder}/log;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
    uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    upstream service {{ server 127.0.0.1:{service}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
"""
HAPROXY = """
defaults
    mode http
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    http-reuse always
frontend clients
    bind 127.0.0.1:{port}
    default_backend service
backend service
    server one 127.0.0.1:{service}
"""
APACHE = """
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/log
DefaultRuntimeDir {folder}
User nobody
Group nogroup
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
ProxyPass / http://127.0.0.1:{service}/
"""
PROXIES = {
    "nginx": (NGINX, ["nginx", "-p", "{folder}", "-c", "{config}"]),
    "haproxy": (HAPROXY, ["haproxy", "-db", "-f", "{config}"]),
    "apache2": (APACHE, ["apache2", "-DFOREGROUND", "-f", "{config}"]),
}


@pytest.fixture
def program(serving) -> Iterator[Program]:
    with serving() as program:
        program.comes_to(0)
        yield program


@contextlib.contextmanager
def proxy(name: str, service: int, folder: Path) -> Iterator[int]:
    """Run one of PROXIES in front of a port; gives its own."""
    folder.mkdir()
    folder.chmod(0o777)
    text, command = PROXIES[name]
    given = {"port": free_port(), "service": service, "folder": folder, "config": folder / "conf"}
    given["config"].write_text(text.format(**given))
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [word.format(**given) for word in command], stdout=output, stderr=output
        )
    try:
        eventually(lambda: process.poll() is not None or answers(given["port"]))
        assert process.poll() is None, (folder / "output").read_text()
        yield given["port"]
    finally:
        process.terminate()
        process.wait(10)


def answers(port: int) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}/state", timeout=5).status_code == 200
    return False


def ask_now_and_then(new_client: Callable[[], contextlib.AbstractContextManager], url: str):
    """Each of many clients asks, and idles, on a connection of its own; gives what failed."""
    failed, answered = [], []
    done = threading.Event()

    def ask() -> None:
        with new_client() as client:
            for _ in range(REQUESTS):
                try:
                    answer = client.get(url, timeout=10)
                    (answered if answer.status_code == 200 else failed).append(answer)
                except (requests.RequestException, httpx.HTTPError) as error:
                    failed.append(error)
                done.wait(random.uniform(*IDLE_SECONDS))

    threads = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answered) + len(failed) == CLIENTS * REQUESTS
    return failed


@pytest.mark.parametrize("client", [requests.Session, httpx.Client])
def test_a_client_that_idles_between_two_requests_is_answered(program, client):
    assert ask_now_and_then(client, f"http://127.0.0.1:{program.port}/state") == []


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_that_keeps_its_connections_gives_each_client_the_answer(program, tmp_path, name):
    if not shutil.which(name):
        pytest.skip(f"{name} is a package of Debian's, and is not here")
    with proxy(name, program.port, tmp_path / name) as port:
        assert ask_now_and_then(requests.Session, f"http://127.0.0.1:{port}/state") == []
