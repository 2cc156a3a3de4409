"""F37: whatever a handler returns or raises, its task reaches a terminal state and says why, and the worker goes on."""

import asyncio
import json
from itertools import product

from pydantic import SecretStr
from worker.hostile_tasks import ERRORS, RESULTS
from worker.shop import settings, until

from taskrunner.domain.lifecycle import FINISHED, Status
from taskrunner.domain.task import NewTask, Task
from taskrunner.scheduler import role as scheduler
from taskrunner.store.tasks import open_store
from taskrunner.worker import role as worker

STORED = {"NaN": "[null, null, null]", "lies": '"x"'}
SAID = {
    "10 MB": ("10,000,002 bytes", "ValueError: xxx"),
    "NUL": ("U+0000", "ValueError: a\N{REPLACEMENT CHARACTER}b"),
    "rude": ("", "Rude: (its message cannot be shown)"),
}


async def test_f37_every_result_and_every_error_in_every_isolation(dsn: str) -> None:
    known = settings(db_dsn=SecretStr(dsn), scheduler_port=0, handlers="worker.hostile_tasks,worker.wire_tasks", lease=5, slots=10)
    cases = [*product(("loop", "thread", "process"), [("result", name) for name in RESULTS] + [("error", name) for name in ERRORS])]
    async with open_store(dsn, known) as store, scheduler.serve(known, store) as office, worker.serve(known, (office.address,)):
        made = await store.create(
            [NewTask(task_type=f"hostile.{where}", payload=json.dumps({kind: name})) for where, (kind, name) in cases]
        )

        async def look() -> list[Task]:
            return await store.get_many([one.id for one in made])

        found = {one.id: one for one in await until(look, lambda tasks: all(task.status in FINISHED for task in tasks), 50)}
        for one, (where, (kind, name)) in zip(made, cases, strict=True):
            ended = found[one.id]
            if kind == "result" and name in STORED:
                assert (ended.status, ended.result) == (Status.COMPLETED, STORED[name]), (where, name)
                continue
            assert ended.status == Status.FAILED, (where, kind, name, ended)
            assert ended.error, (where, kind, name)
            assert len(ended.error) <= 2_000
            assert SAID.get(name, ("", ""))[kind == "error"] in ended.error, (where, kind, name)
            assert kind == "error" or "its result cannot be stored" in ended.error
        (honest,) = await store.create([NewTask(task_type="wire.echo", payload="1")])
        async with asyncio.timeout(10):
            while (after := await store.get(honest.id)) is None or after.status != Status.COMPLETED:
                await asyncio.sleep(0.01)
