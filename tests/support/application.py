"""The service in the process of the tests."""

from __future__ import annotations

from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from app.service import service_of
from tests.support.waiting import eventually


class Service:
    """The application in this process, asked through Flask's own client."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()
        self.consumer = service_of(app).consumer
        self.state = service_of(app).state

    def get(self, path: str = "/state") -> TestResponse:
        return self.client.get(path)

    @property
    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.get("/status").get_json()
        return status

    def first_state(self) -> Any:
        """The state in the first answer that is not 503."""
        answer = eventually(lambda: self._unless_503())
        assert answer
        assert answer.status_code == 200
        return answer.get_json()["state"]

    def _unless_503(self) -> TestResponse | None:
        answer = self.get()
        return None if answer.status_code == 503 else answer

    def comes_to(self, state: Any) -> bool:
        return bool(eventually(lambda: self.get().get_json().get("state") == state))
