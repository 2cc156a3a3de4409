"""The service on the roles of schema/roles/roles.sql: each process as the one that it needs, and nothing that they do is refused."""

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import psycopg
from faults.cluster import free_ports
from faults.database import Server
from faults.processes import Process
from faults.waiting import until
from system.calls import call

from taskrunner.store import migrate

SCRIPT = Path(__file__).parent.parent.parent / "schema" / "roles" / "roles.sql"
WHO = {"name": "door", "task_types": ["pulled"], "max": 5, "wait": 10}


def stream(api: str, lines: list[dict[str, Any]]) -> int:
    """A stream of tasks; how many were made."""
    body = b"\n".join(json.dumps(line).encode() for line in lines)
    with urlopen(Request(f"{api}/tasks/batch", body, {"Content-Type": "application/x-ndjson"}), timeout=20) as answer:
        return len(answer.read().splitlines())


def over(api: str, operation: str) -> bool:
    """Whether a bulk operation is done. Raises AssertionError for one that failed."""
    found = call("GET", f"{api}/bulk/{operation}")[1]
    assert found["status"] != "FAILED", found
    return bool(found["status"] == "DONE")


async def test_the_service_runs_on_roles_that_may_do_little(plain: Server, launch: Callable[..., Process], tmp_path: Path) -> None:
    await plain.start()
    await migrate.up(plain.dsn)
    async with await psycopg.AsyncConnection.connect(plain.dsn, autocommit=True) as connection:
        await connection.execute(SCRIPT.read_text().encode())
    http, scheduler = free_ports(2)
    dsn = {role: plain.at(plain.port, user=f"taskrunner_{role}") for role in ("scheduler", "api", "enqueue")}
    office = launch("--roles=scheduler", DB_DSN=dsn["scheduler"], SCHEDULER_PORT=str(scheduler), TASKRUNNER_LEASE="3")
    await office.said("ready")
    door = launch("--roles=api", DB_DSN=dsn["api"], HTTP_PORT=str(http), TASKRUNNER_LEASE="3")
    place = {"SCHEDULER_ADDRESS": f"127.0.0.1:{scheduler}", "FAULT_JOURNALS": str(tmp_path)}
    shop = launch("--roles=worker", "--worker-port=0", "--handlers=faults.workload", **place)
    for process, event in ((door, "ready"), (shop, "connected")):
        await process.said(event)
    api = f"http://127.0.0.1:{http}/api"
    ask = partial(call, "GET")
    await until(lambda: ask(f"{api}/readyz")[0] == 200, within=20, what="the API")

    def do(path: str, body: Any = None, method: str = "POST") -> Any:
        status, found = call(method, api + path, {} if body is None and method == "POST" else body)
        assert 200 <= status < 300, (path, found)
        return found

    # Every way in, and every way out.
    work = {"task_type": "work", "payload": {"n": 1, "seconds": 0}}
    with urlopen(f"{api}/events", timeout=20) as events:
        assert events.readline() == b"retry: 2000\n"
        made = [
            do("/tasks", work),
            do("/tasks", work | {"unique_key": "k", "delay": 5}),
            do("/tasks", work | {"unique_key": "k", "on_conflict": "replace"}),
        ]
        made += do("/tasks/batch", [work] * 3)["items"]
        assert stream(api, [work] * 3) == 3
        async with await psycopg.AsyncConnection.connect(dsn["enqueue"], autocommit=True) as connection:
            ((enqueued,),) = await (await connection.execute("select taskrunner_enqueue('work', '{\"n\": 1, \"seconds\": 0}')")).fetchall()
        for id_ in {*(task["id"] for task in made), str(enqueued)}:
            assert do(f"/tasks/{id_}?wait=20", method="GET")["status"] == "COMPLETED"
        assert any(line.startswith(b"event: finished") for line in iter(events.readline, b""))
    later = [do("/tasks", {"task_type": "later", "delay": 3600, "tags": ["t"]})["id"] for _ in range(4)]
    do(f"/tasks/{later[0]}", {"priority": 1}, "PATCH")
    do(f"/tasks/{later[0]}/run")
    do(f"/tasks/{later[0]}/cancel")
    do(f"/tasks/{later[0]}/retry")
    do(f"/tasks/{later[0]}/cancel")
    assert call("POST", f"{api}/tasks/{later[0]}/cancel")[0] == 409
    for verb in ("cancel", "retry", "cancel", "delete"):
        operation = do(f"/tasks/bulk/{verb}", {"task_type": "later"})["id"]
        await until(partial(over, api, operation), within=20, what=f"the end of {verb}")
    assert do("/tasks?task_type=later", method="GET")["items"] == []
    for path in ("/queues/x", "/types/x"):
        do(f"{path}/pause")
        do(f"{path}/resume")
    for path in ("/queues", "/types", "/workers", "/stats", "/errors"):
        do(path, method="GET")

    # A worker over HTTP, and one that dies.
    task = do("/tasks", {"task_type": "pulled", "max_attempts": 2})["id"]
    for outcome in ("RETRY", "FAILED"):
        claim = do("/work/claim", WHO)
        (one,) = claim["tasks"]
        do("/work/beat", {"session": claim["session"], "running": [[one["id"], one["epoch"]]]})
        said = {"id": one["id"], "epoch": one["epoch"], "outcome": outcome, "error": "no", "delay": 0 if outcome == "RETRY" else None}
        do("/work/settle", {"session": claim["session"], "outcomes": [said]})
    assert do(f"/tasks/{task}", method="GET")["status"] == "FAILED"
    with urlopen(Request(f"{api}/tasks/{task}", method="DELETE"), timeout=20) as answer:
        assert answer.status == 204
    lost = do("/tasks", {"task_type": "work", "payload": {"n": 2, "seconds": 1}, "max_attempts": 3})["id"]
    await until(lambda: do(f"/tasks/{lost}", method="GET")["status"] != "PENDING", within=20, what="a claim")
    shop.kill()
    launch("--roles=worker", "--worker-port=0", "--handlers=faults.workload", **place)
    found = do(f"/tasks/{lost}?wait=30", method="GET")
    assert (found["status"], found["attempt"]) == ("COMPLETED", 2)

    refused = re.compile("permission denied|must be owner")
    for log in (office.log, door.log, *(tmp_path / "postgres").glob("*.log")):
        assert [line for line in log.read_text().splitlines() if refused.search(line)] == [], log
