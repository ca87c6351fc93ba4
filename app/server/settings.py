"""Settings of gunicorn's own, checked here because gunicorn answers a wrong one with a traceback."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass

from app.settings import SettingsError
from app.settings.environment import read, setting
from app.settings.kinds import whole_number
from app.settings.settings import WAITING_ACCEPTED

HIGHEST_PORT = 2**16 - 1
MOST_WORKERS = 10_000
# one for each request that is being answered, also to a client who does not read
THREADS = 1000


@dataclass(frozen=True)
class ServerSettings:
    port: int | None = setting(
        "PORT",
        whole_number(None, 0, HIGHEST_PORT),
        "The port. If it is set, gunicorn listens on all IPv4 addresses of the machine; for IPv6 "
        "too, use `--bind [::]:8000`. If it is not set, `make run` listens on `localhost` only, "
        "port 8000.",
        default=None,
    )
    workers: int | None = setting(
        "WEB_CONCURRENCY",
        whole_number("workers", 1, MOST_WORKERS),
        "How many workers gunicorn starts. Each worker follows the topic on its own. If it is "
        "not set: one worker.",
        default=None,
    )


def threads(environ: Mapping[str, str]) -> int:
    """How many threads a worker has, by what gunicorn reads from the environment.

    Raises:
        SettingsError: gunicorn does not know an option, or cannot read them.
    """
    from gunicorn.config import Config  # the import fails where WEB_CONCURRENCY is no number

    given = environ.get("GUNICORN_CMD_ARGS", "")
    try:
        options = shlex.split(given)
    except ValueError as error:
        raise SettingsError(f"GUNICORN_CMD_ARGS is {given!r}: {error}") from error
    known, unknown = Config().parser().parse_known_args(options)
    if unknown:
        raise SettingsError(
            f"GUNICORN_CMD_ARGS has {' '.join(unknown)}: accepted are gunicorn's options, which "
            "gunicorn --help lists"
        )
    return int(known.threads or THREADS)


def check_waiting(max_waiting: int | None, threads: int) -> None:
    """Check that not every thread may wait.

    Raises:
        SettingsError: as many may wait as there are threads, so that nobody else is answered.
    """
    if max_waiting is not None and max_waiting >= threads:
        raise SettingsError(f"STATE_MAX_WAITING is '{max_waiting}': {WAITING_ACCEPTED}, {threads}")


def check(environ: Mapping[str, str]) -> None:
    """Check the variables.

    Raises:
        SettingsError: one of them is no number, or out of its range.
    """
    read(ServerSettings, environ)
