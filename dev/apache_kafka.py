"""A real Apache Kafka on this machine, from its Maven artifacts: one KRaft node, a fresh disk."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Iterator, Mapping
from pathlib import Path

from dev.broker import answers

HOME = Path(__file__).with_name("kafka")
LIBS = HOME / "target" / "libs"
FETCH_SECONDS = 600
START_SECONDS = 60
STOP_SECONDS = 20


def available() -> bool:
    return bool(shutil.which("java") and shutil.which("mvn"))


@functools.cache
def version() -> str:
    pom = xml.etree.ElementTree.parse(HOME / "pom.xml")
    return pom.findtext(".//{*}kafka.version") or "?"


def fetch() -> None:
    """Bring the jars that the pom names."""
    if not (LIBS / f"kafka_2.13-{version()}.jar").exists():
        command = ["mvn", "-B", "-q", "-f", str(HOME / "pom.xml"), "dependency:copy-dependencies"]
        subprocess.run(command, check=True, timeout=FETCH_SECONDS)


def java(main_class: str, *arguments: str, heap: str = "256m") -> list[str]:
    """The command that runs one of Kafka's own programs."""
    return [
        "java",
        f"-Xmx{heap}",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{LIBS}/*",
        main_class,
        *arguments,
    ]


@contextlib.contextmanager
def running(overrides: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a broker for as long as the block; gives its host:port.

    Args:
        overrides: server.properties that differ from those below.

    Raises:
        RuntimeError: it did not come up; the text has the end of its output.
    """
    fetch()
    port, controller_port = _free_ports(2)
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.bootstrap.servers": f"localhost:{controller_port}",
            "listeners": f"PLAINTEXT://localhost:{port},CONTROLLER://localhost:{controller_port}",
            "controller.listener.names": "CONTROLLER",
            "log.dirs": f"{folder}/data",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "message.max.bytes": "10485760",
            # compaction and retention within a test's patience
            "log.cleaner.backoff.ms": "100",
            "log.retention.check.interval.ms": "500",
            "log.initial.task.delay.ms": "100",
            "log.segment.delete.delay.ms": "100",
            **(overrides or {}),
        }
        config = Path(folder, "server.properties")
        config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        output = Path(folder, "output")
        with output.open("w") as out:
            # with "=", for a cluster id may begin with "-"
            cluster_id = f"--cluster-id={secrets.token_urlsafe(16)}"
            format_command = java(
                "kafka.tools.StorageTool",
                "format",
                "--standalone",
                cluster_id,
                f"--config={config}",
            )
            formatted = subprocess.run(
                format_command, check=False, stdout=out, stderr=out, timeout=START_SECONDS
            )
            command = java("kafka.Kafka", str(config), heap="512m")
            broker = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        try:
            address = f"localhost:{port}"
            deadline = time.monotonic() + START_SECONDS
            while formatted.returncode or not answers(address):
                if broker.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"Kafka did not start:\n{output.read_text()[-3000:]}")
            yield address
        finally:
            _end(broker)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
        ]
        return [sock.getsockname()[1] for sock in sockets]
