"""What is made of a broker's counters."""

from __future__ import annotations

import pytest

from bench.growth.counters import CONNECTIONS, FETCH, MADE, RECEIVED, SENT, parse
from bench.growth.page import page

REQUESTS = "kafka.network:type=RequestMetrics,name=RequestsPerSec,request"
SOCKETS = "kafka.server:type=socket-server-metrics,listener=PLAINTEXT,networkProcessor"


def test_requests_are_summed_over_versions_and_connections_over_threads():
    told = f"""\
time=1795981878261
{REQUESTS}=Fetch,version=11:Count=9
{REQUESTS}=FetchConsumer,version=11:Count=3
{REQUESTS}=FetchConsumer,version=12:Count=4
{SOCKETS}=0:connection-count=1.0
{SOCKETS}=1:connection-count=2.0
{SOCKETS}=1:outgoing-byte-total=1.5E7
"""
    at, counters = parse(told)
    assert at == 1795981878.261
    assert counters == {"Fetch": 9, FETCH: 7, CONNECTIONS: 3, SENT: 15_000_000}


@pytest.mark.parametrize("told", ["", "time=1795981878261\n", f"{SOCKETS}=0:connection-count=1.0"])
def test_a_broker_that_tells_something_else_is_an_error(told):
    with pytest.raises(RuntimeError, match="not as expected"):
        parse(told)


def scenario(instances: int, fetches: float, connections: float) -> dict:
    counted = {FETCH: fetches, MADE: 0, RECEIVED: 0, SENT: 0, "Metadata": 0, "OffsetCommit": 0}
    phase = {"seconds": 10.0, "counted": counted, "cpu": 0.0, "connections": connections}
    numbers = dict.fromkeys(("start", "quiet", "lone", "flood", "stop"), phase)
    numbers |= {"heap": 0, "ready": 1.0, "stopped": {"seconds": 1.0, "not_ended_well": 0}}
    numbers |= {"delays": [[0.1, 0.3], [0.2, 0.1]]}
    return {
        "instances": instances,
        "client": "c",
        "commits": True,
        "with": "",
        "load": 0,
        "numbers": numbers,
    }


def test_an_instance_costs_what_is_more_than_with_none_by_their_number():
    scenarios = {"0": scenario(0, fetches=20, connections=1), "5": scenario(5, 120, 16)}
    shown = page(scenarios)
    (quiet,) = [line for line in shown.splitlines() if line.startswith("| 5 | c | yes | 3.00 |")]
    assert quiet.startswith("| 5 | c | yes | 3.00 | 2.00 | ")


def test_of_each_message_the_slowest_instance_counts():
    scenarios = {"0": scenario(0, 0, 0), "2": scenario(2, 0, 0)}
    shown = page(scenarios)
    assert "| 0.250 s, 0.300 s at most |" in shown
