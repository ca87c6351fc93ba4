"""What a broker has counted, by its own metrics, and what its process has taken."""

from __future__ import annotations

import contextlib
import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psutil

from dev import apache_kafka
from dev.apache_kafka import ApacheKafka
from dev.ports import free_ports

# those of instances, by Kafka's names; a fetch of a follower, and not of a replica, is FetchConsumer
FETCH, COMMIT = "FetchConsumer", "OffsetCommit"
KINDS = (
    *(FETCH, COMMIT, "Metadata", "ListOffsets", "FindCoordinator", "ApiVersions"),
    *("OffsetDelete", "DeleteGroups"),
)
# their names are those of Kafka's documentation, "Monitoring"; the listener is that of clients
OBJECTS = (
    "kafka.network:type=RequestMetrics,name=RequestsPerSec,*",
    "kafka.server:type=socket-server-metrics,listener=PLAINTEXT,networkProcessor=*",
)
CONNECTIONS, MADE = "connection-count", "connection-creation-total"
RECEIVED, SENT = "incoming-byte-total", "outgoing-byte-total"
ATTRIBUTES = ("Count", CONNECTIONS, MADE, RECEIVED, SENT)
TOOL_SECONDS = 120


@dataclass(frozen=True)
class Reading:
    """What was counted until `at`, in seconds of the broker's clock.

    Attributes:
        counted: requests by kind; bytes received and sent, and connections made, by the names above.
        connections: how many there are.
        cpu: seconds of a core that the broker's process had taken at `cpu_at`, of the clock here.
    """

    at: float
    counted: Mapping[str, float]
    connections: float
    cpu: float
    cpu_at: float


class Watched:
    """A broker whose counters can be read."""

    def __init__(self, kafka: ApacheKafka, port: int) -> None:
        self.kafka = kafka
        self._url = f"service:jmx:rmi:///jndi/rmi://127.0.0.1:{port}/jmxrmi"

    def read(self) -> Reading:
        """
        Raises:
            RuntimeError: the broker does not tell.
        """
        cpu, cpu_at = psutil.Process(self.kafka.process.pid).cpu_times(), time.monotonic()
        at, counters = parse(self._ask())
        counted = {kind: counters.get(kind, 0.0) for kind in (*KINDS, MADE, RECEIVED, SENT)}
        return Reading(at, counted, counters[CONNECTIONS], cpu.user + cpu.system, cpu_at)

    def _ask(self) -> str:
        objects = [option for name in OBJECTS for option in ("--object-name", name)]
        options = ("--one-time", "--report-format", "properties")
        command = apache_kafka.java(
            "org.apache.kafka.tools.JmxTool",
            *("--jmx-url", self._url, *options, "--attributes", ",".join(ATTRIBUTES), *objects),
        )
        return _told(command)

    def heap(self) -> float:
        """How many bytes its objects take, after a collection of garbage."""
        pid = str(self.kafka.process.pid)
        _told(["jcmd", pid, "GC.run"])
        # of each generation
        used = re.findall(r"total \d+K, used (\d+)K", _told(["jcmd", pid, "GC.heap_info"]))
        return 1024 * sum(map(float, used))


def _told(command: list[str]) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=TOOL_SECONDS
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} does not tell of the broker:\n{done.stdout}{done.stderr}")
    return done.stdout


def parse(told: str) -> tuple[float, dict[str, float]]:
    """Give the time in seconds, and sums over versions of requests and threads of the network."""
    counters: dict[str, float] = {}
    at = 0.0
    for line in told.splitlines():
        # …,request=Fetch,version=12:Count=5, and …,networkProcessor=1:connection-count=7.0
        match = re.fullmatch(r"(.*):([\w-]+)=([\d.E]+)", line)
        if line.startswith("time="):
            at = float(line.removeprefix("time=")) / 1000
        elif match:
            name, attribute, value = match.groups()
            request = re.search(r"request=(\w+)", name)
            counter = request[1] if request else attribute
            counters[counter] = counters.get(counter, 0.0) + float(value)
    if not at or CONNECTIONS not in counters:
        raise RuntimeError(f"the broker's metrics are not as expected:\n{told}")
    return at, counters


@contextlib.contextmanager
def watched() -> Iterator[Watched]:
    """Run a broker for as long as the block."""
    port = next(free_ports)
    jmx = "com.sun.management.jmxremote"
    jvm = {
        f"{jmx}.port": str(port),
        f"{jmx}.host": "127.0.0.1",
        f"{jmx}.authenticate": "false",
        f"{jmx}.ssl": "false",
        "java.rmi.server.hostname": "127.0.0.1",
    }
    with apache_kafka.running(apache_kafka.LEFT_ALONE, jvm=jvm) as kafka:
        yield Watched(kafka, port)
