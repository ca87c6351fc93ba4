from __future__ import annotations

from app.consumer import LONGEST_PAUSE_SECONDS, pause_seconds


def test_pauses_grow_to_a_bound():
    pauses = [pause_seconds(failures, chance=lambda: 1.0) for failures in range(2000)]
    assert pauses == sorted(pauses)
    assert pauses[0] < 1
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_pauses_of_many_instances_differ_by_up_to_a_half():
    drawn = iter([0.0, 0.5, 1.0])
    assert [pause_seconds(9, chance=lambda: next(drawn)) for _ in range(3)] == [1.0, 1.5, 2.0]
