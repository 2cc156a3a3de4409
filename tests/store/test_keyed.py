"""Unique keys and idempotency keys: what is sent twice is made once."""

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from store.desk import Desk, T, opened, until_blocked

from taskrunner.domain.errors import BadTask, Conflict, Entangled, KeyInFlight, KeyReused
from taskrunner.domain.task import Answer, Created, IdempotencyKey, NewTask, OnConflict
from taskrunner.store.keyed import Request
from taskrunner.store.settling import COMPLETED


def task(key: str | None, on_conflict: OnConflict = "return", **fields: Any) -> NewTask:
    return NewTask(**{"task_type": "t", "payload": "1", "unique_key": key, "on_conflict": on_conflict, **fields})


def key(name: str, body: bytes = b"body") -> IdempotencyKey:
    return IdempotencyKey(name, body)


async def each(desk: Desk, *asked: NewTask | tuple[NewTask, IdempotencyKey], **how: bool) -> Sequence[Answer | Conflict | KeyReused]:
    requests = [Request(one, None) if isinstance(one, NewTask) else Request(*one) for one in asked]
    return await desk.store.create_each(requests, **how)


def only(answer: Answer | Conflict | KeyReused) -> Created:
    assert isinstance(answer, Answer), answer
    (created,) = answer.created
    return created


async def test_a_key_is_unique_among_live_tasks(desk: Desk) -> None:
    (first,) = await each(desk, task("k"))
    (second,) = await each(desk, task("k", payload="2"))
    assert only(second) == only(first)._replace(deduplicated=True)
    held = await desk.claim(await desk.worker(), 1)
    assert only((await each(desk, task("k")))[0]).id == held.ids[0]
    await desk.settling.settle(COMPLETED, held.done())
    (third,) = await each(desk, task("k"))
    assert not only(third).deduplicated
    assert len(await desk.rows("select from tasks where unique_key = 'k'")) == 2


async def test_of_equal_keys_in_one_batch_the_first_wins(desk: Desk) -> None:
    answers = await each(desk, *(task(name, payload=str(n)) for n, name in enumerate("abab")), task(None, payload="9"))
    created = [only(answer) for answer in answers]
    assert [one.deduplicated for one in created] == [False, False, True, True, False]
    assert [created[0].id, created[1].id] == [created[2].id, created[3].id]
    assert sorted((row["payload"] for row in await desk.rows("select payload from tasks")), key=int) == [0, 1, 9]


async def test_reject_names_the_holder(desk: Desk) -> None:
    (first,) = await each(desk, task("k"))
    refused, other = await each(desk, task("k", "reject"), task("other", "reject"))
    assert isinstance(refused, Conflict)
    assert str(only(first).id) in str(refused)
    assert not only(other).deduplicated


async def test_replace_changes_all_but_the_identity_of_a_waiting_one(desk: Desk) -> None:
    created = only((await each(desk, task("k", max_attempts=3)))[0])
    await desk.db.execute("update tasks_live set attempt = 2, crashes = 1, error = 'e', epoch = 4")
    (answer,) = await each(desk, task("k", "replace", task_type="u", payload="2", queue="q", priority=1, delay=60.0, tags=("x",)))
    assert only(answer).id == created.id
    row = await desk.row(created.id)
    assert [row[name] for name in ("task_type", "payload", "queue", "priority", "tags", "max_attempts")] == ["u", 2, "q", 1, ["x"], None]
    assert [row[name] for name in ("attempt", "crashes", "error", "epoch", "created_at")] == [0, 0, None, 4, created.created_at]
    assert row["run_at"] > created.run_at


async def test_postpone_only_moves_a_waiting_one_to_later(desk: Desk) -> None:
    created = only((await each(desk, task("k", delay=100.0)))[0])
    assert only((await each(desk, task("k", "postpone", delay=10.0, payload="2")))[0]).run_at == created.run_at
    assert only((await each(desk, task("k", "postpone", delay=1000.0, payload="2")))[0]).run_at > created.run_at
    assert (await desk.row(created.id))["payload"] == 1


@pytest.mark.parametrize("how", ["replace", "postpone"])
async def test_what_a_worker_holds_is_not_changed(desk: Desk, how: OnConflict) -> None:
    held = await desk.held(unique_key="k")
    (answer,) = await each(desk, task("k", how))
    assert isinstance(answer, Conflict)
    assert str(held.ids[0]) in str(answer)
    assert "QUEUED" in str(answer)


async def test_several_changes_of_one_holder_take_turns(desk: Desk) -> None:
    answers = await each(desk, *(task("k", "replace", payload=str(n)) for n in range(20)), task("k", "postpone", delay=50.0))
    assert len({only(answer).id for answer in answers}) == 1
    (row,) = await desk.rows("select * from tasks")
    assert row["payload"] == 19
    assert row["run_at"] > row["created_at"]


async def test_a_batch_is_all_or_nothing(desk: Desk) -> None:
    await each(desk, task("taken"))
    with pytest.raises(Conflict, match="^/1: the live task"):
        await desk.store.create([task("a"), task("taken", "reject"), task(None)])
    with pytest.raises(BadTask) as caught:
        await desk.store.create([task("a"), task(None), task("b", timeout=1e-300)])
    assert caught.value.index == 2
    assert len(await desk.rows("select from tasks")) == 1
    made = await desk.store.create([task("a"), task("taken"), task(None), task("a")])
    assert [one.deduplicated for one in made] == [False, True, False, True]


async def test_a_replaced_task_is_claimed_where_it_now_is(desk: Desk) -> None:
    await each(desk, task("k", delay=3600.0))
    await each(desk, task("k", "replace", queue="q"))
    assert len((await desk.claim(await desk.worker(), 5, lane=T._replace(queue="q"))).ids) == 1


async def test_fifty_at_once_make_one_task(desk: Desk, dsn: str) -> None:
    async def ask(store: Any, n: int) -> Answer | Conflict | KeyReused:
        with_key = Request(task(None), key("i")) if n % 2 else Request(task("u"), None)
        (answer,) = await store.create_each([with_key], patient=True)
        return answer

    async with opened(dsn) as other, asyncio.TaskGroup() as group:
        asks = [group.create_task(ask((desk, other)[n % 4 < 2].store, n)) for n in range(100)]
    unique, idempotent = ([only(ask.result()) for ask in asks[start::2]] for start in (0, 1))
    assert len({one.id for one in unique}) == len({one.id for one in idempotent}) == 1
    assert sum(not one.deduplicated for one in unique) == 1
    assert sum(isinstance(ask.result(), Answer) and ask.result().replayed for ask in asks[1::2]) == 49
    assert len(await desk.rows("select from tasks")) == 2


async def test_batches_with_the_same_keys_in_any_order_never_deadlock(desk: Desk, dsn: str) -> None:
    names = [f"k{n}" for n in range(30)]
    shuffle = random.Random(5).sample
    hows: list[OnConflict] = ["return", "replace", "postpone"]

    async def batch(store: Any, round_: int) -> None:
        asked = [(task(f"u{name}", hows[round_ % 3]), key(f"i{round_}{name}")) for name in shuffle(names, 30)]
        answers = await store.create_each([Request(*one) for one in asked], patient=True)
        assert not [answer for answer in answers if isinstance(answer, KeyReused)]

    async with opened(dsn) as other, opened(dsn) as third:
        for round_ in range(30):
            async with asyncio.TaskGroup() as group:
                for one in (desk, other, third):
                    group.create_task(batch(one.store, round_))
            held = await desk.claim(await desk.worker(), 10)
            await desk.settling.settle(COMPLETED, held.done())
    (row,) = await desk.rows("select deadlocks from pg_stat_database where datname = current_database()")
    assert row["deadlocks"] == 0
    assert len(await desk.rows("select from tasks_live")) <= 30


async def test_the_first_answer_comes_again_for_the_same_body_only(desk: Desk) -> None:
    (first,) = await each(desk, (task(None), key("i")))
    await desk.db.execute("truncate tasks_live")
    again, other = await each(desk, (task(None), key("i")), (task(None), key("i", b"other")))
    assert again == Answer([only(first)], replayed=True)
    assert isinstance(other, KeyReused)
    assert await desk.rows("select from tasks") == []


async def test_twins_in_one_batch_get_one_answer(desk: Desk) -> None:
    first, second, other = await each(desk, *((task(None), key("i", body)) for body in (b"a", b"a", b"b")))
    assert second == Answer([only(first)], replayed=True)
    assert isinstance(other, KeyReused)
    assert len(await desk.rows("select from tasks")) == 1


async def test_what_was_refused_may_be_sent_again_with_its_key(desk: Desk) -> None:
    (first,) = await each(desk, task("k"))
    (refused,) = await each(desk, (task("k", "reject"), key("i")))
    assert isinstance(refused, Conflict)
    await desk.store.cancel(only(first).id)
    (made,) = await each(desk, (task("k", "reject"), key("i")))
    assert isinstance(made, Answer)
    assert not made.replayed


async def test_a_batch_has_a_key_too(desk: Desk) -> None:
    tasks = [task(None), task("u"), task("u")]
    first = await desk.store.create_once(tasks, key("i"))
    assert await desk.store.create_once(tasks, key("i")) == Answer(first.created, replayed=True)
    with pytest.raises(KeyReused):
        await desk.store.create_once(tasks, key("i", b"other"))
    assert len(await desk.rows("select from tasks")) == 2
    with pytest.raises(Conflict):
        await desk.store.create_once([task("u", "reject")], key("j"))
    assert len(await desk.rows("select from idempotency_keys")) == 1


async def test_a_request_waits_for_the_first_one_with_its_key(desk: Desk, dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as first:
        await first.execute("insert into idempotency_keys (key, fingerprint, answer) values ('i', 'body', '[]')")
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(each(desk, (task(None), key("i")), patient=True))
            await until_blocked(desk)
            await first.commit()
        assert asking.result() == [Answer([], replayed=True)]


async def test_a_request_that_waits_too_long_is_told_so_and_does_not_keep_others_waiting(
    desk: Desk, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskrunner.store.keyed.PATIENCE", "set local lock_timeout = '0.3s'")
    async with await psycopg.AsyncConnection.connect(dsn) as first:
        await first.execute("insert into idempotency_keys (key, fingerprint) values ('i', 'body')")
        with pytest.raises(Entangled):
            await each(desk, (task(None), key("i")), task("u"))
        with pytest.raises(KeyInFlight):
            await each(desk, (task(None), key("i")), patient=True)
        assert only((await each(desk, task("u"), patient=True))[0])


async def test_keys_are_kept_for_a_day(desk: Desk) -> None:
    await each(desk, (task(None), key("old")), (task(None), key("new")))
    await desk.db.execute("update idempotency_keys set created_at = now() - interval '24 hours 1 second' where key = 'old'")
    assert await desk.upkeep.forget_keys() == 1
    assert [row["key"] for row in await desk.rows("select key from idempotency_keys")] == ["new"]


async def test_a_retry_by_hand_that_finds_its_key_taken_names_the_holder(desk: Desk) -> None:
    held = await desk.held(unique_key="k")
    await desk.settling.settle(COMPLETED, held.done())
    (answer,) = await each(desk, task("k"))
    with pytest.raises(Conflict, match=f"the live task {only(answer).id} has this task's unique_key"):
        await desk.store.retry(held.ids[0])
