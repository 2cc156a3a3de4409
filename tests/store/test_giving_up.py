"""What the control connection ends or undoes on a held task: releases, and cancels that are told and then forced."""

from uuid import uuid4

from store.desk import Desk, Held

from taskrunner.store.settling import COMPLETED


async def test_a_release_undoes_a_claim_of_that_stream_only(desk: Desk) -> None:
    held = await desk.held(3, priority=4)
    ids, epochs = held.blobs
    await desk.settling.start(ids[:16], epochs[:8], held.session.bytes)
    assert await desk.sessions.release(held.session, 2, ids, epochs) == ([], 0)
    assert await desk.sessions.release(uuid4(), 1, ids, epochs) == ([], 0)
    assert await desk.sessions.release(held.session, 1, ids, Held(held.session, 1, held.ids, [2, 2, 2]).blobs[1]) == ([], 0)
    (back,), locked = await desk.sessions.release(held.session, 1, ids, epochs)
    assert (back.lane.priority, locked) == (4, 0)
    assert await desk.statuses(held.ids) == ["RUNNING", "PENDING", "PENDING"]
    assert {(await desk.row(id_))["attempt"] for id_ in held.ids[1:]} == {0}


async def test_cancels_are_told_to_their_sessions_and_forced_after_the_grace(desk: Desk) -> None:
    one, other = await desk.held(2), await desk.held(started=True)
    for id_ in (*one.ids, *other.ids):
        await desk.store.cancel(id_)
    asked = await desk.sessions.cancel_requests([one.session, uuid4()])
    assert [(session, sorted(ids[n : n + 16] for n in (0, 16))) for session, ids, _ in asked] == [
        (one.session, sorted(id_.bytes for id_ in one.ids))
    ]
    assert await desk.sessions.force_cancels(grace=10) == 0
    await desk.db.execute(
        "update tasks_live set cancel_requested_at = clock_timestamp() - interval '11 seconds' where id = %s", (other.ids[0],)
    )
    assert await desk.sessions.force_cancels(grace=10) == 1
    row = await desk.row(other.ids[0])
    assert (row["status"], row["error"]) == ("CANCELLED", "cancelled while its handler did not stop")
    assert await desk.statuses(one.ids) == ["QUEUED"] * 2
    assert (await desk.settling.settle(COMPLETED, other.done())).stale_ids == other.blobs[0]
