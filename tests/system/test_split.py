"""Each role in processes of its own, on a plain PostgreSQL, named by the environment."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from faults.cluster import free_ports
from faults.database import Server
from faults.processes import Process
from faults.waiting import until
from system.calls import call

Launch = Callable[..., Process]
MANY = 1_000


def journal_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in folder.iterdir() for line in path.read_text().splitlines()]


async def test_a_thousand_tasks_run_once_on_three_workers(plain: Server, launch: Launch, tmp_path: Path) -> None:
    await plain.start()
    http, scheduler, *workers = free_ports(5)
    journals = tmp_path / "journals"
    journals.mkdir()
    office = launch("--roles=scheduler", DB_DSN=plain.dsn, SCHEDULER_PORT=str(scheduler))
    await office.said("ready")
    door = launch("--roles=api", DB_DSN=plain.dsn, HTTP_PORT=str(http))
    shops = [
        launch(
            *("--roles=worker", "--slots=10", "--handlers=faults.workload"),
            WORKER_PORT=str(port), SCHEDULER_ADDRESS=f"127.0.0.1:{scheduler}", FAULT_JOURNALS=str(journals),
        )
        for port in workers
    ]  # fmt: skip
    for process in (door, *shops):
        await process.said("ready")
    for shop in shops:
        await shop.said("connected")
    api = f"http://127.0.0.1:{http}/api"
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")

    tasks = [{"task_type": "work", "payload": {"n": n, "seconds": 0.02}} for n in range(MANY)]
    status, created = call("POST", f"{api}/tasks/batch", tasks)
    assert (status, len(created["items"])) == (201, MANY)
    await until(lambda: call("GET", f"{api}/stats")[1]["tasks"]["COMPLETED"] == MANY, within=30, what=f"{MANY} completed tasks")

    starts = [entry for entry in journal_of(journals) if entry["event"] == "start"]
    assert {entry["task"] for entry in starts} == {item["id"] for item in created["items"]}
    assert len(starts) == MANY, "each once"
    share = Counter(entry["holder"] for entry in starts)
    assert set(share) == {shop.pid for shop in shops}, "every worker takes part"
    _, sample = call("GET", f"{api}/tasks/{created['items'][7]['id']}")
    assert (sample["status"], sample["attempt"], sample["result"]) == ("COMPLETED", 1, {"n": 7})

    for shop in shops:
        links = [connection.raddr for connection in psutil.Process(shop.pid).net_connections("tcp") if connection.status == "ESTABLISHED"]
        assert {link.port for link in links} == {scheduler}, "a worker talks to schedulers and to nobody else"
    assert {process.pid for process in (office, door)} >= {
        connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.raddr and connection.raddr.port == plain.port and connection.pid
    } - {psutil.Process().pid}


async def test_the_order_of_starts_does_not_matter(plain: Server, launch: Launch, tmp_path: Path) -> None:
    http, scheduler = free_ports(2)
    shop = launch(
        *("--roles=worker", "--handlers=faults.workload", "--worker-port=0"),
        SCHEDULER_ADDRESS=f"127.0.0.1:{scheduler}", FAULT_JOURNALS=str(tmp_path),
    )  # fmt: skip
    door = launch("--roles=api", DB_DSN=plain.dsn, HTTP_PORT=str(http))
    office = launch("--roles=scheduler", DB_DSN=plain.dsn, SCHEDULER_PORT=str(scheduler))
    await shop.said("ready")
    await door.said("ready")
    await office.said("waiting for the database")
    api, task = f"http://127.0.0.1:{http}/api", {"task_type": "work", "payload": {"n": 1, "seconds": 0}}
    for method, path, body in (("GET", "/healthz", None), ("GET", "/readyz", None), ("POST", "/tasks", task)):
        status, said = call(method, api + path, body)
        assert (status, bool(said["error"])) == (503, True), path
    await plain.start()
    await office.said("ready")
    await shop.said("connected")
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    status, created = call("POST", f"{api}/tasks", task)
    assert status == 201
    assert call("GET", f"{api}/tasks/{created['id']}?wait=20")[1]["status"] == "COMPLETED"


async def test_an_api_without_the_schema_says_so(plain: Server, launch: Launch) -> None:
    await plain.start()
    (http,) = free_ports(1)
    door = launch("--roles=api", DB_DSN=plain.dsn, HTTP_PORT=str(http))
    await door.said("ready")
    api = f"http://127.0.0.1:{http}/api"
    assert call("GET", f"{api}/healthz")[0] == 200, "the database answers"
    for method, path in (("GET", "/readyz"), ("GET", "/stats"), ("POST", "/tasks")):
        status, said = call(method, api + path, {"task_type": "work"} if method == "POST" else None)
        assert (status, "schema" in said["error"]) == (503, True), (path, said)
    office = launch("--roles=scheduler", "--scheduler-port=0", DB_DSN=plain.dsn)
    await office.said("ready")
    await until(lambda: call("GET", f"{api}/readyz")[0] == 200, within=20, what="the API")
    assert call("POST", f"{api}/tasks", {"task_type": "work"})[0] == 201
