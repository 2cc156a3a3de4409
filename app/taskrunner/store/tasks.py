"""The store: what the API asks of the database, one method a statement."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import fields
from time import monotonic
from typing import Any, TypeAlias
from uuid import UUID

from psycopg import errors
from psycopg.rows import class_row
from psycopg_pool import AsyncConnectionPool

from taskrunner.domain.errors import Conflict, Entangled, KeyInFlight, KeyReused, TaskrunnerError
from taskrunner.domain.lifecycle import FINISHED
from taskrunner.domain.task import Answer, Count, Created, FailedAttempt, IdempotencyKey, Lane, NewTask, Task, TaskFilter
from taskrunner.kit.loops import start
from taskrunner.settings import Settings
from taskrunner.store import keyed, leaves
from taskrunner.store.columns import Uuids
from taskrunner.store.copying import copy_plain
from taskrunner.store.creating import BAD_DATA, by_lane, culprit, insert_plain
from taskrunner.store.meter import Meter
from taskrunner.store.migrate import newest_version
from taskrunner.store.minutes import Minutes
from taskrunner.store.notify import Hints
from taskrunner.store.pool import Connection, Line, open_pool, translated
from taskrunner.store.queries import sql

# Creates tasks that workers begin at once, as ``Store.create``; None when not all of them can.
Direct: TypeAlias = Callable[[Sequence[NewTask]], Awaitable[list[Created] | None]]
_ATTEMPT = [field.name for field in fields(FailedAttempt)]


@asynccontextmanager
async def open_store(dsn: str, settings: Settings) -> AsyncIterator["Store"]:
    """The store of this process, with its pool and its sender of hints. It opens whether or not the database is there yet."""
    async with open_pool(dsn, traces=settings.traces, shared=settings.pgbouncer) as pool:
        hint_line = Line(pool, setup="set synchronous_commit = off")  # a hint need not survive a crash, nor wait for the disk
        store = Store(pool, Hints(hint_line), dsn=dsn, settings=settings)
        try:
            async with asyncio.TaskGroup() as group:
                loops = start(group, {"hints": store.hints.run(), "minutes": store.minutes.run()})
                yield store
                for loop in loops:
                    loop.cancel()
            with suppress(TaskrunnerError):  # they are only counts
                await store.minutes.flush()
        finally:
            await hint_line.close()


class Store:
    """Tasks, as the API sees them. Every method raises Unavailable while the database is away."""

    def __init__(self, pool: AsyncConnectionPool[Connection], hints: Hints, *, dsn: str, settings: Settings) -> None:
        self.pool = pool
        self.hints = hints
        self.meter = Meter()
        self.minutes = Minutes(pool, self.meter)
        self.dsn = dsn
        self.settings = settings
        self.settled: list[Callable[[bytes], None]] = []  # told the column of ids of each batch that this process settles
        self.direct: Direct | None = None  # the way of a scheduler in this process
        self._ready = False

    def collector(self) -> Any:
        """What this process does with the database, as metrics; imported when somebody wants them."""
        from taskrunner.store.metrics import StoreMetrics

        return StoreMetrics(self.meter, self.pool)

    async def ping(self) -> None:
        """Return when the database answers."""
        with translated():
            async with self.pool.connection() as connection:
                await connection.execute("select 1")

    async def ready(self) -> bool:
        """Whether the schema is there, at the version that this process knows or a newer one."""
        if not self._ready:
            with translated():
                async with self.pool.connection() as connection:
                    try:
                        row = await (await connection.execute(sql("schema_version"))).fetchone()
                    except errors.UndefinedTable:
                        return False
            self._ready = row is not None and (row[0] or 0) >= newest_version()
        return self._ready

    async def create(self, tasks: Sequence[NewTask]) -> list[Created]:
        """Write ``tasks``, all or none, in one commit, and hint at them; without unique keys in one statement.

        Raises BadTask for the first one that the database refuses, Conflict for one whose unique key forbids it (then none is written),
        OutcomeUnknown when the commit got no answer.
        """
        if any(task.unique_key is not None for task in tasks):
            return (await self.create_once(tasks, None)).created
        if self.direct is not None and (started := await self.direct(tasks)) is not None:
            return started
        with translated(writes=True), self.meter.creates.timed(len(tasks)):
            async with self.pool.connection() as connection:
                created = await insert_plain(connection, tasks)
        self.hint(tasks, created)
        return created

    async def create_parts(self, parts: Iterable[Sequence[NewTask]]) -> list[Created]:
        """As ``create``, for many tasks without unique keys that are still being made: the database writes one part while the next is made.

        What ``parts`` raises is raised, and nothing is written.
        """
        tasks: list[NewTask] = []
        began = 0.0

        def kept() -> Iterator[Sequence[NewTask]]:
            nonlocal began
            began = monotonic()  # the database has just said what time it is
            for part in parts:
                tasks.extend(part)
                yield part

        taking = kept()
        created = None
        with translated(writes=True), self.meter.creates.timed():
            async with self.pool.connection() as connection:
                with suppress(*BAD_DATA):
                    created = await copy_plain(connection, taking)
        if created is None:
            for _ in taking:  # the rest of them
                pass
            return await self.create(tasks)  # which finds out which one is to blame
        self.meter.creates.tasks.observe(len(tasks))
        self.hint(tasks, created, passed=monotonic() - began)
        return created

    async def create_once(self, tasks: Sequence[NewTask], key: IdempotencyKey | None) -> Answer:
        """As ``create``, or the answer that a request with this key got before. Raises KeyReused and KeyInFlight besides."""
        with translated(writes=True):
            async with self.pool.connection() as connection:
                answer = await keyed.create_together(connection, tasks, key)
        if not answer.replayed:
            self.hint(tasks, answer.created)
        return answer

    async def create_each(self, requests: Sequence[keyed.Request], *, patient: bool = False) -> list[Answer | Conflict | KeyReused]:
        """Requests of one task each, in one commit: what becomes of each of them.

        Raises Entangled, unless ``patient``, when one of them keeps the others from being written.
        """
        with translated(writes=True):
            async with self.pool.connection() as connection:
                try:
                    answers = await keyed.create_each(connection, requests, patient=patient)
                except (*keyed.HELD_UP, *BAD_DATA, KeyInFlight) as error:
                    if not patient:
                        raise Entangled("a request of the batch holds up the others") from error
                    if isinstance(error, BAD_DATA):
                        raise await culprit(connection, [request.task for request in requests], error, "create_unique") from error
                    raise
        for (task, _), answer in zip(requests, answers, strict=True):
            if isinstance(answer, Answer) and not answer.replayed:
                self.hint([task], answer.created)
        return answers

    def hint(self, tasks: Sequence[NewTask], created: Sequence[Created], *, passed: float = 0.0) -> None:
        """Say what there is now, ``passed`` seconds after ``created_at``."""
        for lane, (first, n) in by_lane(tasks, created).items():
            self.hints.lane(lane, first.run_at, (first.run_at - first.created_at).total_seconds() - passed, n)
            self.meter.create(lane.queue, lane.task_type, n)

    async def get(self, id: UUID) -> Task | None:  # noqa: A002 — the column's name
        """The task, wherever it is in its life."""
        with translated():
            async with self.pool.connection() as connection, connection.cursor(row_factory=class_row(Task)) as cursor:
                return await (await cursor.execute(sql("get_task"), {"id": id})).fetchone()

    async def get_many(self, ids: Sequence[UUID]) -> list[Task]:
        """Those of ``ids`` that there are, in any order. A batch is planned as it is: a plan from when the table was small would stay."""
        if len(ids) == 1:
            task = await self.get(ids[0])
            return [] if task is None else [task]
        with translated():
            async with self.pool.connection() as connection, connection.cursor(row_factory=class_row(Task)) as cursor:
                return await (await cursor.execute(sql("get_tasks"), {"ids": [*ids]}, prepare=False)).fetchall()

    async def attempts(self, ids: Sequence[UUID]) -> dict[UUID, list[FailedAttempt]]:
        """The attempts of these tasks that did not succeed, oldest first, for each task that has any."""
        found: dict[UUID, list[FailedAttempt]] = {}
        with translated():
            async with self.pool.connection() as connection:
                rows = await (await connection.execute(sql("get_attempts"), {"ids": [*ids]}, prepare=False)).fetchall()
        for id, *values in rows:  # noqa: A001 — the column's name
            found.setdefault(id, []).append(FailedAttempt(**dict(zip(_ATTEMPT, values, strict=True))))
        return found

    async def finished(self, ids: bytes) -> bytes:
        """Those of ``ids`` (a column) that are finished, or gone."""
        with translated():
            async with self.pool.connection() as connection:
                row = await (await connection.execute(sql("finished_tasks"), {"ids": Uuids(ids)}, binary=True)).fetchone()
        assert row is not None  # an aggregate
        return bytes(row[0])

    async def counts(self) -> list[Count]:
        """Tasks by status: live ones as they are, finished ones within retention."""
        with translated():
            async with self.pool.connection() as connection, connection.cursor(row_factory=class_row(Count)) as cursor:
                return await (await cursor.execute(sql("count_tasks"))).fetchall()

    async def cancel(self, id: UUID) -> Task | None:  # noqa: A002
        """Cancel a task: at once when PENDING; a held one is marked, and its worker told.

        None: there is none. Raises Conflict when it is finished.
        """
        for _ in range(3):  # it may be claimed or given back between the two statements
            callback = await self._change("cancel_pending", id)
            if callback is not None:
                self.meter.end(callback[-1])
                if callback[0] is not None:
                    self.hints.lane(Lane(*callback[:3]), callback[3], 0.0)
                return await self.get(id)
            held = await self._change("request_cancel", id)
            if held is not None:
                self.hints.cancel(held[0])
                return await self.get(id)
            task = await self.get(id)
            if task is None or task.status in FINISHED:
                break
        if task is not None:
            raise Conflict(f"the task is {task.status} already")
        return None

    async def retry(self, id: UUID) -> Task | None:  # noqa: A002
        """Run a finished task again, with a new budget of attempts. None: there is none. Raises Conflict when it is not finished."""
        try:
            lane = await self._change("retry_task", id)
        except errors.UniqueViolation:
            raise Conflict(f"the live task {await self._holder(id)} has this task's unique_key") from None
        return await self._claimable(id, lane, "is not finished: it is {status}")

    async def _holder(self, id: UUID) -> UUID | None:  # noqa: A002
        """The live task that has the unique key of this one."""
        task = await self.get(id)
        with translated():
            async with self.pool.connection() as connection:
                keys = [task.unique_key] if task else []
                row = await (await connection.execute(sql("unique_holders"), {"unique_keys": keys}, prepare=False)).fetchone()
        return row[1] if row else None

    async def run_now(self, id: UUID) -> Task | None:  # noqa: A002
        """Make a PENDING task due now. None: there is none. Raises Conflict when it is not PENDING."""
        return await self._claimable(id, await self._change("run_task_now", id), "is not waiting: it is {status}")

    async def _claimable(self, id: UUID, lane: tuple[Any, ...] | None, conflict: str) -> Task | None:  # noqa: A002
        task = await self.get(id)
        if lane is not None:
            self.hints.lane(Lane(*lane[:3]), lane[3], 0.0)
        elif task is not None:
            raise Conflict("the task " + conflict.format(status=task.status))
        return task

    async def _change(self, name: str, id: UUID) -> tuple[Any, ...] | None:  # noqa: A002
        """One move of one task; None when no row was in the state for it."""
        with translated(writes=True):
            async with self.pool.connection() as connection:
                rows = await leaves.with_leaves(connection, sql(name), {"id": id})
        return rows[0] if rows else None

    async def list(self, which: TaskFilter) -> list[Task]:
        """Tasks that fit, newest first."""
        parameters = _words(which) | {"before": which.before}
        with translated():
            async with self.pool.connection() as connection, connection.cursor(row_factory=class_row(Task)) as cursor:
                return await (await cursor.execute(sql("list_tasks"), parameters, prepare=False)).fetchall()

    async def count(self, which: TaskFilter) -> int:
        """How many tasks fit; at most ``which.limit`` are counted."""
        with translated():
            async with self.pool.connection() as connection:
                row = await (await connection.execute(sql("count_matching"), _words(which), prepare=False)).fetchone()
        assert row is not None  # an aggregate
        return int(row[0])


def _words(which: TaskFilter) -> dict[str, Any]:
    return {
        "limit": which.limit,
        "statuses": [status.value for status in which.statuses] or None,
        "task_type": which.task_type,
        "queue": which.queue,
        "tags": [*which.tags] or None,
        "created_after": which.created_after,
        "created_before": which.created_before,
        "error": which.error,
    }
