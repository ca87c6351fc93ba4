"""gunicorn's own variables, of which it says in a traceback only that they are no numbers, and
the number of its threads."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from marshmallow import EXCLUDE, Schema

from app.settings.environment import SettingsError, read, whole_number
from app.settings.settings import WAITING_ACCEPTED

HIGHEST_PORT = 2**16 - 1
MOST_WORKERS = 10_000
# one for each request that is being answered, also to a client who does not read
THREADS = 1000


class _Variables(Schema):
    class Meta:
        unknown = EXCLUDE

    port = whole_number("PORT", None, None, 0, HIGHEST_PORT)
    workers = whole_number("WEB_CONCURRENCY", "workers", None, 1, MOST_WORKERS)


def threads(environ: Mapping[str, str]) -> int:
    """How many threads a worker has, by what gunicorn reads from the environment.

    Raises:
        SettingsError: gunicorn does not know an option.
    """
    from gunicorn.config import Config  # as it is imported it takes WEB_CONCURRENCY for a number

    options = shlex.split(environ.get("GUNICORN_CMD_ARGS", ""))
    given, unknown = Config().parser().parse_known_args(options)
    if unknown:
        raise SettingsError(
            f"GUNICORN_CMD_ARGS has {' '.join(unknown)}: accepted are gunicorn's options, which "
            "gunicorn --help lists"
        )
    return int(given.threads or THREADS)


def check_waiting(max_waiting: int | None, threads: int) -> None:
    """
    Raises:
        SettingsError: as many may wait as there are threads, so that nobody else is answered.
    """
    if max_waiting is not None and max_waiting >= threads:
        raise SettingsError(f"STATE_MAX_WAITING is '{max_waiting}': {WAITING_ACCEPTED}, {threads}")


def check(environ: Mapping[str, str]) -> None:
    """
    Raises:
        SettingsError: one of them is no number, or out of its range.
    """
    read(_Variables(), environ)
