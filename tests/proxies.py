"""nginx, HAProxy and Apache, as Debian has them, in front of the program."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.processes import free_port
from tests.waiting import eventually

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
        gzip on;
        gzip_types *;
        gzip_min_length 1;
        location {prefix}/ {{
            proxy_pass http://service/;
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
    compression algo gzip
    compression type application/json text/event-stream text/html
frontend clients
    bind 127.0.0.1:{port}
    http-request deny if {{ path {denied} }}
    default_backend service
backend service
    server one 127.0.0.1:{service} {proxy_protocol}
"""
APACHE = """
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {folder}/pid
ErrorLog {folder}/log
DefaultRuntimeDir {folder}
# one process for all: one that Apache ends, for there are more than it needs, closes connections
# that its clients are about to use
StartServers 1
ServerLimit 1
ThreadsPerChild 100
MaxRequestWorkers 100
MinSpareThreads 1
MaxSpareThreads 100
User nobody
Group nogroup
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule filter_module /usr/lib/apache2/modules/mod_filter.so
LoadModule deflate_module /usr/lib/apache2/modules/mod_deflate.so
SetOutputFilter DEFLATE
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
ProxyPass / http://127.0.0.1:{service}/
"""
PROXIES = {
    "nginx": (NGINX, ["nginx", "-p", "{folder}", "-c", "{config}"]),
    "haproxy": (HAPROXY, ["haproxy", "-db", "-f", "{config}"]),
    "apache2": (APACHE, ["apache2", "-DFOREGROUND", "-f", "{config}"]),
}


@contextlib.contextmanager
def proxy(
    name: str,
    service: int,
    folder: Path,
    denied: str = "/denied",
    proxy_protocol: str = "",
    prefix: str = "",
) -> Iterator[int]:
    """Run one of PROXIES in front of a port; gives its own. The test is skipped where it is not.

    They compress what they may.

    Args:
        prefix: of nginx, what it takes away from the beginning of a path.
        denied: of HAProxy, a path that it does not pass on.
        proxy_protocol: of HAProxy, how it tells who its client is.
    """
    if not shutil.which(name):
        pytest.skip(f"{name} is a package of Debian's, and is not here")
    folder.mkdir()
    folder.chmod(0o777)  # they become users of their own
    text, command = PROXIES[name]
    given = {
        "port": free_port(),
        "service": service,
        "folder": folder,
        "config": folder / "conf",
        "denied": denied,
        "proxy_protocol": proxy_protocol,
        "prefix": prefix,
    }
    given["config"].write_text(text.format(**given))
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [word.format(**given) for word in command], stdout=output, stderr=output
        )
    try:
        eventually(lambda: process.poll() is not None or _answers(given["port"], prefix))
        assert process.poll() is None, (folder / "output").read_text()
        yield given["port"]
    finally:
        process.terminate()
        process.wait(10)


def _answers(port: int, prefix: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}{prefix}/state", timeout=5).status_code == 200
    return False
