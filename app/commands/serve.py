"""`kafka-state serve`"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from app.server import settings as server_settings
from app.server.launch import CONFIG
from app.settings import SettingsError


@click.command(
    context_settings={"ignore_unknown_options": True},
    options_metavar="[GUNICORN'S OPTIONS] [MODULE:APP]",
    add_help_option=False,
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="")
@click.help_option("--help")
def serve(options: tuple[str, ...]) -> None:
    """Serve the state by gunicorn, with the configuration that comes with this package.

    Works in any folder. gunicorn's own options and variables come on top: --bind, --workers,
    PORT, WEB_CONCURRENCY and all others that gunicorn --help lists. MODULE:APP serves an
    application that adds views to wsgi:app.
    """
    try:
        server_settings.check(os.environ)
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    gunicorn = str(Path(sys.executable).with_name("gunicorn"))
    # gunicorn takes the first application of several
    os.execv(gunicorn, [gunicorn, "--config", str(CONFIG), *options, "wsgi:app"])
