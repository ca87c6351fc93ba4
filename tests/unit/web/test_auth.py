"""Who is answered, and with which headers."""

from __future__ import annotations

import hmac

import pytest

from app.state import Snapshot, State
from app.web import auth as protection
from app.web import errors as problems
from app.web import views
from tests.support.still import still_app

TOKEN = "s3cret.token~1=="


def client(*tokens: str):
    state = State()
    app = still_app(state)
    state.publish(Snapshot("77"), {0: 0})
    app.register_blueprint(views.blueprint)
    problems.register(app)
    protection.register(app, lambda: tokens)
    return app.test_client()


def test_without_a_token_everyone_is_answered():
    assert client().get("/state").status_code == 200


def test_with_a_token_only_who_has_it_is_answered():
    given = {"Authorization": f"Bearer {TOKEN}"}
    assert client(TOKEN).get("/state", headers=given).data == b'{"state":77}'


@pytest.mark.parametrize("path", ["/state", "/status", "/nowhere"])
def test_who_has_none_is_told_which_kind_is_needed(path):
    answer = client(TOKEN).get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="kafka state"'
    assert answer.mimetype == "application/problem+json"
    assert b"77" not in answer.data


def test_a_browser_gets_the_page_that_asks_for_the_token():
    for path in ("/", "/static/page.js"):
        assert client(TOKEN).get(path, headers={"Accept": "text/html"}).status_code != 401


@pytest.mark.parametrize(
    "given",
    [
        "Bearer wrong",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer ",
        "Bearer",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN.upper()}",
        TOKEN,
        "Bearer \u00e9",
        "Bearer a=b",
    ],
)
def test_what_is_not_the_token_is_refused(given):
    answer = client(TOKEN).get("/state", headers={"Authorization": given})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert TOKEN not in answer.text


def test_a_wrong_token_is_said_to_be_invalid():
    answer = client(TOKEN).get("/state", headers={"Authorization": "Bearer wrong"})
    assert answer.headers["WWW-Authenticate"].endswith("error=invalid_token")


def test_tokens_are_compared_in_constant_time(monkeypatch):
    compared = []

    def compare(*sides: bytes) -> bool:
        compared.append(set(sides))
        return False

    monkeypatch.setattr(hmac, "compare_digest", compare)
    client(TOKEN).get("/state", headers={"Authorization": f"Bearer {TOKEN}"})
    assert compared == [{TOKEN.encode()}]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_token(path):
    assert client(TOKEN).get(path).status_code == 200


@pytest.mark.parametrize("path", ["/", "/state", "/nowhere"])
def test_browsers_may_use_nothing_with_an_answer_that_is_not_of_this_service(path):
    headers = client().get(path).headers
    policy = dict(part.split(maxsplit=1) for part in headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    sources = {source for sources in policy.values() for source in sources.split()}
    assert sources == {"'none'", "'self'", "data:"}
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize("path", ["/", "/state", "/nowhere", "/healthz"])
def test_no_header_is_sent_twice(path):
    names = [name.lower() for name, _ in client().get(path).headers]
    assert sorted(names) == sorted(set(names))


def test_only_the_state_may_be_kept_and_only_to_be_checked():
    assert client().get("/state").headers["Cache-Control"] == "no-cache, no-transform"
    assert client().get("/healthz").headers["Cache-Control"] == "no-store"
