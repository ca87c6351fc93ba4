"""/metrics, whichever worker answers, to Prometheus' own tool and parser."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest
import requests
from prometheus_client.parser import text_string_to_metric_families

from app.web.metric_definitions import FAILED_LOADS, METRICS, PARTITION_ERRORS
from dev.frozen import freeze
from tests.support.processes import Program
from tests.support.waiting import eventually

# a counter with labels is not there until it counts
UNSEEN = {FAILED_LOADS, PARTITION_ERRORS}


@pytest.fixture(params=[(), ("--preload",)], ids=["", "preload"])
def two_workers(request, topic, serving) -> Iterator[Program]:
    topic.send_state(77)
    with serving("--workers=2", *request.param) as program:
        program.comes_to(77)
        # each for itself: one that has yet to begin tells nothing
        eventually(lambda: program.output.count("Initializing API") == 2)
        assert told(program, "kafka_state_connected") == 1
        yield program


def workers(program: Program) -> list[psutil.Process]:
    return program.tree()[1:]


def told(program: Program, name: str, **labels: str) -> float:
    answer = requests.get(f"http://127.0.0.1:{program.port}/metrics", timeout=10)
    return sum(
        sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def states_asked(program: Program) -> float:
    return told(program, "http_requests_total", route="/state", status="200")


@pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is Debian's package prometheus")
def test_prometheus_own_tool_has_nothing_against_them(topic, two_workers):
    topic.send_state(78)
    two_workers.comes_to(78)
    topic.send(b"junk", b"{}", None, b"\xff")
    eventually(lambda: told(two_workers, "kafka_state_invalid_messages_total", reason="schema"))
    for path in ("/nowhere", "/state?min_offset=x", "/docs", "/static/page.js"):
        two_workers.get(path)
    text = two_workers.get("/metrics").text
    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")
    listed = {m.family_name for m in METRICS if m not in UNSEEN and m.section != "Models"}
    assert {family.name for family in text_string_to_metric_families(text)} == listed


def test_every_worker_tells_of_the_requests_of_all(two_workers):
    before = states_asked(two_workers)
    for _ in range(50):
        two_workers.get()
    assert [states_asked(two_workers) for _ in range(10)] == [before + 50] * 10


def test_what_a_worker_counted_outlives_it_and_what_it_knew_does_not(topic, two_workers):
    for _ in range(20):
        two_workers.get()
    counted = states_asked(two_workers)
    stuck, other = workers(two_workers)
    freeze(stuck.pid)
    topic.send_state(78)
    # the other alone follows and answers: the worst of them still has the old state
    old = told(two_workers, "kafka_state_last_message_timestamp_seconds")
    assert told(two_workers, "kafka_state_age_seconds") > 0
    stuck.kill()
    eventually(lambda: other.is_running() and len(workers(two_workers)) == 2)
    eventually(lambda: told(two_workers, "kafka_state_last_message_timestamp_seconds") > old)
    eventually(lambda: told(two_workers, "kafka_state_connected") == 1)
    assert states_asked(two_workers) >= counted


def test_a_worker_starts_though_somebody_reads_the_metrics_all_the_time(topic, serving, tmp_path):
    topic.send_state(77)
    with serving() as program:
        program.comes_to(77)
        (folder,) = tmp_path.glob("kafka-state-metrics-*")
        reading = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(reading, fcntl.LOCK_SH)
            program.process.send_signal(signal.SIGHUP)
            eventually(lambda: program.output.count("Initializing API") == 2)
        finally:
            os.close(reading)
        program.comes_to(77)


def test_a_reload_loses_no_count_and_takes_the_old_gauges_away(topic, two_workers):
    asked = states_asked(two_workers)
    old = {worker.pid for worker in workers(two_workers)}
    known = told(two_workers, "kafka_state_last_message_timestamp_seconds")
    two_workers.process.send_signal(signal.SIGHUP)
    counts = set()

    def is_over() -> bool:
        counts.add(states_asked(two_workers))
        living = {worker.pid for worker in workers(two_workers)}
        return len(living) == 2 and old.isdisjoint(living)

    eventually(is_over)
    assert counts == {asked}
    eventually(lambda: told(two_workers, "kafka_state_connected") == 1)
    # of those who have gone it would be the old one, which is the least
    topic.send_state(78)
    eventually(lambda: told(two_workers, "kafka_state_last_message_timestamp_seconds") > known)


def test_a_reload_is_no_outage_to_an_alert(two_workers):
    old = {worker.pid for worker in workers(two_workers)}
    two_workers.process.send_signal(signal.SIGHUP)
    seen = []

    def is_over() -> bool:
        text = two_workers.get("/metrics").text
        seen.extend(re.findall(r"^kafka_state_connected (.*)$", text, re.MULTILINE))
        living = {worker.pid for worker in workers(two_workers)}
        return len(living) == 2 and old.isdisjoint(living)

    eventually(is_over)
    assert set(seen) == {"1.0"}


def test_workers_that_ended_cost_a_scrape_nothing_and_lose_no_count(two_workers, tmp_path):
    (folder,) = tmp_path.glob("kafka-state-metrics-*")
    for _ in range(20):
        two_workers.get()
    asked = states_asked(two_workers)
    for number in range(1, 6):
        for worker in workers(two_workers):
            worker.kill()
        boots = 2 * (number + 1)
        eventually(lambda n=boots: two_workers.output.count("Initializing API") == n)
        eventually(lambda: len(workers(two_workers)) == 2)
    assert states_asked(two_workers) == asked
    living = {worker.pid for worker in workers(two_workers)}
    of_processes = {path.stem.rpartition("_")[2] for path in folder.glob("*.db")}
    assert of_processes <= {"ended", *map(str, living)}


def test_a_method_that_nobody_knows_adds_no_label_of_its_own(two_workers):
    for method in ("BREW", "WHEN"):
        answer = requests.request(method, f"http://127.0.0.1:{two_workers.port}/state", timeout=5)
        assert answer.status_code == 405
    assert told(two_workers, "http_requests_total", method="other", status="405") == 2
    text = two_workers.get("/metrics").text
    assert "BREW" not in text
    assert "WHEN" not in text


def test_leaves_nothing_behind(topic, serving, tmp_path):
    with serving(TMPDIR=str(tmp_path)) as program:
        program.comes_to(0)
        assert list(tmp_path.glob("kafka-state-metrics-*"))
        program.process.terminate()
        assert program.process.wait(5) == 0
    for refused in ({"STATE_INITIAL": "nope"}, {"STATE_MAX_WAITING": "1000"}):
        with serving(TMPDIR=str(tmp_path), **refused) as program:
            assert program.process.wait(20) != 0
    assert not list(tmp_path.glob("kafka-state-metrics-*"))
