"""What changes between the moment at which a statement looks and the one at which it writes, and between a write and its answer."""

import asyncio
from dataclasses import replace

import pytest
from store.desk import Desk, opened, until_blocked

from taskrunner.domain.errors import OutcomeUnknown
from taskrunner.domain.task import Answer, IdempotencyKey, NewTask
from taskrunner.store.keyed import Request
from taskrunner.store.settling import GIVEN_BACK

TASK = NewTask(task_type="t", payload="1")

# In this database only: whoever reads the sessions first waits for a lock of ours, with its snapshot taken.
WAITING = """
alter table sessions rename to all_sessions;
create function turn() returns boolean language plpgsql as $f$ begin perform pg_advisory_xact_lock(7); return true; end $f$;
create view sessions as select s.* from (select turn() as mine offset 0) t cross join all_sessions s
"""


async def test_what_moves_on_while_it_is_taken_back_stays_where_it_is(desk: Desk) -> None:
    """A worker that is declared dead gives its task back at the last moment, and another one has it when it would be taken back."""
    await desk.upkeep.make_leaves()
    held = await desk.held(started=True)
    living = await desk.worker()
    await desk.db.execute("update sessions set status = 'DEAD', dead_at = clock_timestamp() where id = %s", (held.session,))
    await desk.db.execute(WAITING)
    async with desk.db.transaction():
        await desk.db.execute("select pg_advisory_xact_lock(7)")
        reaping = asyncio.ensure_future(desk.sessions.take_back())
        await until_blocked(desk)
        assert not (await desk.settling.settle(GIVEN_BACK, held.back())).stale_ids
        await desk.db.execute(
            "update tasks_live set status = 'QUEUED', epoch = epoch + 1, attempt = attempt + 1, session = %s, stream = 1", (living.session,)
        )
    assert await reaping == (0, [])
    row = await desk.row(held.ids[0])
    assert (row["status"], row["session"], row["crashes"]) == ("QUEUED", living.session, 0)


async def test_a_create_without_an_answer_is_never_sent_again(desk: Desk) -> None:
    """Nobody knows whether it is there: to say so is all that we may do. Here the connection is killed by the first insert only."""
    await desk.db.execute("create sequence shots")
    await desk.db.execute(
        "create function shoot() returns trigger language plpgsql as"
        " $f$ begin if nextval('shots') = 1 then perform pg_terminate_backend(pg_backend_pid()); end if; return new; end $f$"
    )
    await desk.db.execute("create trigger shoot before insert on tasks_live for each row execute function shoot()")
    with pytest.raises(OutcomeUnknown):
        await desk.store.create([TASK])
    assert await desk.rows("select last_value from shots") == [{"last_value": 1}]
    assert len(await desk.store.create([TASK])) == 1


async def test_a_commit_waits_for_the_disk_on_every_connection(desk: Desk) -> None:
    """Whatever else our sessions set."""
    (before,) = await desk.rows("select setting from pg_settings where name = 'synchronous_commit'")
    async with desk.store.pool.connection() as connection:
        row = await (await connection.execute("select setting, source from pg_settings where name = 'synchronous_commit'")).fetchone()
    assert row is not None
    assert row[0] == before["setting"]
    assert row[1] != "session"


@pytest.mark.parametrize("table", ["tasks_live", "idempotency_keys"])
async def test_two_batches_that_name_their_keys_in_opposite_orders_take_turns(desk: Desk, dsn: str, table: str) -> None:
    """Each inserts its first key before the other one has inserted its second."""
    await desk.db.execute(
        "create function slow() returns trigger language plpgsql as"
        " $f$ begin perform pg_advisory_xact_lock_shared(7); perform pg_sleep(0.2); return new; end $f$"
    )
    await desk.db.execute(f"create trigger slow before insert on {table} for each row execute function slow()")

    def request(name: str) -> Request:
        if table == "tasks_live":
            return Request(replace(TASK, unique_key=name), None)
        return Request(TASK, IdempotencyKey(name, b"body"))

    async with opened(dsn) as other:
        async with desk.db.transaction():
            await desk.db.execute("select pg_advisory_xact_lock(7)")
            asking = [
                asyncio.ensure_future(one.store.create_each([request(name) for name in names], patient=True))
                for one, names in ((desk, "ab"), (other, "ba"))
            ]
            await until_blocked(desk, 2)
        answers = [await ask for ask in asking]
    made = {answer.created[0].id for batch in answers for answer in batch if isinstance(answer, Answer)}
    assert len(made) == 2
