"""The cache of models, with real processes."""

from __future__ import annotations

import fcntl
import hashlib
import multiprocessing
import os
import random
import resource
import stat
from contextlib import contextmanager

import pytest

from app.message_errors import InvalidMessage, RetryableError
from app.model.cache import Cache

SPAWN = multiprocessing.get_context("spawn")
ROOMY = 10**9
MODELS = [bytes([number]) * 1000 for number in range(5)]


def nothing() -> None:
    pass


def accept(path) -> None:
    pass


def sha256_of(model: bytes) -> str:
    return hashlib.sha256(model).hexdigest()


def writing(model: bytes):
    def fill(file) -> str:
        file.write(model)
        return sha256_of(model)

    return fill


def never(file) -> str:
    raise AssertionError("it is there")


def use(cache: Cache, model: bytes, fill=None) -> None:
    with cache.holding(sha256_of(model), fill or writing(model), accept, nothing) as path:
        assert path.read_bytes() == model


def cached(folder) -> set[bytes]:
    return {path.read_bytes() for path in folder.glob("*/model.onnx")}


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache" / "models"


# ---- what other processes do


def _hold(folder, model, is_held, may_go) -> None:
    with Cache(folder, ROOMY).holding(sha256_of(model), writing(model), accept, nothing):
        is_held.release()
        may_go.acquire(timeout=30)


def _halt_while_writing(folder, model, is_writing) -> None:
    def fill(file) -> str:
        file.write(model[:10])
        file.flush()
        is_writing.release()
        SPAWN.Semaphore(0).acquire(timeout=30)
        raise AssertionError

    use(Cache(folder, ROOMY), model, fill)


def _use_and_tell(folder, model, waiting, told) -> None:
    def fill(file) -> str:
        told.put("made")
        assert waiting.acquire(timeout=30)
        assert waiting.acquire(timeout=30)
        return writing(model)(file)

    with Cache(folder, ROOMY).holding(sha256_of(model), fill, accept, waiting.release) as path:
        told.put("used" if path.read_bytes() == model else "wrong")


def _use_many(folder, seed) -> None:
    chance = random.Random(seed)
    for _ in range(60):
        use(Cache(folder, chance.choice([0, 2500])), chance.choice(MODELS))


@contextmanager
def running(target, *args):
    process = SPAWN.Process(target=target, args=args)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


@contextmanager
def held_elsewhere(folder, model):
    is_held, may_go = SPAWN.Semaphore(0), SPAWN.Semaphore(0)
    with running(_hold, folder, model, is_held, may_go) as process:
        assert is_held.acquire(timeout=30)
        yield process
        may_go.release()
        process.join()


# ---- one process


def test_a_model_is_made_once_and_is_alone_in_its_folder(folder):
    cache, model = Cache(folder, ROOMY), MODELS[0]
    use(cache, model)
    use(cache, model, never)
    with cache.holding(sha256_of(model), never, accept, nothing) as path:
        assert path == folder / sha256_of(model) / "model.onnx"
        assert os.listdir(path.parent) == ["model.onnx"]


def test_a_damaged_model_is_made_anew(folder):
    use(Cache(folder, ROOMY), MODELS[0])
    (folder / sha256_of(MODELS[0]) / "model.onnx").write_bytes(b"damaged")
    use(Cache(folder, ROOMY), MODELS[0])
    use(Cache(folder, ROOMY), MODELS[0], never)


def test_a_model_with_another_checksum_is_refused_and_leaves_nothing(folder):
    cache = Cache(folder, ROOMY)
    with (
        pytest.raises(InvalidMessage, match=f"{sha256_of(MODELS[1])}, the message says") as raised,
        cache.holding(sha256_of(MODELS[0]), writing(MODELS[1]), accept, nothing),
    ):
        pass
    assert raised.value.reason == "checksum"
    assert os.listdir(folder) == []


@pytest.mark.parametrize(
    "error", [RetryableError("gone", ""), InvalidMessage("uri", ""), KeyError()]
)
def test_what_the_writer_raises_leaves_nothing(folder, error):
    def fill(file):
        file.write(b"half")
        raise error

    with pytest.raises(type(error)) as raised:
        use(Cache(folder, ROOMY), MODELS[0], fill)
    assert raised.value is error
    assert os.listdir(folder) == []


def test_what_is_refused_once_it_is_written_is_not_kept(folder):
    def refuse(path) -> None:
        assert path.read_bytes() == MODELS[1]
        raise InvalidMessage("model", "no")

    use(Cache(folder, ROOMY), MODELS[0])
    with (
        pytest.raises(InvalidMessage, match="no"),
        Cache(folder, 0).holding(sha256_of(MODELS[1]), writing(MODELS[1]), refuse, nothing),
    ):
        pass
    assert not Cache(folder, ROOMY).has(sha256_of(MODELS[1]))
    use(Cache(folder, ROOMY), MODELS[1])
    with Cache(folder, ROOMY).holding(sha256_of(MODELS[1]), never, refuse, nothing):
        pass  # it was asked when it came


@pytest.mark.parametrize("sha256", ["", "../../x", "A" * 64, "a" * 63, f"{'a' * 64}/x", "a" * 65])
def test_what_is_no_checksum_is_refused(folder, sha256):
    with (
        pytest.raises(InvalidMessage, match="accepted are 64"),
        Cache(folder, ROOMY).holding(sha256, never, accept, nothing),
    ):
        pass
    assert not folder.exists()


def test_an_error_of_the_user_stays_as_it_is(folder):
    with (
        pytest.raises(FileNotFoundError, match="mine"),
        Cache(folder, ROOMY).holding(sha256_of(MODELS[0]), writing(MODELS[0]), accept, nothing),
    ):
        raise FileNotFoundError("mine")


def test_the_folder_is_for_one_user(folder):
    use(Cache(folder, ROOMY), MODELS[0])
    for path in (folder, folder / sha256_of(MODELS[0])):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_tried_again(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RetryableError, match="Not a directory") as raised:
        use(Cache(tmp_path / "file" / "cache", ROOMY), MODELS[0])
    assert raised.value.reason == "disk"


def test_a_full_disk_is_tried_again_and_nothing_is_left(folder):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (999, limits[1]))
    try:
        with pytest.raises(RetryableError) as raised:
            use(Cache(folder, ROOMY), MODELS[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.reason == "disk"
    assert os.listdir(folder) == []


def test_the_least_recently_used_are_removed(folder):
    cache = Cache(folder, 3500)
    for age, model in enumerate(MODELS[:3]):
        use(cache, model)
        os.utime(folder / sha256_of(model) / "model.onnx", (age, age))
    use(cache, MODELS[0], never)
    use(cache, MODELS[3])
    assert cached(folder) == {MODELS[0], MODELS[2], MODELS[3]}
    assert len(os.listdir(folder)) == 6


def test_one_that_cannot_be_removed_keeps_no_other(folder):
    """As in a folder of another user's."""
    cache = Cache(folder, 1500)
    folder.mkdir(parents=True)
    (folder / ("0" * 64)).write_bytes(b"in the way")
    for model in MODELS:
        use(cache, model)
    assert cached(folder) == {MODELS[-1]}


def test_one_that_is_larger_than_all_may_be_can_be_used(folder):
    use(Cache(folder, 999), MODELS[0])
    assert os.listdir(folder) == []


def test_files_of_others_are_left_alone(folder):
    folder.mkdir(parents=True)
    (folder / "mine.part").write_bytes(b"x")
    (folder / "model.onnx").write_bytes(b"x")
    use(Cache(folder, 0), MODELS[0])
    assert sorted(os.listdir(folder)) == ["mine.part", "model.onnx"]


# ---- several


def test_one_process_makes_it_while_others_wait(folder):
    waiting, told = SPAWN.Semaphore(0), SPAWN.Queue()
    arguments = (folder, MODELS[0], waiting, told)
    with (
        running(_use_and_tell, *arguments),
        running(_use_and_tell, *arguments),
        running(_use_and_tell, *arguments),
    ):
        heard = [told.get(timeout=30) for _ in range(4)]
    assert sorted(heard) == ["made", "used", "used", "used"]


def test_several_hold_a_model_at_once(folder):
    use(Cache(folder, ROOMY), MODELS[0])
    with held_elsewhere(folder, MODELS[0]), held_elsewhere(folder, MODELS[0]):
        use(Cache(folder, ROOMY), MODELS[0], never)


def test_one_that_is_held_is_not_removed(folder):
    with held_elsewhere(folder, MODELS[0]):
        use(Cache(folder, 0), MODELS[1])
        assert cached(folder) == {MODELS[0]}
    use(Cache(folder, 0), MODELS[1])
    assert os.listdir(folder) == []


def test_what_a_killed_process_held_is_free(folder):
    with held_elsewhere(folder, MODELS[0]) as process:
        process.kill()
        process.join()
        use(Cache(folder, 0), MODELS[1])
        assert os.listdir(folder) == []


@pytest.fixture
def before_locking(monkeypatch):
    """Have something done between the opening of a lock file and the first lock of a kind."""

    def have_done(kind, act):
        flock, acts = fcntl.flock, [act]

        def act_first(descriptor, how):
            if acts and how & kind:
                acts.pop()()
            flock(descriptor, how)

        monkeypatch.setattr(fcntl, "flock", act_first)

    return have_done


def test_a_lock_on_a_file_that_was_just_removed_is_none(folder, before_locking):
    cache, lock = Cache(folder, ROOMY), folder / f"{sha256_of(MODELS[0])}.lock"

    def fill(file) -> str:
        assert lock.exists()
        return writing(MODELS[0])(file)

    before_locking(fcntl.LOCK_EX, lock.unlink)
    use(cache, MODELS[0], fill)
    before_locking(fcntl.LOCK_SH, lock.unlink)
    with cache.holding(sha256_of(MODELS[0]), never, accept, nothing):
        assert lock.exists()


def test_two_that_find_none_at_once_do_not_both_make_it(folder, before_locking):
    before_locking(fcntl.LOCK_EX, lambda: use(Cache(folder, ROOMY), MODELS[0]))
    use(Cache(folder, ROOMY), MODELS[0], never)


def test_one_that_is_removed_at_once_is_made_again(folder, before_locking):
    cache = Cache(folder, ROOMY)
    before_locking(fcntl.LOCK_EX, lambda: before_locking(fcntl.LOCK_SH, remove))

    def remove():
        (folder / sha256_of(MODELS[0]) / "model.onnx").unlink()

    use(cache, MODELS[0])


class Ended(Exception):
    pass


def test_the_checkpoint_is_called_while_another_process_writes(folder):
    looks = []

    def checkpoint():
        looks.append(1)
        if len(looks) == 3:
            raise Ended

    is_writing = SPAWN.Semaphore(0)
    with running(_halt_while_writing, folder, MODELS[0], is_writing):
        assert is_writing.acquire(timeout=30)
        with (
            pytest.raises(Ended),
            Cache(folder, ROOMY).holding(sha256_of(MODELS[0]), never, accept, checkpoint),
        ):
            pass


@pytest.mark.parametrize("next_used", MODELS[:2], ids=["the same", "another"])
def test_what_a_killed_process_has_written_is_removed(folder, next_used):
    is_writing = SPAWN.Semaphore(0)
    with running(_halt_while_writing, folder, MODELS[0], is_writing) as process:
        assert is_writing.acquire(timeout=30)
        use(Cache(folder, ROOMY), MODELS[2])
        assert len(list(folder.glob("*.part"))) == 1
        process.kill()
        process.join()
        use(Cache(folder, ROOMY), next_used)
    assert list(folder.glob("*.part")) == []


def test_processes_that_make_and_remove_do_not_get_in_each_others_way(folder):
    processes = [SPAWN.Process(target=_use_many, args=[folder, seed]) for seed in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 4
    use(Cache(folder, 0), MODELS[0])
    assert os.listdir(folder) == []
