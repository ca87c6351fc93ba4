"""Find a broker, serve, and end all of it on Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from app.server import settings as server_settings
from app.settings import Settings, SettingsError
from dev.broker import EmbeddedBroker, answers, forwarding
from dev.ports import is_free, of_service

PORT = 9092
LOCAL = f"localhost:{PORT}"
LOOK_SECONDS = 0.1
STOP_SECONDS = 4.5


class CannotRun(Exception):
    """There is no broker or no port to be had; its text says what to do."""


def main(stop_signals: Sequence[int]) -> int | str:
    """Serve until there are `stop_signals` or gunicorn ends; gives the exit status or what went
    wrong."""
    try:
        server_settings.check(os.environ)
        settings = Settings.from_environ(os.environ)
        _require_free_port(os.environ)
        with _broker(os.environ, settings.topic) as servers:
            return _serve({**os.environ, "KAFKA_BOOTSTRAP_SERVERS": servers}, stop_signals)
    except (SettingsError, CannotRun) as error:
        return f"Error: {error}"


def _require_free_port(environ: Mapping[str, str]) -> None:
    """gunicorn tries five times, and does not say how to choose another."""
    if environ.get("GUNICORN_CMD_ARGS"):
        return  # there may be another in it
    port = int(of_service(environ))
    if port and not is_free(port):
        raise CannotRun(
            f"port {port} is in use, or not to be had; choose another, as in PORT=8001 make run "
            "and PORT=8001 make run-producer"
        )


@contextlib.contextmanager
def _broker(environ: Mapping[str, str], topic: str) -> Iterator[str]:
    servers = environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if servers:
        print(f"Broker: {servers}, from KAFKA_BOOTSTRAP_SERVERS", flush=True)
        yield servers
    elif answers(LOCAL):
        print(f"Broker: {LOCAL}, which was already there", flush=True)
        yield LOCAL
    else:
        with _embedded_broker(topic):
            print(
                f"Broker: an embedded one at {LOCAL}, in memory: "
                "what it holds is gone when it stops",
                flush=True,
            )
            yield LOCAL


@contextlib.contextmanager
def _embedded_broker(topic: str) -> Iterator[None]:
    if importlib.util.find_spec("kafka.net"):
        raise CannotRun(
            "the embedded broker does not answer kafka-python 3; "
            "set KAFKA_BOOTSTRAP_SERVERS, or make install KAFKA_CLIENT=kafka-python-ng"
        )
    with contextlib.ExitStack() as stack:
        embedded = EmbeddedBroker()
        try:
            stack.enter_context(forwarding(PORT, embedded.address))
        except OSError as error:
            raise CannotRun(
                f"port {PORT} is taken by something that is not Kafka ({error}); "
                "set KAFKA_BOOTSTRAP_SERVERS"
            ) from error
        embedded.create_topic(topic)
        yield


def _serve(environ: Mapping[str, str], stop_signals: Sequence[int]) -> int:
    if stop_signals:
        return 0
    gunicorn = Path(sys.executable).with_name("gunicorn")
    # in a session of its own: Ctrl-C must reach gunicorn as SIGTERM from here and no other way,
    # since a gthread worker that gets SIGINT can deadlock
    server = subprocess.Popen([gunicorn, "wsgi:app"], env=environ, start_new_session=True)
    while server.poll() is None and not stop_signals:
        time.sleep(LOOK_SECONDS)
    if not stop_signals:
        return server.returncode
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    return 0
