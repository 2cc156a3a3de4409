"""The scheduler's memory of the queue: a pure object, fed by hand."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from taskrunner.domain.lanes import BATCH, BATCH_BYTES, BEGINNING, FORGET, LOCKED, NIL, Gates, Lanes, Mark, Pick, Serves, Took
from taskrunner.domain.task import Lane

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ANY = Serves((("a", 5, 300.0), ("b", 3, 60.0)), None)
A, B = Lane("default", "a", 2), Lane("default", "b", 2)


def seen(*lanes: Lane, due_at: float = 0.0) -> Lanes:
    memory = Lanes()
    for lane in lanes:
        memory.found(lane, run_at=NOON, due_at=due_at, now=0.0)
    return memory


def chosen(memory: Lanes, free: int = 10, serves: Serves = ANY, now: float = 1.0) -> list[Lane]:
    return [pick.lane for pick in memory.choose(serves, free, now)]


def later(seconds: float, number: int = 1) -> Mark:
    return Mark(NOON + timedelta(seconds=seconds), UUID(int=number))


def take(memory: Lanes, lane: Lane, n: int, mark: Mark, *, size: int = 100, full: bool = True) -> Pick:
    """One claim, from choice to answer."""
    pick = next(pick for pick in memory.choose(ANY, 10, 1.0) if pick.lane == lane)
    memory.claimed([pick], {lane: Took(n, size * n, mark)} if n else {}, full=full, now=1.0)
    return pick


def test_a_pick_says_what_its_type_has_for_values_and_begins_at_the_beginning() -> None:
    assert seen(B).choose(ANY, 7, 1.0) == [Pick(B, BEGINNING, 7, 3, 60.0)]


def test_lower_numbers_come_first_and_the_next_rank_gets_what_a_lone_lane_leaves() -> None:
    urgent, usual, idle = (Lane("default", "a", n) for n in (1, 2, 4))
    assert chosen(seen(idle, usual, urgent)) == [urgent, usual, idle]


def test_a_rank_of_several_lanes_keeps_its_leftover_to_itself() -> None:
    assert set(chosen(seen(A, B, Lane("default", "a", 3)))) == {A, B}


def rank(*stock: int) -> dict[Lane, int]:
    """Lanes of one rank, and how many tasks each has."""
    return {Lane(f"q{n}", "a", 2): tasks for n, tasks in enumerate(stock)}


def claim(memory: Lanes, stock: dict[Lane, int], free: int) -> list[int]:
    """What one claim of ``free`` tasks takes from each lane of ``stock``, in the order of the picks as the database does."""
    picks, got, left = memory.choose(ANY, free, 1.0), dict.fromkeys(stock, 0), free
    for pick in picks:
        got[pick.lane] = min(pick.limit, stock[pick.lane], left)
        stock[pick.lane] -= got[pick.lane]
        left -= got[pick.lane]
    memory.claimed(picks, {lane: Took(n, n, later(1)) for lane, n in got.items() if n}, full=not left, now=1.0)
    return list(got.values())


@pytest.mark.parametrize("lanes", range(2, 10))
@pytest.mark.parametrize("free", [1, 2, 5, 10, 100])
def test_lanes_of_a_rank_take_turns_however_many_they_are_and_however_few_are_claimed(lanes: int, free: int) -> None:
    stock = rank(*[1_000_000] * lanes)
    memory = seen(*stock)
    got = [sum(column) for column in zip(*(claim(memory, stock, free) for _ in range(12 * lanes)), strict=True)]
    assert max(got) < 2 * min(got)  # shares are whole tasks


def test_a_lane_that_was_cut_short_is_the_first_one_of_the_next_claim() -> None:
    stock = rank(100, 100, 100, 100, 100)
    memory = seen(*stock)
    assert claim(memory, stock, 10) == [3, 3, 3, 1, 0]
    assert claim(memory, stock, 10) == [3, 1, 0, 3, 3]


def test_what_a_lane_leaves_belongs_to_those_behind_it_in_the_same_claim() -> None:
    stock = rank(10, 100, 5, 0, 100, 100, 100)
    memory = seen(*stock)
    assert claim(memory, stock, 100) == [10, 25, 5, 0, 25, 25, 10]
    assert claim(memory, stock, 40) == [0, 10, 0, 0, 10, 10, 10]


def test_a_claim_names_twice_as_many_lanes_as_the_last_one_needed() -> None:
    stock = rank(*[1] * 300)
    memory = seen(*stock)
    assert [sum(claim(memory, stock, 100)) for _ in range(6)] == [8, 16, 32, 64, 100, 80]
    stock = rank(*[100] * 300)
    memory = seen(*stock)
    for _ in range(2):
        claim(memory, stock, 100)
    assert len(memory.choose(ANY, 100, 1.0)) == 8


def test_each_lane_of_a_rank_gets_its_share_and_never_more_than_a_batch() -> None:
    assert [pick.limit for pick in seen(A, B).choose(ANY, 11, 1.0)] == [6, 6]
    assert [pick.limit for pick in seen(A).choose(ANY, 10 * BATCH, 1.0)] == [BATCH]


def test_large_payloads_make_small_picks() -> None:
    memory = seen(A)
    for n in range(40):
        take(memory, A, 10, later(n), size=BATCH_BYTES // 8)
    (pick,) = memory.choose(ANY, BATCH, 1.0)
    assert pick.limit == pytest.approx(8, abs=1)
    for n in range(40, 80):
        take(memory, A, 1, later(n), size=10 * BATCH_BYTES)
    (pick,) = memory.choose(ANY, BATCH, 1.0)
    assert pick.limit == 1  # one too large still goes


def test_a_claim_that_was_given_up_is_a_quarter_the_next_time_until_sizes_are_known() -> None:
    memory = seen(A)
    limits = []
    for _ in range(6):
        picks = memory.choose(ANY, BATCH, 1.0)
        limits.append(picks[0].limit)
        memory.too_slow(picks)
    assert limits == [500, 125, 31, 7, 1, 1]
    for n in range(40):
        take(memory, A, 1, later(n), size=100)
    assert memory.choose(ANY, BATCH, 1.0)[0].limit == BATCH


def test_only_what_is_served_and_due_is_chosen() -> None:
    strange = Lane("default", "nobody", 1)
    assert chosen(seen(strange, A)) == [A]
    assert chosen(seen(A), now=0.5) == [A]
    assert chosen(seen(A, due_at=2.0), now=1.9) == []
    assert chosen(seen(A), serves=Serves(ANY.defaults, frozenset({"other"}))) == []
    assert chosen(seen(A), serves=Serves(ANY.defaults, frozenset({"default"}))) == [A]


def test_what_will_be_due_in_a_moment_is_chosen_ahead_unless_a_gate_is_closed_until_then() -> None:
    memory = seen(A, B, due_at=1.003)
    assert memory.choose(ANY, 10, 1.0) == []
    assert memory.choose(ANY, 10, 1.0, ahead=0.002) == []
    assert {pick.lane for pick in memory.choose(ANY, 10, 1.0, ahead=0.004)} == {A, B}
    memory.gates = Gates(types={A.task_type: 1.002})
    assert [pick.lane for pick in memory.choose(ANY, 10, 1.0, ahead=0.004)] == [B]


def test_the_mark_moves_on_to_the_last_one_taken() -> None:
    memory = seen(A)
    take(memory, A, 10, later(5))
    assert take(memory, A, 10, later(9)).mark == later(5)
    assert memory.choose(ANY, 1, 1.0)[0].mark == later(9)


def test_the_mark_goes_back_for_what_turns_up_before_it_and_only_for_that() -> None:
    memory = seen(A)
    take(memory, A, 10, later(5, 7))
    memory.found(A, run_at=NOON + timedelta(seconds=9), due_at=0.0, now=1.0)
    assert memory.choose(ANY, 1, 1.0)[0].mark == later(5, 7)
    memory.found(A, run_at=NOON + timedelta(seconds=5), due_at=0.0, now=1.0)  # the same instant, perhaps a smaller id
    assert memory.choose(ANY, 1, 1.0)[0].mark == Mark(NOON + timedelta(seconds=5), NIL)
    memory.found(A, run_at=NOON, due_at=0.0, now=1.0)
    assert memory.choose(ANY, 1, 1.0)[0].mark == Mark(NOON, NIL)


def test_what_turns_up_while_a_claim_is_under_way_is_not_passed_over() -> None:
    memory = seen(A)
    take(memory, A, 10, later(5))
    (pick,) = memory.choose(ANY, 10, 1.0)
    memory.found(A, run_at=NOON + timedelta(seconds=2), due_at=0.0, now=1.0)
    memory.claimed([pick], {A: Took(10, 100, later(20))}, full=True, now=1.0)
    assert memory.choose(ANY, 1, 1.0)[0].mark == Mark(NOON + timedelta(seconds=2), NIL)


def test_a_lane_taken_to_its_end_is_asked_when_it_is_due_next() -> None:
    memory = seen(A, B)
    picks = memory.choose(ANY, 10, 1.0)
    memory.claimed(picks, {A: Took(5, 50, later(1)), B: Took(2, 20, later(2))}, full=False, now=1.0)
    assert chosen(memory) == [A]  # it gave all that was asked for, so it may have more
    assert memory.to_peek() == [(B, later(2))]
    assert memory.to_peek() == []
    assert not memory.peeked(B, due_at=60.0, now=1.0)
    assert memory.next_due([Serves((("b", 1, 1.0),), None)]) == 60.0
    assert memory.peeked(B, due_at=1.0, now=1.0)
    assert set(chosen(memory)) == {A, B}


def test_a_full_claim_leaves_its_lanes_as_they_are() -> None:
    memory = seen(A)
    take(memory, A, 1, later(1), full=True)
    assert memory.to_peek() == []
    assert chosen(memory) == [A]


def test_a_due_task_that_was_not_to_be_had_is_locked_by_somebody() -> None:
    memory = seen(A)
    take(memory, A, 0, BEGINNING, full=False)
    assert memory.to_peek() == [(A, BEGINNING)]
    assert not memory.peeked(A, due_at=0.5, now=1.0)
    assert memory.next_due([ANY]) == pytest.approx(1.0 + LOCKED)
    assert chosen(memory, now=1.0) == []
    assert chosen(memory, now=1.0 + LOCKED) == [A]


def test_next_due_is_the_first_that_somebody_here_can_run() -> None:
    memory = Lanes()
    for due_at, lane in [(30.0, A), (20.0, B), (10.0, Lane("other", "a", 2))]:
        memory.found(lane, run_at=NOON, due_at=due_at, now=0.0)
    only_b = Serves((("b", 1, 1.0),), None)
    only_default = Serves((("a", 1, 1.0),), frozenset({"default"}))
    assert memory.next_due([ANY]) == 10.0
    assert memory.next_due([only_b]) == 20.0
    assert memory.next_due([only_default]) == 30.0
    assert memory.next_due([only_default, only_b]) == 20.0
    assert memory.next_due([]) is None


def test_a_hint_for_later_does_not_put_off_what_is_due() -> None:
    memory = seen(A)
    memory.found(A, run_at=NOON + timedelta(hours=1), due_at=3600.0, now=0.0)
    assert chosen(memory) == [A]


def test_windows_are_the_stretch_before_each_mark() -> None:
    memory = seen(A, B)
    assert memory.windows(timedelta(0), timedelta(seconds=2)) == []  # nothing lies before the beginning
    take(memory, A, 10, later(60, 5))
    assert memory.windows(timedelta(0), timedelta(seconds=2)) == [(A, NOON + timedelta(seconds=58), later(60, 5))]
    assert memory.windows(timedelta(seconds=2), None) == [(A, BEGINNING.run_at, Mark(NOON + timedelta(seconds=58), NIL))]
    assert memory.windows(timedelta(days=10_000_000), timedelta(days=20_000_000)) == [(A, BEGINNING.run_at, BEGINNING)]


def test_an_empty_lane_is_forgotten_after_a_while_and_one_with_a_task_never() -> None:
    memory = seen(A, B)
    take(memory, A, 1, later(1), full=False)
    memory.forget(1.0 + FORGET)
    assert len(memory.windows(timedelta(0), None)) == 1
    memory.forget(1.1 + FORGET)
    assert memory.windows(timedelta(0), None) == []
    assert chosen(memory) == [B]
