"""Which route a request takes, for who answers it need not be Flask."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask
from werkzeug.exceptions import HTTPException


def route_finder(app: Flask) -> Callable[[str, str], str | None]:
    """Give what finds a route by a method and a path; None if there is none."""
    routes = app.url_map.bind("")

    def find(method: str, path: str) -> str | None:
        try:
            rule, _ = routes.match(path, method, return_rule=True)
        except HTTPException:  # a redirect too
            return None
        return rule.rule

    return find
