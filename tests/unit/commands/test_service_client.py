"""The client of a service, against servers that are none."""

from __future__ import annotations

import pytest

from app.commands.client import NoService, ServiceClient
from tests.support.model_server import serving

TOKEN = "abcdefgh12345678"


def test_a_token_is_not_sent_to_where_an_answer_leads(monkeypatch):
    monkeypatch.setenv("API_TOKEN", TOKEN)
    with serving({"/login": b"{}"}) as elsewhere:
        moved = 302, {"Location": f"{elsewhere.uri}/login"}, b""
        with serving({"/status": moved}) as server:
            ServiceClient(server.uri).get("/status")
            assert server.headers[0]["Authorization"] == f"Bearer {TOKEN}"
            assert "Authorization" not in elsewhere.headers[0]


def test_who_has_no_token_is_told_where_it_comes_from():
    body = b'{"detail": "a bearer token is needed"}'
    with (
        serving({"/status": (401, {}, body)}) as server,
        pytest.raises(NoService, match=r"needed \(set API_TOKEN or API_TOKEN_FILE\)$"),
    ):
        ServiceClient(server.uri).status()


def test_a_token_that_cannot_be_sent_is_not_shown(monkeypatch):
    """As of a file with DOS line ends."""
    monkeypatch.setenv("API_TOKEN", f"{TOKEN}\r")
    with pytest.raises(NoService, match=r"API_TOKEN is \(hidden\)") as raised:
        ServiceClient("localhost:1").get("/status")
    assert TOKEN not in str(raised.value)
