"""What the Dockerfile makes serves as a user without rights, on a disk that nobody can write to."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import requests

from tests.support.containers import BUILD_SECONDS, STOP_SECONDS, Container, built, container
from tests.support.processes import ROOT, ended, kafka_state
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.installs,
    pytest.mark.timeout(BUILD_SECONDS + 60),
    pytest.mark.xdist_group("image"),
]

CACHE = "/var/cache/kafka-state"


@pytest.fixture(scope="module", autouse=True)
def image() -> Iterator[None]:
    with built("onnx"):
        yield


def test_it_serves_and_workers_share_their_metrics(topic):
    topic.send_state(1)
    with container(topic, WEB_CONCURRENCY="2") as service:
        service.starts()
        eventually(lambda: _updates(service) == 2)
        topic.send_state(2)
        eventually(lambda: _updates(service) == 4)
        assert service.get().json() == {"state": 2}
        assert service.run("id", "--user") == "10001\n"
        assert "Read-only" in service.run("sh", "-c", "touch /x /tmp/x 2>&1 || true")


def test_another_user_will_do_and_so_will_another_command(topic):
    with container(topic, "--user=12345") as service:
        service.starts()
        assert service.run("id", "--user") == "12345\n"
        assert f"topic {topic.name}" in service.run("kafka-state", "check")


def _updates(service: Container) -> float | None:
    """How many states all workers together have served."""
    answer = service.get("/metrics")
    if answer is None:
        return None
    found = re.search(r"^kafka_state_updates_total (.*)$", answer.text, re.MULTILINE)
    return float(found[1]) if found else None


def test_its_health_check_tells_whether_it_is_alive(topic):
    with container(topic) as service:
        service.starts()
        assert service.health() == 0
        assert service.health(HTTP_PROXY="http://127.0.0.1:1", http_proxy="http://127.0.0.1:1") == 0
        assert service.health(PORT="1") != 0
        assert service.health(SCRIPT_NAME="/elsewhere") != 0


def test_its_health_check_heeds_the_path_that_it_is_below(topic):
    with container(topic, SCRIPT_NAME="/models") as service:
        service.starts("/models/readyz")
        assert service.health() == 0


def test_a_stop_ends_what_waits_and_leaves_nothing_to_be_killed(topic):
    with container(topic) as service:
        service.starts()
        url = f"http://127.0.0.1:{service.port}/state/stream"
        with requests.get(url, stream=True, timeout=STOP_SECONDS) as stream:
            events = stream.iter_lines()
            assert next(events)
            assert service.stop() == 0
            list(events)  # it ends properly, or this raises


def test_a_process_whose_parent_has_ended_leaves_no_zombie(topic):
    with container(topic) as service:
        service.starts()
        service.run("sh", "-c", "sleep 0.1 &")
        states = "grep -h State: /proc/[0-9]*/status"
        eventually(lambda: "sleep" not in service.run("sh", "-c", "cat /proc/[0-9]*/comm"))
        assert "zombie" not in service.run("sh", "-c", states)


@pytest.mark.parametrize("kind", ["volume", "like an emptyDir"])
def test_models_are_kept_where_something_is_mounted(topic, kind, tmp_path):
    tmp_path.chmod(0o777)
    mount = f"--volume={CACHE}" if kind == "volume" else f"--volume={tmp_path}:{CACHE}"
    with container(topic, mount, STATE_LOADER="onnx", STATE_CACHE_DIR=f"{CACHE}/state") as service:
        service.starts("/healthz")
        model = str(ROOT / "examples/model/sum.onnx")
        ended([*kafka_state(), "produce", "--model", model, "--version", "7"], **topic.environ)
        service.starts()
        assert service.get().json()["state"]["version"] == "7"
        assert "model.onnx" in service.run("find", CACHE)
        assert service.stop() == 0


def test_without_a_place_for_models_it_says_so(topic):
    with container(topic, STATE_LOADER="onnx") as service:
        assert "MODEL_CACHE_DIR" in service.ends()


def test_without_a_place_for_temporary_files_it_says_so(topic):
    with container(topic, TMPDIR="/nowhere") as service:
        assert re.fullmatch("Error: .*TMPDIR.*", service.ends())
