"""Versions that were served before, asked by name while newer ones come."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import io
import itertools
import json
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator

import pytest
import requests

from app.model import trial
from app.model.model import Model
from app.service import service_of
from tests.support import models
from tests.support.processes import producer
from tests.support.tensors import tensor
from tests.support.waiting import eventually

X = {"inputs": [tensor([0, 0], [1, 2])]}


class Asked:
    """A service in this process, whose models are sent by `swap`."""

    def __init__(self, service, topic) -> None:
        self.service = service
        self.model = service_of(service.app).model
        self._topic = topic
        self._offsets = itertools.count()
        self._served: list[weakref.ref[Model]] = []

    def swap(self, version: str, model: bytes, name: str = "m") -> None:
        """Send it, and wait until it is served."""
        self._topic.send_state(models.message(model, version, name))
        offset = str(next(self._offsets))
        eventually(lambda: self.service.get().headers.get("X-State-Offset") == offset)
        self._served.append(weakref.ref(self.service.state.read().served))

    @property
    def in_memory(self) -> list[str]:
        """The versions that are, the last served first."""
        served = [model() for model in reversed(self._served)]
        return [model.version for model in served if model]

    @property
    def versions(self) -> list[str]:
        return self.service.get("/v2/models/m").json["versions"]

    @property
    def in_metrics(self) -> list[str]:
        """Those that are kept, as name and version."""
        lines = self.service.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("kafka_state_model_kept_info{")]

    def ask(self, version: str = "", name: str = "m") -> tuple[str, float] | int:
        """The version that answers and what it adds; or the status of a refusal."""
        of = f"/versions/{version}" if version else ""
        answer = self.service.client.post(f"/v2/models/{name}{of}/infer", json=X)
        if answer.status_code != 200:
            return answer.status_code
        assert answer.json["model_name"] == name
        return answer.json["model_version"], answer.json["outputs"][0]["data"][0]


@pytest.fixture
def swapped(serve, topic, onnx):
    """A service that has served models of these versions, which add 1, 2 and so on."""

    def swapped(*versions: str, keep: int = 1) -> Asked:
        model = dataclasses.replace(onnx["model"], keep_versions=keep)
        service = serve(topic, **(onnx | {"model": model}))
        service.first_state()
        asked = Asked(service, topic)
        for number, version in enumerate(versions, 1):
            asked.swap(version, models.adding(number))
        return asked

    return swapped


def test_the_version_before_answers_who_names_it(swapped):
    asked = swapped("6", "7")
    assert asked.versions == ["7", "6"]
    assert asked.ask() == asked.ask("7") == ("7", 2)
    assert asked.ask("6") == ("6", 1)
    for path in ("", "/versions/6", "/versions/7"):
        described = asked.service.get(f"/v2/models/m{path}").json
        assert (described["versions"], described["name"]) == (["7", "6"], "m")
        ready = asked.service.get(f"/v2/models/m{path}/ready").json
        assert ready == {"name": "m", "ready": True}
    assert asked.in_metrics == ['kafka_state_model_kept_info{name="m",version="6"} 1.0']
    asked.swap("8", models.adding(3))
    assert asked.versions == ["8", "7"]
    assert asked.ask("6") == 404
    told = asked.service.get("/v2/models/m/versions/6").json["error"]
    assert told == "the model is m 6; served is m 8, and kept 7"
    assert asked.in_metrics == ['kafka_state_model_kept_info{name="m",version="7"} 1.0']


@pytest.mark.parametrize(("keep", "versions"), [(0, "4"), (2, "432")])
def test_as_many_are_kept_as_are_to_be(swapped, keep, versions):
    asked = swapped("1", "2", "3", "4", keep=keep)
    assert asked.versions == list(versions)
    assert [asked.ask(v) for v in "4321"] == [(v, int(v)) if v in versions else 404 for v in "4321"]
    assert len(asked.in_metrics) == keep
    eventually(lambda: asked.in_memory == list(versions))


def test_each_version_is_described_and_asked_as_it_is(swapped):
    asked = swapped("1")
    asked.swap("2", models.looping())
    described = [asked.service.get(f"/v2/models/m/versions/{version}").json for version in "21"]
    assert [model["inputs"][0]["datatype"] for model in described] == ["INT64", "FP32"]
    assert asked.ask() == 400
    assert asked.ask("1") == ("1", 1)


def test_of_another_model_none_is_kept(swapped):
    asked = swapped("1", "2")
    asked.swap("1", models.adding(5), name="other")
    assert asked.ask() == asked.ask("2") == 404
    assert asked.ask(name="other") == ("1", 5)
    assert asked.in_metrics == []
    asked.swap("3", models.adding(6))
    assert asked.versions == ["3"]


def test_a_version_that_comes_again_with_other_bytes_is_those(swapped):
    asked = swapped("1", "2", keep=2)
    for number in (9, 10):
        asked.swap("1", models.adding(number))
        assert asked.versions == ["1", "2"]
        assert asked.ask() == asked.ask("1") == ("1", number)
    assert asked.ask("2") == ("2", 2)


HUNGRY = models.calculating(2500)  # whose matrices have 25 MB each


def test_where_memory_is_short_for_the_next_those_before_are_let_go(swapped, monkeypatch):
    asked = swapped("1", "2", "3", keep=5)
    loaded = asked.model.loader.versions
    monkeypatch.setattr(trial, "free_memory", lambda: 0 if loaded.loaded[1:] else 10**9)
    asked.swap("4", HUNGRY)
    assert asked.service.status["failed_loads"] == {}
    assert asked.versions == ["4", "3"]


def test_where_memory_stays_short_it_is_told_that_none_is_kept(swapped, topic, monkeypatch):
    asked = swapped("1", "2")
    monkeypatch.setattr(trial, "free_memory", lambda: 0)
    topic.send_state(models.message(HUNGRY, "3"))
    eventually(lambda: asked.service.status["failed_loads"].get("memory"))
    assert asked.versions == ["2"]
    assert asked.ask("1") == 404
    assert asked.in_metrics == []


class Body(io.BytesIO):
    """A request's, of which nothing comes until `go` is set."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.is_awaited, self.go = threading.Event(), threading.Event()

    def readinto(self, buffer) -> int:
        self.is_awaited.set()
        assert self.go.wait(20)
        return super().readinto(buffer)


def test_a_request_is_answered_by_the_version_that_it_began_with(swapped):
    asked = swapped("1")
    body = Body(json.dumps(X).encode())
    with concurrent.futures.ThreadPoolExecutor() as pool:
        answer = pool.submit(
            asked.service.app.test_client().post,
            "/v2/models/m/versions/1/infer",
            input_stream=body,
        )
        assert body.is_awaited.wait(20)
        for version in (2, 3):
            asked.swap(str(version), models.adding(version))
        assert asked.ask("1") == 404
        assert asked.in_memory == ["3", "2", "1"]
        body.go.set()
        said = answer.result().json
    assert (said["model_version"], said["outputs"][0]["data"][0]) == ("1", 1)
    eventually(lambda: asked.in_memory == ["3", "2"])


def test_a_message_that_is_sent_again_needs_no_model_but_the_one_that_is_kept(
    topic, serving, stored, cache, tmp_path
):
    uris = {version: stored(models.adding(version), f"{version}.onnx") for version in (1, 2)}
    with serving() as program:
        for version, uri in uris.items():
            topic.send_state(models.message(models.adding(version), str(version), uri=uri))
            program.serves_model(str(version))
        shutil.rmtree(cache)
        for version in uris:
            (tmp_path / f"{version}.onnx").unlink()
        for offset, version in ((0, "1"), (0, "1"), (1, "2")):
            sent = producer(
                "--again", f"0:{offset}", "--wait", f"localhost:{program.port}", **topic.environ
            )
            assert sent.returncode == 0, sent.stderr
            program.serves_model(version)
        assert program.get("/v2/models/m").json()["versions"] == ["2", "1"]


class Client:
    """Asks for a version by its name, which is the number that it adds.

    Attributes:
        answers: how often each version has answered.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self.answers: Counter[str] = Counter()

    def ask_until(self, done: threading.Event, port: int) -> None:
        with requests.Session() as session:
            while not done.wait(0.005):
                version = self.version
                url = f"http://127.0.0.1:{port}/v2/models/m/versions/{version}/infer"
                answer = session.post(url, json=X, timeout=5)
                assert answer.status_code == 200, answer.text
                assert answer.json()["model_version"] == version
                assert answer.json()["outputs"][0]["data"][0] == int(version)
                self.answers[version] += 1


@contextlib.contextmanager
def asking(clients: Iterable[Client], port: int) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """Have them ask; gives what waits for a condition while they are answered."""
    done = threading.Event()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = [pool.submit(client.ask_until, done, port) for client in clients]

        def wait_for(condition: Callable[[], bool]) -> None:
            eventually(lambda: any(client.done() for client in running) or condition())

        try:
            yield wait_for
        finally:
            done.set()
        for client in running:
            client.result()


@pytest.mark.apache_kafka
def test_who_names_a_version_is_not_cut_off_when_the_next_one_comes(topic, serving):
    topic.send_state(models.message(models.adding(0), "0"))
    clients = [Client("0") for _ in range(4)]

    def answers(version: int) -> list[int]:
        return [client.answers[str(version)] for client in clients]

    with serving() as program:
        program.serves_model("0")
        with asking(clients, program.port) as wait_for:
            for version in range(20):
                next_one = str(version + 1)
                topic.send_state(models.message(models.adding(version + 1), next_one))
                program.serves_model(next_one)
                enough = max(answers(version)) + 2  # of which one was asked after it came
                wait_for(lambda version=version, enough=enough: min(answers(version)) >= enough)
                for client in clients:
                    client.version = next_one
                wait_for(lambda version=version: min(answers(version + 1)) > 0)


@pytest.mark.apache_kafka
def test_who_names_a_version_is_not_cut_off_when_an_earlier_one_is_gone_back_to(topic, serving):
    states = [models.message(models.adding(number), str(number)) for number in range(2)]
    clients = [Client(version) for version in "0101"]

    def fewest_answers() -> int:
        return min(client.answers[client.version] for client in clients)

    with serving() as program:
        for version in "01":
            topic.send_state(states[int(version)])
            program.serves_model(version)
        with asking(clients, program.port) as wait_for:
            for turn, version in enumerate("01" * 30):
                topic.send_state(states[int(version)])
                program.serves_model(version)
                wait_for(lambda turn=turn: fewest_answers() > turn)
