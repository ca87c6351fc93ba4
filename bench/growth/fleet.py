"""Many instances of this service, each a process of its own that follows the same topic."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.services import KAFKA_PYTHON_3, Client, Running, Service, running

SERVE = (str(Path(sys.executable).with_name("kafka-state")), "serve")
COMMAND = (*SERVE, "--bind", "127.0.0.1:{port}", "--workers", "1")
NG = Service("kafka-python-ng", COMMAND)
KAFKA_PYTHON = Service("kafka-python 3", COMMAND, {"PYTHONPATH": str(KAFKA_PYTHON_3)})

STOP_SECONDS = 120.0
BACK_SECONDS = 120.0
LOOK_SECONDS = 0.05


class Fleet:
    """Instances that were started at once.

    `_lock` guards the list, which the one who asks while they are replaced reads.
    """

    def __init__(self, run: Callable[[], contextlib.AbstractContextManager[Running]]) -> None:
        self._run = run
        self._lock = threading.Lock()
        self._instances: list[tuple[contextlib.ExitStack, Running]] = []

    def start(self, count: int, state: Any) -> float:
        """Give the seconds until all of them serve `state`."""
        began = time.monotonic()
        for _ in range(count):
            begun = self._begin()
            with self._lock:
                self._instances.append(begun)
        for instance in self.instances:
            instance.wait_for(state)
        return time.monotonic() - began

    def _begin(self) -> tuple[contextlib.ExitStack, Running]:
        stack = contextlib.ExitStack()
        return stack, stack.enter_context(self._run())

    @property
    def instances(self) -> list[Running]:
        with self._lock:
            return [instance for _, instance in self._instances]

    def wait_for(self, state: Any) -> None:
        for instance in self.instances:
            instance.wait_for(state)

    def delays(self, offsets: range) -> list[list[float]]:
        """By message, seconds from its timestamp until each instance served it, or a newer one that
        came to it together with it."""
        histories = [_get(instance, "/state/history")["states"] for instance in self.instances]
        served = [
            {at["offset"]: _seconds(at["served_at"]) for at in history if at["offset"] is not None}
            for history in histories
        ]
        sent = {at["offset"]: at["timestamp"] for history in histories for at in history}
        return [
            [
                min(at for o, at in of.items() if o >= offset) - _seconds(sent[offset])
                for of in served
            ]
            for offset in offsets
            if offset in sent
        ]

    def replace(self, count: int, state: Any) -> dict[str, Any]:
        """Restart one after the other; gives what the others answered meanwhile, and how the old
        ones ended."""
        asked: list[bool] = []
        over = threading.Event()

        def ask_the_others() -> None:
            while not over.is_set():
                for instance in self.instances:
                    is_right = instance.state() == state
                    if instance in self.instances:
                        asked.append(is_right)
                    over.wait(LOOK_SECONDS)

        asking = threading.Thread(target=ask_the_others, daemon=True)
        asking.start()
        began, statuses = time.monotonic(), []
        try:
            for _ in range(count):
                with self._lock:  # nobody is sent to it any more
                    stack, old = self._instances.pop(0)
                statuses.append(_end([old])[0])
                stack.close()
                new = self._begin()
                new[1].wait_for(state)
                with self._lock:
                    self._instances.append(new)
        finally:
            over.set()
            asking.join()
        return {
            "count": count,
            "seconds": time.monotonic() - began,
            "asked": len(asked),
            "wrong": asked.count(False),
            "not_ended_well": sum(status != 0 for status in statuses),
        }

    def wait_until_lost(self) -> None:
        """Wait until all have noticed that the broker is away: what is short they sit out.

        Raises:
            RuntimeError: one does not within BACK_SECONDS.
        """
        deadline = time.monotonic() + BACK_SECONDS
        for instance in self.instances:
            while _connected_since(instance) is not None:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"not lost: {_get(instance, '/status')}")
                time.sleep(LOOK_SECONDS)

    def back_since(self, broker_answered: float) -> list[float]:
        """Wait until all follow again; gives when each began to, in seconds after the broker
        answered, by the machine's clock.

        Raises:
            RuntimeError: one does not within BACK_SECONDS.
        """
        deadline = time.monotonic() + BACK_SECONDS
        began: list[float] = []
        for instance in self.instances:
            while (since := _connected_since(instance)) is None or since < broker_answered:
                if time.monotonic() > deadline:
                    raise RuntimeError(f"not back: {_get(instance, '/status')}")
                time.sleep(LOOK_SECONDS)
            began.append(since - broker_answered)
        return began

    def stop(self) -> dict[str, Any]:
        """SIGTERM to all at once; gives how long that took, and how many did not end well."""
        began = time.monotonic()
        statuses = _end(self.instances)
        seconds = time.monotonic() - began
        self.close()
        return {"seconds": seconds, "not_ended_well": sum(status != 0 for status in statuses)}

    def close(self) -> None:
        with contextlib.ExitStack() as closing:
            for stack, instance in self._instances:
                instance.process.send_signal(signal.SIGTERM)
                closing.push(stack)
            self._instances = []


def _end(instances: list[Running]) -> list[int]:
    for instance in instances:
        instance.process.send_signal(signal.SIGTERM)
    return [instance.process.wait(STOP_SECONDS) for instance in instances]


def _connected_since(instance: Running) -> float | None:
    since = _get(instance, "/status")["connected_since"]
    return since and _seconds(since)


def _get(instance: Running, path: str) -> Any:
    with contextlib.closing(Client(instance.port)) as client:
        return json.loads(client.get(path)[1])


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@contextlib.contextmanager
def fleet(
    service: Service, servers: str, topic: str, folder: Path, commits: bool
) -> Iterator[Fleet]:
    """Instances of one topic, which end with the block."""
    environ = {"KAFKA_COMMIT_POSITIONS": str(commits).lower()}
    instances = Fleet(lambda: running(service, servers, topic, folder, **environ))
    try:
        yield instances
    finally:
        instances.close()
