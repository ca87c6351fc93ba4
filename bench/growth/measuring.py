"""What is measured of each number of instances, and in which order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.flood import Flood, flooding
from bench.growth.counters import Reading, Watched
from bench.growth.fleet import KAFKA_PYTHON, NG, Fleet, fleet
from bench.run import Numbers, new_topic
from bench.services import Service

# metadata is renewed every 30 s, so that in this time each instance does it once
QUIET_SECONDS = 30
FLOOD_RATE, FLOOD_SECONDS = 1000, 10
# each takes some 3 % of a core then, and what has no core to run on fetches less
MOST_FLOODED = 10
REPLACED = 20
# until what a start takes is over, first commits too
SETTLE_SECONDS = 6.0
# to read the counters twice takes some seconds, more on a busy machine
COUNTING_SECONDS = 20.0
INITIAL = 0


@dataclass(frozen=True)
class Scenario:
    """So many instances of one kind.

    Attributes:
        restarts: whether each of them, and then the broker, are restarted too.
    """

    instances: int
    service: Service = field(default=NG)
    commits: bool = True
    restarts: bool = False

    @property
    def title(self) -> str:
        return f"{self.instances}, {self.service.name}, {'' if self.commits else 'no '}commits"


# Java compiles what it does often: the first figures would be too high
WARM_UP = Scenario(10)
SCENARIOS = (
    # what the broker and the producer take by themselves
    Scenario(0),
    *(Scenario(count) for count in (1, 10)),
    Scenario(50, commits=False),
    Scenario(50, KAFKA_PYTHON),
    Scenario(100),
    # last, for a broker that was restarted has compiled nothing
    Scenario(50, restarts=True),
)


@dataclass
class Measuring:
    """One run.

    Attributes:
        seconds: how long nothing, and one message a second, is measured.
    """

    broker: Watched
    folder: Path
    seconds: float
    tell: Callable[[str], None]

    def measure(self, scenario: Scenario) -> Numbers:
        topic = new_topic(self.broker.kafka.address)
        numbers: Numbers = {}
        with fleet(
            scenario.service,
            self.broker.kafka.address,
            topic,
            self.folder,
            scenario.commits,
        ) as instances:
            with self._counting(numbers, "start"):
                numbers["ready"] = instances.start(scenario.instances, INITIAL)
            time.sleep(SETTLE_SECONDS)
            with self._counting(numbers, "quiet"):
                time.sleep(self.seconds)
            numbers["heap"] = self.broker.heap()
            with flooding(self.broker.kafka.address) as source:
                last = self._count_while_sending(numbers, "lone", source, topic, 1, self.seconds)
                instances.wait_for(last)
                if scenario.instances:
                    numbers["delays"] = instances.delays(range(int(self.seconds)))
                if scenario.instances <= MOST_FLOODED:
                    last = self._count_while_sending(
                        numbers, "flood", source, topic, FLOOD_RATE, FLOOD_SECONDS
                    )
            instances.wait_for(last)
            if scenario.restarts:
                self._restart(numbers, instances, last)
            with self._counting(numbers, "stop"):
                numbers["stopped"] = instances.stop()
        return numbers

    def _count_while_sending(
        self, numbers: Numbers, phase: str, source: Flood, topic: str, rate: int, seconds: float
    ) -> int:
        """Count in the midst of it; gives the last state that was sent.

        Raises:
            RuntimeError: it was over before the counting was.
        """
        until = time.time() + seconds + COUNTING_SECONDS
        source.begin(topic, rate, seconds + COUNTING_SECONDS)
        with self._counting(numbers, phase):
            time.sleep(seconds)
        if time.time() > until:
            raise RuntimeError("the broker took too long to tell what it counted")
        return source.end().last

    def _restart(self, numbers: Numbers, instances: Fleet, state: Any) -> None:
        self.tell("one instance after the other is restarted")
        with self._counting(numbers, "rolling"):
            numbers["replaced"] = instances.replace(min(REPLACED, len(instances.instances)), state)
        self.tell("the broker is restarted")
        kafka = self.broker.kafka
        kafka.stop()
        instances.wait_until_lost()
        kafka.start()
        answered = time.time()
        numbers["back"] = instances.back_since(answered)
        time.sleep(SETTLE_SECONDS)
        # a new process counts anew, so that this is what the return has cost
        numbers["return"] = asdict(self.broker.read())

    @contextlib.contextmanager
    def _counting(self, numbers: Numbers, phase: str) -> Iterator[None]:
        """Note what the broker counts meanwhile."""
        self.tell(phase)
        before = self.broker.read()
        yield
        numbers[phase] = between(before, self.broker.read())


def between(before: Reading, after: Reading) -> Numbers:
    return {
        "seconds": after.at - before.at,
        "counted": {name: after.counted[name] - before.counted[name] for name in after.counted},
        "cpu": (after.cpu - before.cpu) / (after.cpu_at - before.cpu_at),
        "connections": after.connections,
    }
