"""What a second worker brings, and what workers that have ended leave behind."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator

from bench.load import STATE, Request
from bench.run import MANY_CONNECTIONS, SLICE_SECONDS, Bench, Numbers, loaded, warm_up
from bench.services import OURS, Client, Running

# an answer costs the service some fifty times what it costs the load, which leaves it the two cores
DESCRIPTION = Request("/openapi.json")
ONE, TWO = 1, 2
# by then a process that only counts has started
LEAD_SECONDS = 0.5
# of the service whose workers are killed
WORKERS, ROUNDS = 8, 10
SCRAPES = 50


def workers(bench: Bench) -> Numbers:
    """Requests by one worker and by two, by turns; and scrapes after many workers have ended."""
    topic = bench.topic()
    bench.send(topic, iter([b'{"state":77}']))
    return {
        "loops": [_loops(bench, count) for count in (ONE, TWO)],
        "asked": _asked(bench, topic),
        "ended": ROUNDS * WORKERS * bench.repeats,
        "scrapes": _scrapes_after_ends(bench, topic),
    }


def worker_steps(bench: Bench) -> int:
    return 2 + 2 * 2 * bench.slices + ROUNDS * bench.repeats


def _asked(bench: Bench, topic: str) -> Numbers:
    numbers: Numbers = {}
    with contextlib.ExitStack() as stack:
        served = {}
        for count in (ONE, TWO):
            served[count] = stack.enter_context(_serving(bench, topic, count))
            for request in (STATE, DESCRIPTION):
                warm_up(served[count], request, MANY_CONNECTIONS)
        for _ in range(bench.slices):
            for request, (count, at) in itertools.product((STATE, DESCRIPTION), served.items()):
                bench.progress(f"GET {request.path} by {count} worker(s)")
                of_path = numbers.setdefault(request.path, {})
                of_path.setdefault(str(count), []).append(loaded(at, request, MANY_CONNECTIONS))
    return numbers


@contextlib.contextmanager
def _serving(bench: Bench, topic: str, count: int) -> Iterator[Running]:
    with bench.serving(OURS, topic, 77, WEB_CONCURRENCY=str(count)) as served:
        served.wait_for_starts(count)
        yield served


def _loops(bench: Bench, processes: int) -> int:
    """How often as many processes go round a loop of Python in a slice of time: what the machine
    itself makes of a second core."""
    bench.progress("a loop of Python")
    begin = time.monotonic() + LEAD_SECONDS
    command = [sys.executable, "-m", "bench.loop", str(begin), str(begin + SLICE_SECONDS)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(processes)]
    return sum(int(process.communicate()[0]) for process in running)


def _scrapes_after_ends(bench: Bench, topic: str) -> dict[str, list[float]]:
    """How long a scrape takes, before any worker has ended and after many have."""
    with _serving(bench, topic, WORKERS) as served:
        before = _scrapes(served)
        for number in range(ROUNDS * bench.repeats):
            bench.progress("workers that are killed")
            for worker in served.workers:
                worker.kill()
            served.wait_for_starts((number + 2) * WORKERS)
        return {"before": before, "after": _scrapes(served)}


def _scrapes(served: Running) -> list[float]:
    taken = []
    with contextlib.closing(Client(served.port)) as client:
        for _ in range(SCRAPES):
            began = time.perf_counter()
            client.get("/metrics")
            taken.append(time.perf_counter() - began)
    return taken
