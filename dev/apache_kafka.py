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
from typing import IO

from dev.broker import brokers
from dev.frozen import freeze
from dev.ports import free_ports

BROKER = "kafka.Kafka"
HOME = Path(__file__).with_name("kafka")
FETCH_SECONDS = 600
START_SECONDS = 60
STOP_SECONDS = 20
PROBE_PAUSE_SECONDS = 0.05
OUTPUT_CHARACTERS = 3000

# before it Kafka without ZooKeeper is a preview, which has no transactions and no ACLs
KRAFT_SINCE = (3, 3)

PROPERTIES = {
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "message.max.bytes": "10485760",
    # compaction and retention within a test's patience
    "log.cleaner.backoff.ms": "100",
    "log.retention.check.interval.ms": "500",
    "log.initial.task.delay.ms": "100",
    "log.segment.delete.delay.ms": "100",
}
# a broker that was killed is let in again only when its last session has ended
KRAFT_PROPERTIES = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "broker.session.timeout.ms": "2000",
    "broker.heartbeat.interval.ms": "500",
}
# for one that nobody breaks: with so short a session a busy machine cuts it off for a moment, in which
# it leads nothing, and groups have no coordinator. It is Kafka's default
LEFT_ALONE = {"broker.session.timeout.ms": "9000"}
# started at the same time it may be slower than the broker, whose patience is else a session's
ZOOKEEPER_PROPERTIES = {
    "zookeeper.session.timeout.ms": "2000",
    "zookeeper.connection.timeout.ms": "20000",
}
ZOOKEEPER_CONFIG = {"tickTime": "500", "admin.enableServer": "false"}
# until when ZooKeeper has a broker end that comes too early; with KRaft it waits by itself
SESSION_ENDS_SECONDS = 3.0


def available() -> bool:
    return bool(shutil.which("java") and shutil.which("mvn"))


_chosen: list[str] = []


def choose(version: str) -> None:
    """Have all that is started from now on be of this version, and not of the pom's."""
    _chosen[:] = [version]


def version() -> str:
    return _chosen[0] if _chosen else _version_of_pom()


@functools.cache
def _version_of_pom() -> str:
    pom = xml.etree.ElementTree.parse(HOME / "pom.xml")
    return pom.findtext(".//{*}kafka.version") or "?"


def is_since(*least: int) -> bool:
    """Whether the version is this one or a later one, such as 3, 8."""
    return tuple(int(part) for part in version().split(".")) >= least


def libs() -> Path:
    return HOME / "target" / version()


def fetch() -> None:
    """Bring the jars that the pom names."""
    if not (libs() / f"kafka_2.13-{version()}.jar").exists():
        command = ["mvn", "-B", "-q", "-f", str(HOME / "pom.xml")]
        command += [f"-Dkafka.version={version()}", "dependency:copy-dependencies"]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=FETCH_SECONDS,
        )
        if done.returncode:
            raise RuntimeError(f"mvn cannot fetch Apache Kafka {version()}:\n{done.stdout}")


def prepare() -> None:
    """Fetch it, and have Java keep its classes as it has them in memory: a start then takes some
    40 % less of a core (JEP 350)."""
    fetch()
    if not _archive().exists():
        with running() as kafka:
            kafka.stop()


def _archive() -> Path:
    return libs() / "classes.jsa"


def java(
    main_class: str, *arguments: str, heap: str = "256m", jvm: Mapping[str, str] | None = None
) -> list[str]:
    """The command that runs one of Kafka's own programs; `jvm` holds system properties of Java."""
    sharing = []
    if _archive().exists():
        sharing = [f"-XX:SharedArchiveFile={_archive()}"]
    elif main_class == BROKER:
        sharing = [f"-XX:ArchiveClassesAtExit={_archive()}"]
    return [
        "java",
        *sharing,
        f"-Xmx{heap}",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        *(f"-D{name}={value}" for name, value in (jvm or {}).items()),
        "-cp",
        f"{libs()}/*",
        main_class,
        *arguments,
    ]


class ZooKeeper:
    """Where the brokers before KRAFT_SINCE keep what they know of their topics."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._disk = folder / "disk"
        self._port = next(free_ports)

    @property
    def address(self) -> str:
        return f"localhost:{self._port}"

    def start(self) -> None:
        settings = {**ZOOKEEPER_CONFIG, "clientPort": self._port, "dataDir": self._disk}
        config = _write_properties(self._folder / "zoo.cfg", settings)
        command = java("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config))
        with (self._folder / "output").open("a") as out:
            # nobody waits for it here: a broker does so itself when it starts
            self._process = subprocess.Popen(
                command, stdout=out, stderr=out, start_new_session=True
            )

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def lose_disk(self) -> None:
        self.kill()
        shutil.rmtree(self._disk)
        self.start()


class ApacheKafka:
    """One node with a disk of its own: with KRaft, broker and controller in one process.

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
        jvm: Mapping[str, str],
        zookeeper: ZooKeeper | None = None,
        port: int | None = None,
    ) -> None:
        """A node that has yet to be started; its disk, settings and output are in `folder`.

        Args:
            properties: server.properties, but for those that name ports and folders.
            listeners: the names of those for clients, PLAINTEXT among them.
            controller: host:port of the one for controllers.
            jvm: system properties of Java.
            zookeeper: where there are no controllers.
            port: of the listener PLAINTEXT; a free one if None.
        """
        folder.mkdir()
        self._folder = folder
        self._disk = folder / "disk"
        self._properties = properties
        self._ports = {name: next(free_ports) for name in listeners}
        if port:
            self._ports["PLAINTEXT"] = port
        self._controller = controller
        self._cluster_id = cluster_id
        self._heap = heap
        self._jvm = jvm
        self._zookeeper = zookeeper
        self._killed_at = -SESSION_ENDS_SECONDS
        advertised = properties.get("advertised.listeners")
        self._elsewhere = (
            dict(at.split("://") for at in advertised.split(",")) if advertised else {}
        )

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
        if self._zookeeper:
            time.sleep(max(self._killed_at + SESSION_ENDS_SECONDS - time.monotonic(), 0))
        with (self._folder / "output").open("a") as out:
            if not self._zookeeper and not self._disk.exists():
                self._format_disk(config, out)
            command = java(BROKER, str(config), heap=self._heap, jvm=self._jvm)
            self.process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
        self.wait_to_see({self._elsewhere.get("PLAINTEXT", self.address)})

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
        self._killed_at = time.monotonic()

    def freeze(self) -> None:
        """Have it do nothing more, with its connections open, until `thaw`."""
        freeze(self.process.pid)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def restore(self) -> None:
        """Have it run again, if it is frozen or has ended."""
        self.thaw()
        if self.process.poll() is not None:
            self.start()

    def wipe(self) -> None:
        """While it is stopped: lose everything it had on its disk, what the cluster knows of its
        topics too; the cluster id stays where there is no ZooKeeper."""
        self._assert_stopped()
        shutil.rmtree(self._disk)
        if self._zookeeper:
            self._zookeeper.lose_disk()

    def lose(self, topic: str, partition: int) -> None:
        """While it is stopped: lose what it had of a partition; the topic stays the same one."""
        self._assert_stopped()
        shutil.rmtree(self._disk / f"{topic}-{partition}")

    def move(self) -> None:
        """While it is stopped: have its listeners on other ports from the next start on."""
        self._assert_stopped()
        self._ports = {name: next(free_ports) for name in self._ports}

    def advertise(self, address: str) -> None:
        """While it is stopped: say from the next start on that it is at this host:port."""
        self._assert_stopped()
        self._elsewhere = {"PLAINTEXT": address}

    def _assert_stopped(self) -> None:
        assert self.process.poll() is not None, "the broker is running"

    def _write_config(self) -> Path:
        own = {name: self.address_of(name) for name in self._ports}
        controller = {} if self._zookeeper else {"CONTROLLER": self._controller}
        properties = {
            **self._properties,
            "listeners": _listeners(own | controller),
            "log.dirs": str(self._disk),
        }
        if self._elsewhere:  # some of them; Kafka wants to know of all
            properties["advertised.listeners"] = _listeners(own | self._elsewhere)
        return _write_properties(self._folder / "server.properties", properties)

    def _format_disk(self, config: Path, out: IO[str]) -> None:
        """Have Kafka do it once, for it takes a second of a core, and copy that from then on."""
        formatted = libs() / "formatted"
        if not formatted.exists():
            command = java(
                "kafka.tools.StorageTool",
                "format",
                # with "=", for a cluster id may begin with "-"
                f"--cluster-id={self._cluster_id}",
                f"--config={config}",
            )
            done = subprocess.run(
                command, check=False, stdout=out, stderr=out, timeout=START_SECONDS
            )
            if done.returncode:
                raise self._failure("Kafka did not format its disk")
            _keep(self._disk, formatted)
        else:
            shutil.copytree(formatted, self._disk)
            own = {
                "node.id": self._properties["node.id"],
                "cluster.id": self._cluster_id,
                "directory.id": secrets.token_urlsafe(16),
            }
            _change_properties(self._disk / "meta.properties", own)

    def _failure(self, what: str) -> RuntimeError:
        output = (self._folder / "output").read_text(errors="replace")
        return RuntimeError(f"{what}:\n{output[-OUTPUT_CHARACTERS:]}")


def _listeners(addresses: Mapping[str, str]) -> str:
    return ",".join(f"{name}://{address}" for name, address in addresses.items())


def _write_properties(path: Path, properties: Mapping[str, object]) -> Path:
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return path


def _change_properties(path: Path, changes: Mapping[str, str]) -> None:
    """Those that are there."""
    properties = dict(line.split("=", 1) for line in path.read_text().splitlines() if "=" in line)
    _write_properties(path, properties | {n: v for n, v in changes.items() if n in properties})


def _keep(folder: Path, copy: Path) -> None:
    """Copy it, at once and whole, for another process may do the same."""
    with tempfile.TemporaryDirectory(dir=copy.parent) as beside:
        shutil.copytree(folder, Path(beside) / "copy")
        try:
            (Path(beside) / "copy").rename(copy)
        except OSError:
            if not copy.exists():
                raise


@contextlib.contextmanager
def running(
    overrides: Mapping[str, str] | None = None,
    listeners: Collection[str] = ("PLAINTEXT",),
    port: int | None = None,
    jvm: Mapping[str, str] | None = None,
) -> Iterator[ApacheKafka]:
    """Run a broker for as long as the block.

    Args:
        overrides: server.properties that differ from those above; `advertised.listeners` may name
            those only that are said to be elsewhere.
        listeners: the names of those for clients, PLAINTEXT among them; `overrides` say what the
            others speak.
        port: of the listener PLAINTEXT; a free one if None.
        jvm: system properties of Java.

    Raises:
        RuntimeError: it did not come up; the text has the end of its output.
    """
    with _running(1, overrides or {}, listeners, heap="512m", port=port, jvm=jvm) as (broker,):
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
    count: int,
    overrides: Mapping[str, str],
    listeners: Collection[str],
    heap: str,
    port: int | None = None,
    jvm: Mapping[str, str] | None = None,
) -> Iterator[list[ApacheKafka]]:
    fetch()
    controllers = [f"localhost:{next(free_ports)}" for _ in range(count)]
    voters = ",".join(f"{node_id}@{address}" for node_id, address in enumerate(controllers, 1))
    replicas, in_sync = str(count), str(max(1, count - 1))
    cluster_id = secrets.token_urlsafe(16)
    with contextlib.ExitStack() as started:
        folder = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="kafka-")))
        if is_since(*KRAFT_SINCE):
            zookeeper = None
            metadata = {**KRAFT_PROPERTIES, "controller.quorum.voters": voters}
        else:
            zookeeper = ZooKeeper(folder / "zookeeper")
            zookeeper.start()
            started.callback(zookeeper.kill)
            metadata = {**ZOOKEEPER_PROPERTIES, "zookeeper.connect": zookeeper.address}
        nodes = [
            ApacheKafka(
                folder / str(node_id),
                {
                    **PROPERTIES,
                    **metadata,
                    "broker.id" if zookeeper else "node.id": str(node_id),
                    "broker.rack": f"rack-{node_id}",
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
                jvm=jvm or {},
                zookeeper=zookeeper,
                port=port,
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
