"""The numbers as a page."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.flood import MESSAGE
from bench.growth.counters import COMMIT, FETCH, MADE, RECEIVED, SENT

Cells = Sequence[str]

INTRODUCTION = """\
# What `make growth` measured

Written by it. One broker and all instances run on one machine, over loopback. An instance is
`kafka-state serve` with one worker; they follow one topic of one partition.

Requests, bytes and connections are the broker's own counters (`RequestMetrics`,
`socket-server-metrics`, read before and after by Kafka's JmxTool). What an instance costs is what the
broker counted with so many instances, less what it counted with none, divided by their number. Bytes
are Kafka's, without those of TCP, IP and TLS. CPU is that of the broker's process; it runs with the
first of Java's two compilers (`TieredStopAtLevel=1`), so that a broker in production takes less.

Broker, producer and instances share the cores: counts do not depend on that, and times do. "Load" is
the machine's load average when the scenario began, for others may use the machine too.
"""


def page(results: dict[str, Any]) -> str:
    """As Markdown; one scenario has no instances, and is what the others are compared to."""
    scenarios = sorted(results.values(), key=lambda of: of["instances"])
    (nobody,) = (of["numbers"] for of in scenarios if not of["instances"])
    measured = [_Measured(of, nobody) for of in scenarios if of["instances"]]
    parts = [
        INTRODUCTION,
        f"Measured with {', and '.join(sorted({of['with'] for of in scenarios}))}.\n",
        *(f"## {title}\n\n{_table(rows)}\n" for title, rows in _tables(measured)),
    ]
    return "\n".join(parts)


class _Measured:
    """A scenario, beside nobody."""

    def __init__(self, of: dict[str, Any], nobody: dict[str, Any]) -> None:
        self.of = of
        self.instances: int = of["instances"]
        self.numbers = of["numbers"]
        self._nobody = nobody

    @property
    def head(self) -> Cells:
        return str(self.instances), self.of["client"], "yes" if self.of["commits"] else "no"

    def connections(self) -> float:
        """How many an instance has."""
        more = self.numbers["quiet"]["connections"] - self._nobody["quiet"]["connections"]
        return float(more) / self.instances

    def rate(self, phase: str, counter: str) -> float:
        """How many a second an instance adds."""
        with_them, without = self.numbers[phase], self._nobody[phase]
        more = (
            with_them["counted"][counter] / with_them["seconds"]
            - without["counted"][counter] / without["seconds"]
        )
        return float(more) / self.instances

    def each(self, phase: str, counter: str) -> float:
        """How many an instance adds, however long it takes."""
        return float(self.numbers[phase]["counted"][counter]) / self.instances

    def cpu(self, phase: str) -> str:
        """What all instances add, as a part of a core, and what each does."""
        more = self.numbers[phase]["cpu"] - self._nobody[phase]["cpu"]
        return f"{more * 100:.1f} %, {more / self.instances * 1000:.2f} ms/s each"

    def heap(self) -> str:
        """What the broker's objects take with all instances, not less what they take with none: a
        broker that was started anew may take more or less than another one."""
        return f"{self.numbers['heap'] / 1e6:.1f} MB"

    def delay(self) -> str:
        """Of the slowest instance of each message."""
        slowest = [max(of_message) for of_message in self.numbers["delays"]]
        return f"{statistics.median(slowest):.3f} s, {max(slowest):.3f} s at most"


def _tables(measured: list[_Measured]) -> Iterator[tuple[str, list[Cells]]]:
    yield (
        "While nothing is sent, per instance",
        _rows(
            measured,
            {
                "connections": lambda m: f"{m.connections():.2f}",
                "fetches/s": lambda m: f"{m.rate('quiet', FETCH):.2f}",
                "metadata/s": lambda m: f"{m.rate('quiet', 'Metadata'):.3f}",
                "commits/s": lambda m: f"{m.rate('quiet', COMMIT):.3f}",
                "to the broker": lambda m: _bytes(m.rate("quiet", RECEIVED)),
                "from the broker": lambda m: _bytes(m.rate("quiet", SENT)),
                "CPU of the broker": lambda m: m.cpu("quiet"),
                "heap of the broker": _Measured.heap,
            },
        ),
    )
    yield (
        f"With one message of {len(MESSAGE % 100_000)} bytes a second, per instance",
        _rows(
            measured,
            {
                **_traffic("lone"),
                "until all served it": _Measured.delay,
                "load": lambda m: f"{m.of['load']:.1f}",
            },
        ),
    )
    flooded = [of for of in measured if "flood" in of.numbers]
    yield "With 1000 messages a second, per instance", _rows(flooded, _traffic("flood"))
    yield (
        "A start of all at once",
        _rows(
            measured,
            {
                "until all served": lambda m: f"{m.numbers['ready']:.1f} s",
                "connections made each": lambda m: f"{m.each('start', MADE):.2f}",
                "connections made a second, all": lambda m: f"{_made_a_second(m):.0f}",
                "requests each": lambda m: _requests(m, "start"),
            },
        ),
    )
    yield (
        "SIGTERM to all at once",
        _rows(
            measured,
            {
                "until all had ended": lambda m: f"{m.numbers['stopped']['seconds']:.1f} s",
                "not with status 0": lambda m: str(m.numbers["stopped"]["not_ended_well"]),
                "connections made each": lambda m: f"{m.each('stop', MADE):.2f}",
                "requests each": lambda m: _requests(m, "stop"),
            },
        ),
    )
    restarted = [of for of in measured if "replaced" in of.numbers]
    yield (
        "One restarted after the other",
        _rows(
            restarted,
            {
                "took": lambda m: f"{m.numbers['replaced']['seconds']:.0f} s",
                "answers of the others": lambda m: str(m.numbers["replaced"]["asked"]),
                "of them wrong": lambda m: str(m.numbers["replaced"]["wrong"]),
                "not ended with status 0": lambda m: str(m.numbers["replaced"]["not_ended_well"]),
                "restarted": lambda m: str(m.numbers["replaced"]["count"]),
                "connections made a restart": lambda m: f"{_a_restart(m, MADE):.2f}",
            },
        ),
    )
    yield (
        "The broker is restarted",
        _rows(
            restarted,
            {
                "the first follows again after": lambda m: f"{min(m.numbers['back']):.1f} s",
                "half of them": lambda m: f"{statistics.median(m.numbers['back']):.1f} s",
                "the last": lambda m: f"{max(m.numbers['back']):.1f} s",
                "connections made each": lambda m: _returned(m, MADE),
                "metadata each": lambda m: _returned(m, "Metadata"),
            },
        ),
    )


def _traffic(phase: str) -> dict[str, Callable[[_Measured], str]]:
    return {
        "fetches/s": lambda m: f"{m.rate(phase, FETCH):.2f}",
        "commits/s": lambda m: f"{m.rate(phase, COMMIT):.3f}",
        "to the broker": lambda m: _bytes(m.rate(phase, RECEIVED)),
        "from the broker": lambda m: _bytes(m.rate(phase, SENT)),
        "CPU of the broker": lambda m: m.cpu(phase),
    }


def _requests(of: _Measured, phase: str) -> str:
    """By kind, without fetches, which depend on how long it takes."""
    each = {kind: of.each(phase, kind) for kind in of.numbers[phase]["counted"]}
    return ", ".join(
        f"{kind} {count:.1f}"
        for kind, count in each.items()
        if kind not in (FETCH, MADE, RECEIVED, SENT) and count >= 0.05
    )


def _made_a_second(of: _Measured) -> float:
    return float(of.numbers["start"]["counted"][MADE] / of.numbers["ready"])


def _a_restart(of: _Measured, counter: str) -> float:
    return float(of.numbers["rolling"]["counted"][counter] / of.numbers["replaced"]["count"])


def _returned(of: _Measured, counter: str) -> str:
    return f"{of.numbers['return']['counted'][counter] / of.instances:.1f}"


def _bytes(a_second: float) -> str:
    return f"{a_second:.0f} B/s" if a_second < 10_000 else f"{a_second / 1000:.1f} kB/s"


def _rows(measured: list[_Measured], columns: dict[str, Callable[[_Measured], str]]) -> list[Cells]:
    head = ("instances", "client", "commits", *columns)
    return [head, *((*of.head, *(give(of) for give in columns.values())) for of in measured)]


def _table(rows: list[Cells]) -> str:
    head, *others = rows
    lines = [head, tuple("---" for _ in head), *others]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
