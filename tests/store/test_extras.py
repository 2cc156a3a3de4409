"""Expiry, progress and callbacks, statement by statement."""

import json
import struct
from typing import Any
from uuid import UUID

import pytest
from store.desk import Desk, Held, pairs
from structlog.testing import capture_logs

from taskrunner.domain.lanes import Serves
from taskrunner.domain.retry import Backoff
from taskrunner.store.settling import CANCELLED, COMPLETED, ERROR, Said

URL = "https://example.com/hook"
PAST, FUTURE = "now() - interval '1 second'", "now() + interval '1 hour'"


async def expires(desk: Desk, when: str, where: str = "true") -> None:
    await desk.db.execute(f"update tasks_live set expires_at = {when} where {where}".encode())


async def say(desk: Desk, held: Held, *said: tuple[float, str]) -> None:
    ids, epochs = held.blobs
    fractions = struct.pack(f">{len(said)}f", *(fraction for fraction, _ in said))
    await desk.settling.progress(
        Said(ids=ids, epochs=epochs, sessions=held.session.bytes, fractions=fractions, messages=[text for _, text in said])
    )


async def hooks(desk: Desk) -> list[dict[str, Any]]:
    return await desk.rows("select * from tasks_live where task_type = 'webhook' order by id")


async def test_what_did_not_start_in_time_fails_and_is_never_claimed(desk: Desk) -> None:
    late, early, plain = await desk.create(3)
    await expires(desk, PAST, f"id = '{late}'")
    await expires(desk, FUTURE, f"id = '{early}'")
    worker = await desk.worker()
    assert sorted((await desk.claim(worker, 3)).ids) == sorted([early, plain])
    assert await desk.upkeep.expire() == 1
    row = await desk.row(late)
    assert (row["status"], row["error"], row["attempt"]) == ("FAILED", "expired before it started", 0)
    assert await desk.upkeep.expire() == 0


async def test_what_has_started_once_does_not_expire(desk: Desk) -> None:
    held = await desk.held()
    await expires(desk, PAST)
    await desk.settling.settle(ERROR, held.error(0.0))
    assert await desk.upkeep.expire() == 0
    assert (await desk.claim(await desk.worker(), 1)).ids == held.ids


async def test_a_retry_by_hand_forgets_the_time(desk: Desk) -> None:
    (id_,) = await desk.create()
    await expires(desk, PAST)
    await desk.upkeep.expire()
    task = await desk.store.retry(id_)
    assert task is not None
    assert (task.status, task.expires_at) == ("PENDING", None)


async def test_progress_is_fenced_and_the_last_word_counts(desk: Desk) -> None:
    held = await desk.held(2, started=True)
    await say(desk, held, (0.25, "a"), (0.5, "b"))
    twice = Held(held.session, 1, held.ids[:1] * 2, held.epochs[:1] * 2)
    await say(desk, twice, (0.75, "c"), (0.875, ""))
    await say(desk, Held(held.session, 1, held.ids[1:], [99]), (1.0, "stale"))
    rows = [await desk.row(id_) for id_ in held.ids]
    assert [(row["progress"], row["progress_message"]) for row in rows] == [(0.875, None), (0.5, "b")]
    await say(desk, held, (float("nan"), "x"), (7.0, "y"))
    assert [(await desk.row(id_))["progress"] for id_ in held.ids] == [None, None]


async def test_progress_waits_for_nobody(desk: Desk, dsn: str) -> None:
    held = await desk.held(2)
    async with desk.db.transaction():
        await desk.db.execute("select from tasks_live where id = %s for update", (held.ids[0],))
        await say(desk, held, (0.5, "a"), (0.5, "b"))
    assert [(await desk.row(id_))["progress_message"] for id_ in held.ids] == [None, "b"]


async def test_progress_stays_on_its_page(desk: Desk) -> None:
    """HOT: no index has to know."""
    held = await desk.held(5, started=True)
    for n in range(20):
        await say(desk, held, *[(n / 20, "on my way")] * 5)
    await desk.settling._line.run(lambda connection: connection.execute("select pg_stat_force_next_flush()"))
    (row,) = await desk.rows("select n_tup_hot_upd from pg_stat_user_tables where relname = 'tasks_live'")
    assert row["n_tup_hot_upd"] >= 80


async def test_progress_stays_with_a_finished_task_and_goes_with_the_next_attempt(desk: Desk) -> None:
    done, failed = await desk.held(), await desk.held()
    for held in (done, failed):
        await say(desk, held, (0.5, "half"))
    await desk.settling.settle(COMPLETED, done.done())
    await desk.settling.settle(ERROR, failed.error(3600.0))
    assert [(await desk.row(held.ids[0]))["progress"] for held in (done, failed)] == [0.5, None]


@pytest.mark.parametrize(
    ("kind", "batch", "told"),
    [
        (COMPLETED, lambda held: held.done('{"a": 1}'), ("COMPLETED", {"a": 1}, None)),
        (ERROR, lambda held: held.error(None, "broken"), ("FAILED", None, "broken")),
        (CANCELLED, lambda held: held.batch(), ("CANCELLED", None, None)),
    ],
)
async def test_the_end_calls_back(desk: Desk, kind: Any, batch: Any, told: tuple[str, Any, str | None]) -> None:
    status, result, error = told
    held = await desk.held(2, queue="q", callback_url=URL, metadata='{"order": 7}')
    settled = await desk.settling.settle(kind, batch(held))
    assert [(back.lane.queue, back.lane.task_type, back.due_in) for back in settled.back] == [("q", "webhook", 0.0)]
    first, second = await hooks(desk)
    assert (first["queue"], first["payload"]["url"], first["callback_url"]) == ("q", URL, None)
    body = first["payload"]["body"]
    assert (set(body), body["type"]) == ({"type", "timestamp", "data"}, f"task.{status.lower()}")
    data = body["data"]
    assert {data["id"], second["payload"]["body"]["data"]["id"]} == {str(id_) for id_ in held.ids}
    assert [data[name] for name in ("task_type", "queue", "status", "attempt", "result", "error", "metadata", "truncated")] == [
        *("t", "q", status, 1, result, error, {"order": 7}, False),
    ]


async def test_a_retry_calls_nobody_back_and_nobody_asked_is_not_called(desk: Desk) -> None:
    await desk.settling.settle(ERROR, (await desk.held(callback_url=URL)).error(3600.0))
    await desk.settling.settle(COMPLETED, (await desk.held()).done())
    assert await hooks(desk) == []


async def test_cancel_and_expiry_call_back_too(desk: Desk) -> None:
    cancelled, _ = await desk.create(2, callback_url=URL)
    await desk.store.cancel(cancelled)
    await expires(desk, PAST, "task_type = 't'")
    await desk.upkeep.expire()
    assert [hook["payload"]["body"]["type"] for hook in await hooks(desk)] == ["task.cancelled", "task.failed"]


async def test_a_callback_is_small_whatever_the_task_holds(desk: Desk) -> None:
    held = await desk.held(task_type="é" * 200, queue="ö" * 200, callback_url=URL, metadata=json.dumps({"m": "x" * 15_000}))
    await desk.settling.settle(COMPLETED, held.done(json.dumps("😀" * 5_000)))
    failed = await desk.held(callback_url=URL)
    await desk.settling.settle(ERROR, failed.error(None, "😀" * 2_000))
    for hook in await hooks(desk):
        data = hook["payload"]["body"]["data"]
        assert (data["result"], data["metadata"], data["truncated"]) == (None, None, True)
        assert len(json.dumps(hook["payload"]["body"], ensure_ascii=False).encode()) < 20_000


async def test_backoffs_travel_where_there_are_any(desk: Desk) -> None:
    (with_one,) = await desk.create(backoff=Backoff(kind="linear", base=2.0))
    worker = (await desk.worker())._replace(free=10)
    assert [one.backoffs for one in (await desk.take([worker]))[0]] == [[b'{"base":2.0,"kind":"linear"}']]
    plain = await desk.create(3)
    (claimed,) = (await desk.take([worker]))[0]
    assert (claimed.n, claimed.backoffs) == (3, [])
    await desk.db.execute("update tasks_live set status = 'PENDING', session = null, stream = null")
    (claimed,) = (await desk.take([worker]))[0]
    known = dict(zip(pairs(worker, [claimed]).ids, claimed.backoffs, strict=True))
    assert [bool(known[id_]) for id_ in (with_one, *plain)] == [True, False, False, False]


async def test_a_suspect_has_its_backoff_and_a_closed_queue_keeps_it(desk: Desk) -> None:
    await desk.create(backoff=Backoff(kind="constant"))
    await desk.db.execute("update tasks_live set crashes = 1, attempt = 1, max_attempts = 5, timeout = 9")
    serves, seats = Serves((("t", 5, 1.0),), None), [await desk.worker()]
    assert await desk.claims.claim_suspects(serves, seats, closed=["default"]) == []
    (claimed,) = await desk.claims.claim_suspects(serves, seats)
    assert claimed.backoffs == [b'{"kind":"constant"}']


@pytest.mark.parametrize("crashes", [0, 1])
async def test_a_backoff_that_nobody_can_read_is_none_and_ends_no_loop(desk: Desk, crashes: int) -> None:
    good, bad = await desk.create(2, backoff=Backoff(kind="linear", base=2.0))
    await desk.db.execute("update tasks_live set max_attempts = 3, timeout = 9, crashes = %s", [crashes])
    await desk.db.execute("""update tasks_live set backoff = '{"base": 1e400}' where id = %s""", [bad])
    seats = [(await desk.worker())._replace(free=5) for _ in range(2)]
    with capture_logs() as lines:
        claimed = await desk.claims.claim_suspects(Serves((("t", 5, 1.0),), None), seats) if crashes else (await desk.take(seats[:1]))[0]
    backoffs = {UUID(bytes=one.ids[16 * n :][:16]): backoff for one in claimed for n, backoff in enumerate(one.backoffs)}
    assert backoffs == {good: b'{"base":2.0,"kind":"linear"}', bad: b""}
    assert [line["task_id"] for line in lines] == [str(bad)]
