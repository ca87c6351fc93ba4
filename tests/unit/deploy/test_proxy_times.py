"""What the files for nginx and Caddy say of time; tests/integration/deploy runs them."""

from __future__ import annotations

import re

from app.web.conditions import LONGEST_WAIT_SECONDS
from tests.support.deployment import DEPLOY, gunicorn_setting

NGINX = (DEPLOY / "nginx/kafka-state.conf").read_text()
CADDY = (DEPLOY / "caddy/Caddyfile").read_text()


def _seconds(name: str, text: str) -> int:
    (found,) = re.findall(rf"^\s*{name} (\d+)s", text, re.MULTILINE)
    return int(found)


def test_connections_that_wait_are_closed_by_the_proxy_and_not_by_the_service():
    for name, text in (("keepalive_timeout", NGINX), ("keepalive", CADDY)):
        assert _seconds(name, text) < gunicorn_setting("keepalive")


def test_a_read_that_waits_is_waited_for():
    assert _seconds("proxy_read_timeout", NGINX) > LONGEST_WAIT_SECONDS
    # Caddy waits without end, unless it is told otherwise
    assert "timeout" not in CADDY
