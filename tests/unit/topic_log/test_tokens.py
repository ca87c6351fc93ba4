"""When the next access token is fetched, and who waits for it."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

import pytest

from app.settings import SettingsError
from app.settings.security import SecuritySettings
from app.topic_log.errors import Refused, Unreachable
from app.topic_log.token_sources import NoToken, Token
from app.topic_log.tokens import Tokens, tokens_of
from tests.support.waiting import eventually

LIFE_SECONDS = 100.0


@dataclass
class Endpoint:
    """Gives numbered tokens, at once or when it is let."""

    now: float = 1000.0
    given: int = 0
    asked: int = 0
    failure: NoToken | None = None
    answers: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.answers.set()
        self.tokens = Tokens("the endpoint", self.fetch, now=lambda: self.now)

    def fetch(self) -> Token:
        self.asked += 1
        assert self.answers.wait(10)
        if self.failure:
            raise self.failure
        self.given += 1
        return Token(f"token {self.given}", LIFE_SECONDS)

    def settled(self) -> str:
        """The token, once nothing is fetched any more."""
        eventually(lambda: not self.tokens._fetches)
        return self.tokens.current()


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


def test_one_token_is_used_for_as_long_as_it_is_young(endpoint):
    endpoint.tokens.current()
    endpoint.now += LIFE_SECONDS * 0.79
    assert endpoint.tokens.current() == "token 1"
    assert endpoint.asked == 1


def test_the_next_is_fetched_ahead_and_nobody_waits_for_it(endpoint):
    endpoint.tokens.current()
    endpoint.now += LIFE_SECONDS * 0.81
    endpoint.answers.clear()
    assert [endpoint.tokens.current(), endpoint.tokens.current()] == ["token 1", "token 1"]
    endpoint.answers.set()
    assert endpoint.settled() == "token 2"
    assert endpoint.asked == 2


def test_an_old_one_is_used_while_the_endpoint_is_away(endpoint, caplog):
    endpoint.tokens.current()
    endpoint.now += LIFE_SECONDS * 0.9
    endpoint.failure = NoToken("it is away")
    with caplog.at_level(logging.WARNING):
        endpoint.tokens.current()
        assert endpoint.settled() == "token 1"
    assert caplog.messages == [
        "The next token cannot be had yet, the one before still counts: it is away"
    ]
    endpoint.failure = None
    endpoint.now += 5
    endpoint.tokens.current()
    assert endpoint.settled() == "token 2"


def test_an_expired_one_is_not_used(endpoint):
    endpoint.tokens.current()
    endpoint.now += LIFE_SECONDS
    endpoint.failure = NoToken("it is away")
    with pytest.raises(Unreachable, match="no token can be had: it is away"):
        endpoint.tokens.current()


def test_an_endpoint_that_is_away_is_not_asked_without_a_pause(endpoint):
    endpoint.failure = NoToken("it is away")
    for _ in range(3):
        with pytest.raises(Unreachable):
            endpoint.tokens.current()
    assert endpoint.asked == 1
    endpoint.now += 5
    with pytest.raises(Unreachable):
        endpoint.tokens.current()
    assert endpoint.asked == 2


def test_an_endpoint_that_refuses_this_client_is_a_refusal(endpoint):
    endpoint.failure = NoToken("it says invalid_client", is_refusal=True)
    with pytest.raises(Refused, match="it says invalid_client"):
        endpoint.tokens.current()


def test_who_waits_for_an_endpoint_that_hangs_does_not_wait_for_ever(endpoint):
    endpoint.answers.clear()
    with pytest.raises(Unreachable, match="the endpoint has not answered yet"):
        endpoint.tokens.current(wait_seconds=0.05)
    endpoint.answers.set()
    assert endpoint.settled() == "token 1"


def test_one_that_a_broker_refuses_is_used_no_more_unless_it_is_new(endpoint):
    endpoint.tokens.current()
    assert not endpoint.tokens.discard()
    assert endpoint.tokens.current() == "token 1"
    endpoint.now += 3
    assert endpoint.tokens.discard()
    assert endpoint.tokens.current() == "token 2"


def test_all_who_wait_get_the_one_that_comes(endpoint):
    endpoint.answers.clear()
    found: list[str] = []
    waiting = [
        threading.Thread(target=lambda: found.append(endpoint.tokens.current())) for _ in range(5)
    ]
    for thread in waiting:
        thread.start()
    endpoint.answers.set()
    for thread in waiting:
        thread.join(10)
    assert found == ["token 1"] * 5
    assert endpoint.asked == 1


def test_an_endpoint_that_hangs_is_asked_again_beside_it_but_not_without_end(endpoint):
    endpoint.answers.clear()
    for asked in (1, 2, 3, 3):
        with pytest.raises(Unreachable):
            endpoint.tokens.current(wait_seconds=0)
        eventually(lambda asked=asked: endpoint.asked == asked)
        endpoint.now += 60
    endpoint.answers.set()
    assert endpoint.settled()


def test_what_keeps_failing_is_told_once(endpoint, caplog):
    endpoint.tokens.current()
    endpoint.now += LIFE_SECONDS * 0.81
    endpoint.failure = NoToken("it is away")
    for _ in range(3):
        endpoint.tokens.current()
        endpoint.settled()
        endpoint.now += 5
    assert len(caplog.messages) == 1


def test_an_error_that_nobody_thought_of_leaves_nobody_waiting():
    tokens = Tokens("the endpoint", lambda: 1 / 0)
    expected = r"the endpoint has failed: ZeroDivisionError at test_tokens.py:\d+"
    with pytest.raises(Unreachable, match=expected):
        tokens.current()


def provided() -> tuple[str, float]:
    return "a token of one's own", time.time() + 60


def provided_in_milliseconds() -> tuple[str, float]:
    return "a token", time.time() * 1000


def provided_alone() -> str:
    return "a secret token"


def expired() -> tuple[str, float]:
    return "a token", time.time() - 1


def failing() -> None:
    raise RuntimeError("s3cret")


def tokens_by(name: str) -> Tokens:
    path = f"{__name__}.{name}"
    return tokens_of(SecuritySettings(sasl_mechanism="OAUTHBEARER", oauth_token_provider=path))


def test_a_provider_of_ones_own_is_asked():
    assert tokens_by("provided").current() == "a token of one's own"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "provided_in_milliseconds",
            "accepted are the token, a string, and when it expires, in sec",
        ),
        ("provided_alone", "accepted are the token, a string, and when it expires, in seconds"),
        ("expired", "the one that was given has expired already"),
        ("failing", r"failing has failed: RuntimeError at test_tokens.py:\d+"),
    ],
)
def test_a_provider_that_gives_none_is_told_what_is_accepted(name, expected):
    with pytest.raises(Unreachable, match=expected) as raised:
        tokens_by(name).current()
    assert "s" + "3cret" not in str(raised.value)
    assert "a secret token" not in str(raised.value)


@pytest.mark.parametrize("name", ["nowhere", "__name__"])
def test_what_is_no_provider_is_refused_at_the_start(name):
    with pytest.raises(SettingsError, match=r"_TOKEN_PROVIDER is .*: accepted is the dotted"):
        tokens_by(name)


def test_the_tokens_are_taken_out_of_what_is_logged():
    security = SecuritySettings(
        sasl_mechanism="OAUTHBEARER", oauth_token_provider=f"{__name__}.provided"
    )
    tokens_of(security).current()
    assert security.redactor.redact("<a token of one's own>") == "<(hidden)>"
