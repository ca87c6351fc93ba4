"""gunicorn's own variables, of which it says in a traceback only that they are no numbers."""

from __future__ import annotations

from collections.abc import Mapping

from marshmallow import EXCLUDE, Schema

from app.environment import read, whole_number

HIGHEST_PORT = 2**16 - 1
MOST_WORKERS = 10_000


class _Variables(Schema):
    class Meta:
        unknown = EXCLUDE

    port = whole_number("PORT", None, None, 0, HIGHEST_PORT)
    workers = whole_number("WEB_CONCURRENCY", "workers", None, 1, MOST_WORKERS)


def check(environ: Mapping[str, str]) -> None:
    """
    Raises:
        SettingsError: one of them is no number, or out of its range.
    """
    read(_Variables(), environ)
