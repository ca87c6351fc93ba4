from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import tempfile
from collections.abc import Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from dev import apache_kafka
from tests.support import brokers
from tests.support.alone import Turns
from tests.support.brokers import CHOSEN
from tests.support.clients import IS_KAFKA_PYTHON_3

# as the program has it; tests import onnxruntime before it does
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

pytest_plugins = ["tests.support.topics"]

# how long a test takes says more of the machine than of the code
hypothesis.settings.register_profile("few", max_examples=30, deadline=None)
hypothesis.settings.register_profile("many", max_examples=100, deadline=None)
hypothesis.settings.load_profile("few")

# the first has no windows, and takes a fifth of the time
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser")
CHROMIUM = next(filter(None, map(shutil.which, CHROMIUMS)), None)

TURNS = pytest.StashKey[Turns]()
# what pytest-xdist's workers have in common
FOLDER = pytest.StashKey[Path]()
SEED = pytest.StashKey[int]()

CALLERS_OWN = (
    "KAFKA_",
    "STATE_",
    "MODEL_",
    "LOG_",
    "GUNICORN_",
    "WEB_CONCURRENCY",
    "OTEL_",
    "TRACEPARENT",
    "MAKE",
    "MFLAGS",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--embedded-broker",
        action="store_true",
        help="use the embedded broker even where a real one can be had",
    )
    parser.addoption(
        "--kafka-version",
        help="of the Apache Kafka that is started here, also where there is another broker "
        f"({apache_kafka.version()})",
    )
    parser.addoption(
        "--soak-seconds", type=float, default=15, help="how long faults come at random (15)"
    )
    parser.addoption(
        "--soak-seed", type=int, help="which faults; the name of a failed test has its seed"
    )
    parser.addoption(
        "--following-seconds",
        type=float,
        default=15,
        help="how long random histories are followed (15)",
    )
    parser.addoption(
        "--following-seed", type=int, help="of the first one; the output of a failed test has it"
    )
    parser.addoption(
        "--install",
        action="store_true",
        help="also install the package with all that it needs, which takes half a minute",
    )
    parser.addoption(
        "--session-seconds",
        type=float,
        default=12,
        help="how long is followed while the broker ends each session after five (12)",
    )
    parser.addoption("--screenshots", type=Path, help="a folder to leave pictures of the page in")


def pytest_configure(config: pytest.Config) -> None:
    if IS_KAFKA_PYTHON_3:
        # of connections that fail it leaves the sockets to the garbage collector: those of TLS too,
        # and ours, which reads more at once
        unclosed = r"unclosed <[\w.]*[sS]ocket "
        config.addinivalue_line("filterwarnings", f"ignore:{unclosed}:ResourceWarning")
    version = config.getoption("--kafka-version")
    if version:
        apache_kafka.choose(version)
    if config.getoption("--embedded-broker"):
        config.stash[CHOSEN] = brokers.embedded()
    else:
        config.stash[CHOSEN] = brokers.first_available(only_maven=bool(version))
    worker = getattr(config, "workerinput", None)
    if worker:
        config.stash[FOLDER], config.stash[SEED] = Path(worker["folder"]), worker["seed"]
    else:
        folder = tempfile.TemporaryDirectory(prefix="kafka-state-tests-")
        config.add_cleanup(folder.cleanup)
        config.stash[FOLDER], config.stash[SEED] = Path(folder.name), random.randrange(10**6)
    config.stash[TURNS] = Turns(config.stash[FOLDER])
    # the tests choose their own settings, and run make as a person does and not as make does
    for name in [name for name in os.environ if name.startswith(CALLERS_OWN)]:
        del os.environ[name]


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers() -> Generator[None, int, int]:
    """Three times as many as pytest-xdist finds cores: most of what a test does is waiting."""
    return 3 * (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell one of pytest-xdist's workers what all of them have in common, and make it once."""
    if node.config.stash[CHOSEN].is_apache_kafka and apache_kafka.available():
        apache_kafka.prepare()
    node.workerinput["folder"] = str(node.config.stash[FOLDER])
    node.workerinput["seed"] = node.config.stash[SEED]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    turns = item.config.stash[TURNS]
    turns.begin(_is_alone(item))
    try:
        return (yield)
    finally:
        turns.end(nextitem is not None and _is_alone(nextitem))


def _longest_seconds(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    others = float(item.config.getini("timeout"))
    return max(float(marker.args[0]), others) if marker else others


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None


def pytest_report_header(config: pytest.Config) -> str:
    return (
        f"broker: {config.stash[CHOSEN].title}; "
        f"tests with one of their own: Apache Kafka {apache_kafka.version()}"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    skips = {}
    if not config.stash[CHOSEN].is_apache_kafka:
        skips["apache_kafka"] = "the embedded broker cannot do this; Apache Kafka can"
        skips["own_kafka"] = "an Apache Kafka of its own is not tried beside the embedded broker"
    elif not apache_kafka.available():
        skips["own_kafka"] = "an Apache Kafka of its own needs java, and mvn to fetch it"
    if not config.getoption("--install"):
        skips["installs"] = "an installation takes half a minute, with --install; CI has it"
    if not CHROMIUM:
        skips["browser"] = "the page is looked at with Chromium, and there is none"
    for item in items:
        for marker, reason in skips.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))
    # the longest first, for others run beside them, and last those beside which none does
    items.sort(key=lambda item: (_is_alone(item), -_longest_seconds(item)))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test with the marker `drawn_at_random` gets `seconds` and a `seed`, which its name tells."""
    marker = metafunc.definition.get_closest_marker("drawn_at_random")
    if marker is None:
        return
    (what,) = marker.args
    seconds = metafunc.config.getoption(f"--{what}-seconds")
    seed = metafunc.config.getoption(f"--{what}-seed")
    if seed is None:
        seed = metafunc.config.stash[SEED]
    run = pytest.param(
        seconds,
        seed,
        id=f"--{what}-seconds={seconds:g} --{what}-seed={seed}",
        marks=pytest.mark.timeout(seconds + marker.kwargs["seconds_on_top"]),
    )
    metafunc.parametrize(("seconds", "seed"), [run])


@pytest.fixture(scope="session")
def bootstrap_servers(pytestconfig: pytest.Config) -> Iterator[str]:
    """The broker's host:port; it starts when the first test needs it."""
    with pytestconfig.stash[CHOSEN].running() as servers:
        yield servers


@pytest.fixture(scope="module")
def own_process() -> Iterator[ProcessPoolExecutor]:
    """For what counts threads, files or memory: other tests leave some that come and go."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        yield process
