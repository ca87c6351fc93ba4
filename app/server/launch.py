"""What loads the application, and whether that can serve it."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
from flask import cli
from flask.helpers import get_debug_flag
from werkzeug.serving import is_running_from_reloader

log = logging.getLogger(__name__)

CONFIG = Path(__file__).with_name("gunicorn.conf.py")


class CannotServe(RuntimeError):
    """What loads the application could not serve it."""


def starts_consumer() -> bool:
    """Whether this process is to start the thread. gunicorn's master is not, for each worker starts
    its own after the fork; nor is the process of `flask run` that only watches the files."""
    has_hooks = "app.server.hooks" in sys.modules
    return not has_hooks and not _only_watches_files()


def check_server() -> None:
    """Warn where gunicorn has not read its configuration.

    Raises:
        CannotServe: it runs a worker that is not made of threads.
    """
    if "gunicorn.arbiter" not in sys.modules or "app.server.hooks" in sys.modules:
        return
    advice = (
        "gunicorn has not read this program's gunicorn.conf.py, which it looks for in the folder "
        f"that it is started in (--chdir comes too late): start it there, or with --config {CONFIG}"
    )
    if {"gunicorn.workers.ggevent", "gunicorn.workers.gtornado"} & sys.modules.keys():
        raise CannotServe(f"{advice}, and without -k: the service is made of threads")
    log.warning(
        "%s. As it is, one stream or wait holds up all others, metrics are of one worker, and "
        "with --preload nothing is followed",
        advice,
    )


def _only_watches_files() -> bool:
    context = click.get_current_context(silent=True)
    if context is None or context.command is not cli.run_command or is_running_from_reloader():
        return False
    reload: bool | None = context.params["reload"]
    return get_debug_flag() if reload is None else reload
