"""An HTTP client of a running service."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from datetime import datetime
from http.client import HTTPException
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from app.settings.settings import read_tokens

ANSWER_SECONDS = 10.0
BAD_REQUEST, UNAUTHORIZED, OK = 400, 401, 200


class NoService(Exception):
    """What answers there, if anything, is not this service; the text says so."""


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: dict[str, Any]


class ServiceClient:
    """
    Args:
        url: `http://` may be left out.
    """

    def __init__(self, url: str) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")

    def status(self) -> dict[str, Any]:
        """What `/status` says.

        Raises:
            NoService: it says nothing.
        """
        answer = self.get("/status")
        if answer.status != OK or "partitions" not in answer.body:
            wanted = (
                "set API_TOKEN or API_TOKEN_FILE"
                if answer.status == UNAUTHORIZED
                else "wanted is the address that /status is below"
            )
            raise NoService(
                f"{self.url}/status answers {answer.status}: {_detail(answer)} ({wanted})"
            )
        return answer.body

    def get(self, path: str, wait: int = 0) -> Answer:
        """
        Args:
            wait: seconds that the service may wait for what is asked for.

        Raises:
            NoService: there is no answer, or one that is no JSON object.
        """
        request = Request(f"{self.url}{path}", headers={"Prefer": f"wait={wait}"})
        token = _token()
        if token:
            # not to where a redirect leads
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        try:
            try:
                with urlopen(request, timeout=wait + ANSWER_SECONDS) as answer:
                    status, headers, text = answer.status, answer.headers, answer.read()
            except HTTPError as error:
                with error:
                    status, headers, text = error.code, error.headers, error.read()
            body = json.loads(text)
        except (URLError, OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise NoService(f"{self.url} does not answer: {reason}") from error
        except ValueError as error:
            raise NoService(f"{self.url} is no kafka-state: {error}") from error
        if not isinstance(body, dict):
            raise NoService(f"{self.url} is no kafka-state: its answer is no JSON object")
        return Answer(status, headers, body)


def _token() -> str | None:
    """The token of the environment, or the first one in its file.

    Raises:
        NoService: it cannot be sent.
    """
    token, file = os.environ.get("API_TOKEN"), os.environ.get("API_TOKEN_FILE")
    if file and not token:
        try:
            return read_tokens(file)[0]
        except (OSError, ValueError) as error:
            raise NoService(f"API_TOKEN_FILE is {file!r}: {error}") from error
    if token and not (token.isascii() and token.isprintable()):
        raise NoService("API_TOKEN is (hidden): accepted is what the service accepts")
    return token


def shown_time(at: datetime) -> str:
    """Write a time for eyes, in the local time zone, which is named."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %z")


def _detail(answer: Answer) -> str:
    return str(answer.body.get("detail", "not what kafka-state answers"))
