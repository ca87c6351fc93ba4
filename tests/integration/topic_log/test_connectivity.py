"""What an operator reads, everywhere, where brokers are not at the addresses they are asked at."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dev import apache_kafka
from tests.support.processes import Program, following, producer
from tests.support.topics import Topic, new_topic
from tests.support.waiting import eventually

pytestmark = pytest.mark.own_kafka

START_SECONDS = 3.0
Ended = subprocess.CompletedProcess[str]
OWN_LISTENERS = ["PLAINTEXT", "CONTROLLER"]


@contextlib.contextmanager
def mute() -> Iterator[str]:
    """The address of one who takes connections and says nothing, as behind some firewalls."""
    with socket.create_server(("127.0.0.1", 0), backlog=1000) as server:
        yield f"localhost:{server.getsockname()[1]}"


@contextlib.contextmanager
def nobody() -> Iterator[str]:
    """The address of nobody: a port that is taken, and where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"localhost:{taken.getsockname()[1]}"


@contextlib.contextmanager
def unknown() -> Iterator[str]:
    yield "kafka.invalid:9092"  # RFC 2606


# who is there, and what is said of it
WAYS = {
    "SILENT": (mute, "no answer within 2 s"),
    "REFUSED": (nobody, "connection refused"),
    "UNKNOWN": (unknown, "its name is not known"),
}


def detail(program: Program) -> str:
    answer = program.get("/readyz")
    return answer.json()["detail"] if answer is not None and answer.status_code == 503 else ""


@pytest.fixture(scope="module")
def astray() -> Iterator[dict[str, tuple[str, str, Topic]]]:
    """By what is wrong with it: where a listener is, and where it is said to be, of one broker."""
    with contextlib.ExitStack() as opened:
        elsewhere = {listener: opened.enter_context(who()) for listener, (who, _) in WAYS.items()}
        protocols = [f"{listener}:PLAINTEXT" for listener in (*elsewhere, *OWN_LISTENERS)]
        properties = {
            "listener.security.protocol.map": ",".join(protocols),
            "inter.broker.listener.name": "PLAINTEXT",
            "advertised.listeners": ",".join(f"{n}://{at}" for n, at in elsewhere.items()),
        }
        listeners = ["PLAINTEXT", *elsewhere]
        kafka = opened.enter_context(apache_kafka.running(properties, listeners))
        topic = new_topic(kafka.address)
        yield {
            listener: (at, kafka.address_of(listener), topic) for listener, at in elsewhere.items()
        }


@pytest.fixture(scope="module")
def told(astray, tmp_path_factory) -> Iterator[dict[str, tuple[Program, Ended]]]:
    """By listener: a service that asks there, and a producer that has; all at once, for they wait."""
    with contextlib.ExitStack() as running, ThreadPoolExecutor() as pool:
        programs, produced = {}, {}
        for listener, (_, servers, topic) in astray.items():
            asked = Topic(topic.name, servers)
            output = tmp_path_factory.mktemp(listener) / "output"
            programs[listener] = running.enter_context(following(asked, output))
            produced[listener] = pool.submit(
                producer, **asked.environ, KAFKA_REQUEST_TIMEOUT_MS="2000"
            )
        yield {listener: (programs[listener], produced[listener].result()) for listener in astray}


@pytest.mark.xdist_group("connectivity")
@pytest.mark.parametrize("listener", WAYS)
def test_a_broker_that_is_said_to_be_elsewhere_is_named_with_that_address(astray, told, listener):
    address, _, topic = astray[listener]
    program, produced = told[listener]
    _, why = WAYS[listener]
    expected = (
        f"the cluster says that its broker 1 is at {address} (advertised.listeners), "
        f"which does not answer from here: {why}"
    )
    eventually(lambda: detail(program) == expected)
    assert program.get("/status").json()["last_error"]["error"] == expected
    assert f"Not following {topic.name}: {expected}" in program.output
    assert produced.returncode == 1
    assert expected in produced.stderr


@pytest.mark.xdist_group("cluster")
def test_a_partitions_leader_that_is_said_to_be_elsewhere_is_named_with_that_address(
    cluster, tmp_path
):
    """One of three, so that the others answer for the cluster."""
    topic = new_topic(cluster[0].address, num_partitions=3, replication_factor=1)
    leader = topic.leader(1)
    astray = cluster[leader - 1]
    others = ",".join(node.address for node in cluster if node is not astray)
    with nobody() as address, contextlib.ExitStack() as whole:
        astray.stop()
        astray.advertise(address)
        whole.callback(astray.advertise, astray.address)
        whole.callback(astray.stop)
        astray.start()
        expected = (
            f"partition 1 cannot be read: NO_CONNECTION: the cluster says that its broker "
            f"{leader} is at {address} (advertised.listeners), which does not answer from here"
        )
        with following(Topic(topic.name, others), tmp_path / "output") as program:
            eventually(lambda: detail(program).endswith(expected))


@pytest.mark.parametrize("is_first", [True, False])
@pytest.mark.parametrize(("elsewhere", "why"), WAYS.values(), ids=WAYS)
def test_a_bootstrap_server_that_is_away_is_named_and_not_waited_for(
    bootstrap_servers, topic, tmp_path, elsewhere, why, is_first
):
    topic.send_state(1)
    with elsewhere() as away:
        servers = [away, bootstrap_servers] if is_first else [bootstrap_servers, away]
        given = Topic(topic.name, ",".join(servers))
        with following(given, tmp_path / "output") as program:
            eventually(lambda: program.get("/healthz"))
            eventually(lambda: "Initializing API with data" in program.output, START_SECONDS)
            told = f"A bootstrap server does not answer, others do: {away}: {why}"
            eventually(lambda: told in program.output)
            assert program.output.count(told) == 1
            assert program.get("/status").json()["failures"] == 0
