"""A real Apache Kafka on this machine, from its Maven artifacts, that a test may break."""

from __future__ import annotations

import contextlib
import functools
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
import xml.etree.ElementTree
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from dev.broker import brokers
from dev.ports import free_ports

HOME = Path(__file__).with_name("kafka")
LIBS = HOME / "target" / "libs"
FETCH_SECONDS = 600
START_SECONDS = 60
STOP_SECONDS = 20
PROBE_PAUSE_SECONDS = 0.05
OUTPUT_CHARACTERS = 3000

PROPERTIES = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "message.max.bytes": "10485760",
    # compaction and retention within a test's patience
    "log.cleaner.backoff.ms": "100",
    "log.retention.check.interval.ms": "500",
    "log.initial.task.delay.ms": "100",
    "log.segment.delete.delay.ms": "100",
    # a broker that was killed is let in again only when its last session has ended
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
}


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
        "-XX:+UseSerialGC",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-cp",
        f"{LIBS}/*",
        main_class,
        *arguments,
    ]


class ApacheKafka:
    """One KRaft node, broker and controller in one process, with a disk of its own.

    Attributes:
        process: the java process of the last start.
    """

    process: subprocess.Popen[bytes]

    def __init__(
        self,
        folder: Path,
        properties: Mapping[str, str],
        *,
        listeners: Collection[str],
        controller: str,
        cluster_id: str,
        heap: str,
    ) -> None:
        """A node that has yet to be started; its disk, settings and output are in `folder`.

        Args:
            properties: server.properties, but for those that name ports and folders.
            listeners: the names of those for clients, PLAINTEXT among them.
            controller: host:port of the one for controllers.
        """
        folder.mkdir()
        self._folder = folder
        self._disk = folder / "disk"
        self._properties = properties
        self._ports = {name: next(free_ports) for name in listeners}
        self._controller = controller
        self._cluster_id = cluster_id
        self._heap = heap

    def address_of(self, listener: str) -> str:
        """The listener's host:port; the same after a restart."""
        return f"localhost:{self._ports[listener]}"

    @property
    def address(self) -> str:
        return self.address_of("PLAINTEXT")

    def start(self) -> None:
        """Format the disk if it is empty, start, and return once the broker answers.

        Raises:
            RuntimeError: it did not within START_SECONDS; the text has the end of its output.
        """
        config = self._write_config()
        with (self._folder / "output").open("a") as out:
            if not self._disk.exists():
                format_command = java(
                    "kafka.tools.StorageTool",
                    "format",
                    # with "=", for a cluster id may begin with "-"
                    f"--cluster-id={self._cluster_id}",
                    f"--config={config}",
                )
                formatted = subprocess.run(
                    format_command, check=False, stdout=out, stderr=out, timeout=START_SECONDS
                )
                if formatted.returncode:
                    raise self._failure("Kafka did not format its disk")
            command = java("kafka.Kafka", str(config), heap=self._heap)
            self.process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        self.wait_to_see({self.address})

    def wait_to_see(self, addresses: set[str]) -> None:
        """Return once it answers that these brokers are there.

        Raises:
            RuntimeError: it did not within START_SECONDS; the text has the end of its output.
        """
        deadline = time.monotonic() + START_SECONDS
        while not addresses <= brokers(self.address):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise self._failure("Kafka did not start")
            time.sleep(PROBE_PAUSE_SECONDS)

    def stop(self) -> None:
        """Let it end as an operator would; kill it if it takes more than STOP_SECONDS."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End it as a power cut would, a frozen one too."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Have it do nothing more, with its connections open, until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def wipe(self) -> None:
        """While it is stopped: lose everything it had on its disk; the cluster id stays."""
        self._assert_stopped()
        shutil.rmtree(self._disk)

    def move(self) -> None:
        """While it is stopped: have its listeners on other ports from the next start on."""
        self._assert_stopped()
        self._ports = {name: next(free_ports) for name in self._ports}

    def _assert_stopped(self) -> None:
        assert self.process.poll() is not None, "the broker is running"

    def _write_config(self) -> Path:
        listeners = {name: self.address_of(name) for name in self._ports}
        listeners["CONTROLLER"] = self._controller
        properties = {
            **self._properties,
            "listeners": ",".join(f"{name}://{address}" for name, address in listeners.items()),
            "log.dirs": str(self._disk),
        }
        config = self._folder / "server.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
        return config

    def _failure(self, what: str) -> RuntimeError:
        output = (self._folder / "output").read_text(errors="replace")
        return RuntimeError(f"{what}:\n{output[-OUTPUT_CHARACTERS:]}")


@contextlib.contextmanager
def running(
    overrides: Mapping[str, str] | None = None, listeners: Collection[str] = ("PLAINTEXT",)
) -> Iterator[ApacheKafka]:
    """Run a broker for as long as the block.

    Args:
        overrides: server.properties that differ from those above.
        listeners: the names of those for clients, PLAINTEXT among them; `overrides` say what the
            others speak.

    Raises:
        RuntimeError: it did not come up; the text has the end of its output.
    """
    with _running(1, overrides or {}, listeners, heap="512m") as (broker,):
        yield broker


@contextlib.contextmanager
def running_cluster(
    nodes: int = 3, overrides: Mapping[str, str] | None = None
) -> Iterator[list[ApacheKafka]]:
    """Run a cluster for as long as the block; each node has every partition by default.

    Raises:
        RuntimeError: a node did not come up; the text has the end of its output.
    """
    with _running(nodes, overrides or {}, ("PLAINTEXT",), heap="256m") as cluster:
        for node in cluster:
            node.wait_to_see({other.address for other in cluster})
        yield cluster


@contextlib.contextmanager
def _running(
    count: int, overrides: Mapping[str, str], listeners: Collection[str], heap: str
) -> Iterator[list[ApacheKafka]]:
    fetch()
    controllers = [f"localhost:{next(free_ports)}" for _ in range(count)]
    voters = ",".join(f"{node_id}@{address}" for node_id, address in enumerate(controllers, 1))
    replicas, in_sync = str(count), str(max(1, count - 1))
    cluster_id = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="kafka-") as folder:
        nodes = [
            ApacheKafka(
                Path(folder, str(node_id)),
                {
                    **PROPERTIES,
                    "node.id": str(node_id),
                    "controller.quorum.voters": voters,
                    "default.replication.factor": replicas,
                    "min.insync.replicas": in_sync,
                    "offsets.topic.replication.factor": replicas,
                    "transaction.state.log.replication.factor": replicas,
                    "transaction.state.log.min.isr": in_sync,
                    **overrides,
                },
                listeners=listeners,
                controller=controller,
                cluster_id=cluster_id,
                heap=heap,
            )
            for node_id, controller in enumerate(controllers, 1)
        ]
        try:
            # at once, for none of a cluster answers before most are there
            with ThreadPoolExecutor() as pool:
                list(pool.map(ApacheKafka.start, nodes))
            yield nodes
        finally:
            for node in nodes:
                if hasattr(node, "process"):
                    node.kill()
