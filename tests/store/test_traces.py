"""Traceparents come with a claim where there are any."""

from store.desk import Desk, pairs

from taskrunner.domain.lanes import Serves
from taskrunner.store.claims import UNTRACED

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


async def test_traceparents_travel_where_there_are_any(desk: Desk) -> None:
    plain = await desk.create(2)
    worker = (await desk.worker())._replace(free=10)
    (claimed,) = (await desk.take([worker]))[0]
    assert claimed.traceparents == b""
    await desk.db.execute("update tasks_live set status = 'PENDING', session = null, stream = null")
    (traced,) = await desk.create(traceparent=TRACE)
    (claimed,) = (await desk.take([worker]))[0]
    column = [claimed.traceparents[at : at + 55] for at in range(0, len(claimed.traceparents), 55)]
    known = dict(zip(pairs(worker, [claimed]).ids, column, strict=True))
    assert known == {traced: TRACE.encode(), **dict.fromkeys(plain, UNTRACED)}


async def test_a_suspect_has_its_traceparent(desk: Desk) -> None:
    await desk.create(traceparent=TRACE)
    await desk.db.execute("update tasks_live set crashes = 1, attempt = 1, max_attempts = 5, timeout = 9")
    (claimed,) = await desk.claims.claim_suspects(Serves((("t", 5, 1.0),), None), [await desk.worker()])
    assert claimed.traceparents == TRACE.encode()


async def test_one_that_somebody_wrote_by_hand_keeps_nobody_from_claiming(desk: Desk) -> None:
    """Only one that fits its column is sent."""
    await desk.create(3)
    await desk.db.execute(
        "update tasks_live set traceparent = case when id = (select min(id::text)::uuid from tasks_live) then 'é' else 'x' end"
    )
    (claimed,) = (await desk.take([(await desk.worker())._replace(free=10)]))[0]
    assert (claimed.n, claimed.traceparents) == (3, b"")
