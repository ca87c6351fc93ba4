"""`make run`: find a broker, serve, and end all of it on Ctrl-C."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from app.settings import Settings, SettingsError
from dev.broker import EmbeddedBroker, forwarding

PORT = 9092
LOCAL = f"localhost:{PORT}"
PROBE_SECONDS = 2.0
STOP_SECONDS = 4.5


def main() -> int | str:
    for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop_signal, _interrupt)
    try:
        settings = Settings.from_environ(os.environ)
        with _broker(os.environ, settings.topic) as servers:
            return _serve({**os.environ, "KAFKA_BOOTSTRAP_SERVERS": servers})
    except SettingsError as error:
        return f"Error: {error}"
    except BrokerUnavailable as error:
        return f"Error: {error}"
    except KeyboardInterrupt:
        return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


class BrokerUnavailable(Exception):
    """There is no broker to be had; its text says what to do."""


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
        if importlib.util.find_spec("kafka.net"):
            raise BrokerUnavailable(
                "the embedded broker does not answer kafka-python 3; "
                "set KAFKA_BOOTSTRAP_SERVERS, or make install KAFKA_CLIENT=kafka-python-ng"
            )
        embedded = EmbeddedBroker()
        embedded.create_topic(topic)
        try:
            with forwarding(PORT, embedded.address):
                print(
                    f"Broker: an embedded one at {LOCAL}, in memory: "
                    "what it holds is gone when it stops",
                    flush=True,
                )
                yield LOCAL
        except OSError as error:
            raise BrokerUnavailable(
                f"port {PORT} is taken by something that is not Kafka ({error}); "
                "set KAFKA_BOOTSTRAP_SERVERS"
            ) from error


def answers(server: str) -> bool:
    """Whether a Kafka broker answers at this host:port."""
    host, _, port = server.rpartition(":")
    try:
        # at once where nothing listens, which the client below would go on trying
        socket.create_connection((host, int(port)), PROBE_SECONDS).close()
        AdminClient({"bootstrap.servers": server, "log_level": 0}).list_topics(
            timeout=PROBE_SECONDS
        )
    except (OSError, KafkaException):
        return False
    return True


def _serve(environ: Mapping[str, str]) -> int:
    gunicorn = Path(sys.executable).with_name("gunicorn")
    # in a session of its own: Ctrl-C must reach gunicorn as SIGTERM from here and no other way,
    # since a gthread worker that gets SIGINT can deadlock
    server = subprocess.Popen([gunicorn, "wsgi:app"], env=environ, start_new_session=True)
    try:
        return server.wait()
    except KeyboardInterrupt:
        for stop_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(stop_signal, signal.SIG_IGN)
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        return 0


if __name__ == "__main__":
    sys.exit(main())
