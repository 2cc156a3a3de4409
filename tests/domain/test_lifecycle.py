"""The one page of the state machine, and the statements that claim to follow it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner.domain.lifecycle import FINISHED, HELD, LIVE, MOVES, NEW, Status
from taskrunner.domain.retry import backoff
from taskrunner.store.queries import queries

DECLARED = {move for query in queries().values() for move in query.moves}
ALLOWED = {(a.value, b.value) for a, after in MOVES.items() for b in after} | {("new", status.value) for status in NEW}
ALLOWED |= {(status.value, "gone") for status in FINISHED}


def test_every_move_that_a_statement_declares_is_on_the_page() -> None:
    assert DECLARED - ALLOWED == set()


def test_every_move_on_the_page_has_a_statement() -> None:
    assert ALLOWED - DECLARED == set()


def test_every_word_has_its_moves_and_its_place() -> None:
    assert set(MOVES) == set(Status) == LIVE | FINISHED
    assert not LIVE & FINISHED
    assert HELD < LIVE


def test_an_attempt_begins_in_one_place_and_ends_anywhere_but_there() -> None:
    assert [status for status, after in MOVES.items() if Status.QUEUED in after] == [Status.PENDING]
    assert [status for status, after in MOVES.items() if Status.RUNNING in after] == [Status.QUEUED]
    for held in HELD:
        assert MOVES[held] >= FINISHED | {Status.PENDING}


@pytest.mark.parametrize("finished", sorted(FINISHED))
def test_what_is_finished_only_a_person_begins_again(finished: Status) -> None:
    assert MOVES[finished] == {Status.PENDING}


@given(attempt=st.integers(1, 10_000), base=st.floats(0.001, 60), cap=st.floats(0.001, 86_400), at=st.floats(0, 1))
def test_backoff_stays_between_nothing_and_its_ceiling(attempt: int, base: float, cap: float, at: float) -> None:
    delay = backoff(attempt, base=base, cap=cap, uniform=lambda low, high: low + (high - low) * at)
    assert 0 <= delay <= cap
    assert delay <= base * 2.0 ** min(attempt - 1, 1000)


@given(attempt=st.integers(1, 200), base=st.floats(0.001, 60), cap=st.floats(0.001, 86_400))
def test_backoff_doubles_until_the_cap_and_is_drawn_from_the_whole_range(attempt: int, base: float, cap: float) -> None:
    def ceiling(n: int) -> float:
        return backoff(n, base=base, cap=cap, uniform=lambda low, high: high)

    assert backoff(attempt, base=base, cap=cap, uniform=lambda low, high: low) == 0
    assert ceiling(1) == min(base, cap)
    assert ceiling(attempt + 1) == pytest.approx(min(cap, 2 * ceiling(attempt)))
