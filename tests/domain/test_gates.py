"""Closed lanes are passed over, and nobody wakes up for them."""

from datetime import UTC, datetime
from math import inf

import pytest

from taskrunner.domain.lanes import Gates, Lanes, Serves
from taskrunner.domain.task import Lane

AT = datetime(2031, 1, 1, tzinfo=UTC)
A, B = Lane("a", "t", 2), Lane("b", "u", 2)
SERVES = Serves((("t", 5, 1.0), ("u", 5, 1.0)), None)


@pytest.fixture
def lanes() -> Lanes:
    lanes = Lanes()
    for lane in (A, B):
        lanes.found(lane, run_at=AT, due_at=1.0, now=1.0)
    return lanes


def chosen(lanes: Lanes, now: float) -> set[Lane]:
    return {pick.lane for pick in lanes.choose(SERVES, 10, now)}


@pytest.mark.parametrize("gates", [Gates(queues={"a": inf}), Gates(types={"t": inf}), Gates(queues={"a": 9.0}, types={"t": inf})])
def test_a_paused_lane_is_not_chosen_and_wakes_nobody(lanes: Lanes, gates: Gates) -> None:
    lanes.gates = gates
    assert chosen(lanes, 2.0) == {B}
    lanes.gates = Gates({**gates.queues, "b": inf}, gates.types)
    assert chosen(lanes, 2.0) == set()
    assert lanes.next_due([SERVES]) is None


def test_a_lane_that_is_closed_until_a_time_is_looked_at_then(lanes: Lanes) -> None:
    lanes.gates = Gates(queues={"a": 7.0, "b": 5.0}, types={"u": 6.0})
    assert chosen(lanes, 4.0) == set()
    assert lanes.next_due([SERVES]) == 6.0
    assert chosen(lanes, 6.5) == {B}
    assert chosen(lanes, 7.5) == {A, B}


def test_open_gates_change_nothing(lanes: Lanes) -> None:
    assert chosen(lanes, 1.0) == {A, B}
    assert lanes.next_due([SERVES]) == 1.0
