"""A worker and a real scheduler on a real database: every kind of ending arrives."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import UUID

import pytest
from pydantic import SecretStr
from worker.shop import settings, until

from taskrunner.domain.lifecycle import Status
from taskrunner.domain.task import NewTask, Task
from taskrunner.scheduler import role as scheduler
from taskrunner.settings import Settings
from taskrunner.store.tasks import Store, open_store
from taskrunner.worker import role as worker


@pytest.fixture
def known(dsn: str) -> Settings:
    return settings(db_dsn=SecretStr(dsn), scheduler_port=0, handlers="worker.wire_tasks,worker.child_tasks", lease=2, slots=20)


@pytest.fixture
async def store(known: Settings, dsn: str) -> AsyncIterator[Store]:
    async with open_store(dsn, known) as opened:
        yield opened


async def create(store: Store, task_type: str, *payloads: object, max_attempts: int | None = None) -> list[UUID]:
    made = await store.create([NewTask(task_type=task_type, payload=json.dumps(one), max_attempts=max_attempts) for one in payloads])
    return [one.id for one in made]


async def reaches(store: Store, id_: UUID, *statuses: Status) -> Task:
    async def look() -> Task:
        found = await store.get(id_)
        assert found is not None
        return found

    return await until(look, lambda task: task.status in statuses, 15)


async def test_every_ending_arrives(store: Store, known: Settings, tmp_path: Path) -> None:
    async with scheduler.serve(known, store) as office, worker.serve(known, (office.address,)):
        many = await create(store, "wire.echo", *range(1_500))
        (fail,), (child,) = await create(store, "child.fail", 0), await create(store, "child.echo", "c")
        (dies,) = await create(store, "child.exit", 3, max_attempts=1)
        (long,) = await create(store, "wire.sleep", 60)
        (soon,) = await create(store, "wire.wait", str(tmp_path / "go"))
        assert (await reaches(store, child, Status.COMPLETED)).result is not None
        failed, died = await reaches(store, fail, Status.FAILED), await reaches(store, dies, Status.FAILED)
        assert (failed.error, died.error) == ("no such customer", "the child process ended with exit code 3")
        await reaches(store, long, Status.RUNNING)
        await store.cancel(long)
        await reaches(store, long, Status.CANCELLED)
        await reaches(store, soon, Status.RUNNING)
        (tmp_path / "go").touch()
        assert (await reaches(store, soon, Status.COMPLETED)).result == '"seen"'
        for id_ in many:
            await reaches(store, id_, Status.COMPLETED)


async def test_a_scheduler_that_goes_away_re_runs_nothing(store: Store, known: Settings, tmp_path: Path, unused_tcp_port: int) -> None:
    go, later = tmp_path / "go", known.model_copy(update={"scheduler_port": unused_tcp_port})
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(scheduler.serve(known, store))
        async with worker.serve(known, (first.address, f"127.0.0.1:{unused_tcp_port}")):
            (id_,) = await create(store, "wire.wait", str(go))
            await reaches(store, id_, Status.RUNNING)
            async with scheduler.serve(later, store):
                await stack.aclose()
                (next_one,) = await create(store, "wire.echo", 1)
                await reaches(store, next_one, Status.COMPLETED)
                go.touch()
                task = await reaches(store, id_, Status.COMPLETED)
                assert (task.attempt, task.result) == (1, '"seen"')


async def test_what_a_leaving_worker_could_not_finish_keeps_its_attempts(store: Store, known: Settings) -> None:
    async with scheduler.serve(known, store) as office:
        async with worker.serve(known.model_copy(update={"grace": 0.1}), (office.address,)):
            (id_,) = await create(store, "wire.sleep", 3)
            await reaches(store, id_, Status.RUNNING)
        async with asyncio.timeout(5), worker.serve(known, (office.address,)):
            assert (await reaches(store, id_, Status.RUNNING)).attempt == 1
