"""Which models stay loaded, with the real onnxruntime."""

from __future__ import annotations

import hashlib
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.model.model import Limits, Model
from app.model.versions import Versions
from tests.support import models


@pytest.fixture
def load(tmp_path):
    """Load a model that adds `number`."""

    def load(version: str, name: str = "m", number: int = 0) -> Model:
        path, content = tmp_path / "model.onnx", models.adding(number)
        path.write_bytes(content)
        sha256 = hashlib.sha256(content).hexdigest()
        return Model.load(
            path, {"name": name, "version": version, "sha256": sha256}, Limits(1, 1000)
        )

    return load


@pytest.fixture
def serving(load):
    """Serve a model of each of these versions, one after the other."""

    def serving(*versions: str, most: int) -> Versions:
        kept = Versions(most)
        for version in versions:
            kept.serve(load(version, number=int(version)))
        return kept

    return serving


def loaded(versions: Versions) -> list[str]:
    return [model.version for model in versions.loaded]


@pytest.mark.parametrize(
    ("most", "kept"), [(0, ["4"]), (1, ["4", "3"]), (2, ["4", "3", "2"]), (9, list("4321"))]
)
def test_those_that_were_served_last_stay_loaded(serving, most, kept):
    assert loaded(serving("1", "2", "3", "4", most=most)) == kept


def test_one_that_is_served_again_is_kept_once(serving):
    assert loaded(serving("1", "2", "3", "2", most=9)) == ["2", "3", "1"]
    assert loaded(serving("1", "1", most=9)) == ["1"]


def test_one_of_the_same_version_and_other_bytes_takes_its_place(serving, load):
    versions = serving("1", "2", most=9)
    for again in ("2", "1"):
        other = load(again, number=9)
        versions.serve(other)
        assert versions.loaded[0] is other
    assert loaded(versions) == ["1", "2"]
    assert versions.loaded[0].representation == other.representation


def test_of_another_name_none_is_kept(serving, load):
    versions = serving("1", "2", most=9)
    versions.serve(load("2", name="other"))
    assert [model.name for model in versions.loaded] == ["other"]


def test_finds_the_others_of_a_name_until_what_is_served_is_known_elsewhere(serving, load):
    versions = serving("1", "2", "3", most=9)
    newest, before, _ = versions.loaded
    assert [model.version for model in versions.beside(newest)] == ["2", "1"]
    assert [model.version for model in versions.beside(before)] == ["3", "1"]
    assert versions.beside(load("1", name="other")) == []


@pytest.mark.parametrize(("most", "left"), [(0, "4"), (1, "4"), (2, "43"), (3, "432"), (9, "4321")])
def test_before_another_is_loaded_there_are_so_few_that_it_fits(serving, most, left):
    versions = serving("1", "2", "3", "4", most=most)
    versions.make_room()
    assert loaded(versions) == list(left)


def test_there_is_room_before_any_is_loaded():
    versions = Versions(1)
    versions.make_room()
    assert versions.let_go() == []
    assert versions.loaded == ()


def test_what_is_let_go_is_told_and_the_one_that_is_served_stays(serving):
    versions = serving("1", "2", "3", most=9)
    assert versions.let_go() == ["2", "1"]
    assert loaded(versions) == ["3"]
    assert versions.let_go() == []


def test_is_found_by_its_checksum(serving):
    versions = serving("1", "2", most=1)
    for model in versions.loaded:
        assert versions.with_checksum(model.representation["sha256"]) is model
    assert versions.with_checksum(hashlib.sha256(models.adding(3)).hexdigest()) is None


def test_what_is_let_go_is_freed_and_holds_up_no_reader_meanwhile(serving):
    versions = serving("1", "2", most=1)
    seen: list[list[str]] = []
    with ThreadPoolExecutor(1) as reader:
        weakref.finalize(
            versions.loaded[1], lambda: seen.append(reader.submit(loaded, versions).result(10))
        )
        versions.let_go()
    assert seen == [["2"]]


def test_one_that_a_request_uses_is_freed_after_it(serving):
    versions = serving("1", "2", most=1)
    used = versions.loaded[1]
    freed = weakref.ref(used)
    versions.let_go()
    assert freed() is used
    del used
    assert freed() is None
