"""Who is here, and how much more each can take: pure objects, no database."""

from collections import Counter
from uuid import UUID, uuid4

import pytest

from taskrunner.domain.lanes import BATCH, Serves
from taskrunner.scheduler.roster import LAGGING, Roster, Session

SERVES = Serves((("t", 5, 300.0),), None)


def session(slots: int = 10, prefetch: int = 0, outstanding: int = 0, serves: Serves = SERVES) -> Session:
    return Session(id=uuid4(), stream=1, name="w", serves=serves, slots=slots, prefetch=prefetch, outstanding=outstanding)


def roster(*sessions: Session) -> Roster:
    made = Roster()
    for one in sessions:
        made.add(one)
    return made


@pytest.mark.parametrize(
    ("slots", "prefetch", "outstanding", "places"),
    [
        (10, 0, 0, 10),
        (10, 0, 9, 1),
        (10, 0, 10, 0),
        (10, 0, 12, 0),  # slots were taken away meanwhile
        (10, 20, 0, 30),
        (10, 20, 9, 21),  # a free slot is filled at once
        (10, 20, 10, 20),
        (10, 20, 20, 10),  # of the prefetch, half is worth a message
        (10, 20, 21, 0),
        (0, 0, 0, 0),
        (10, 4 * BATCH, 10 + 3 * BATCH, BATCH),
        (10, 4 * BATCH, 11 + 3 * BATCH, 0),
    ],
)
def test_places(slots: int, prefetch: int, outstanding: int, places: int) -> None:
    assert session(slots, prefetch, outstanding).places == places


def test_who_lags_or_leaves_has_no_places() -> None:
    lagging, leaving = session(), session()
    lagging.lag, leaving.taking = LAGGING + 0.01, False
    assert (lagging.places, leaving.places) == (0, 0)
    lagging.lag = LAGGING
    assert lagging.places == 10
    lagging.dismiss("go elsewhere")
    assert lagging.places == 0
    assert lagging.outbox[-1].message.goodbye is not None


def test_a_new_stream_replaces_the_old_one_and_outlives_its_end() -> None:
    old = session()
    new = Session(id=old.id, stream=2, name="w", serves=SERVES, slots=1, prefetch=0)
    here = roster(old, new)
    here.remove(old)
    assert here.get(old.id) is new
    here.remove(new)
    assert here.get(old.id) is None
    assert len(here) == 0


def test_sessions_that_serve_the_same_are_a_class() -> None:
    other = Serves((("t", 5, 300.0),), frozenset({"q"}))
    one, two, three = session(), session(), session(serves=other)
    assert roster(one, two, three).classes() == {SERVES: [one, two], other: [three]}


def free(here: Roster, sessions: list[Session]) -> dict[UUID, int]:
    return {seat.session: seat.free for seat in here.seats(sessions)}


def test_nobody_waits_at_a_busy_worker_while_another_one_is_idle() -> None:
    busy, idle = session(prefetch=100, outstanding=10), session(prefetch=100, outstanding=5)
    here = roster(busy, idle)
    assert free(here, [busy, idle]) == {idle.id: 105}
    idle.outstanding = 10
    assert free(here, [busy, idle]) == {busy.id: 100, idle.id: 100}
    busy.outstanding = idle.outstanding = 110
    assert free(here, [busy, idle]) == {}


def test_a_batch_is_shared_and_everyone_has_a_turn_to_be_first() -> None:
    sessions = [session(slots=1000) for _ in range(3)]
    here = roster(*sessions)
    first: Counter[UUID] = Counter()
    for _ in range(6):
        seats = here.seats(sessions)
        assert [seat.free for seat in seats] == [-(-BATCH // 3)] * 3
        first[seats[0].session] += 1
    assert set(first.values()) == {2}


def test_quick_workers_get_whole_batches_in_turn() -> None:
    one, two = session(prefetch=BATCH), session(prefetch=BATCH)
    here = roster(one, two)
    assert [free(here, [one, two]) for _ in range(4)] == [{two.id: BATCH}, {one.id: BATCH}] * 2
    one.prefetch = two.prefetch = BATCH - 1
    assert free(here, [one, two]) == {one.id: BATCH // 2, two.id: BATCH // 2}


def test_more_sessions_than_a_batch_get_one_place_each_in_turn() -> None:
    sessions = [session(slots=1) for _ in range(BATCH + 10)]
    here = roster(*sessions)
    got: Counter[UUID] = Counter()
    for _ in range(BATCH + 10):
        seats = here.seats(sessions)
        assert len(seats) == BATCH
        got.update(seat.session for seat in seats)
    assert set(got.values()) == {BATCH}
