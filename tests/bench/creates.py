"""How fast tasks are created: durably, one by one over many connections, and in arrays of 10,000 against COPY into the same table."""

import json
import subprocess
import sys
import time
import urllib.request
from typing import Any

import psycopg
from rig import HERE, Rig, cost, until

BODY = json.dumps({"task_type": "noop", "payload": {"i": 1, "t": 0, "p": "x" * 55}})


async def singles(rig: Rig, *, connections: int = 64, seconds: float = 6) -> dict[str, Any]:
    """Durable creates over HTTP, the same route where everything but the database is done, and aiohttp with nothing to do."""
    dsn = await rig.database()
    api = rig.start("api", dsn=dsn)
    until(lambda: _up("http://127.0.0.1:18080/readyz"), seconds=20)
    _hammer("/api/tasks", connections, 1)
    with cost(rig, api=api) as cpu:
        durable = _hammer("/api/tasks", connections, seconds)
    with psycopg.connect(dsn, autocommit=True) as connection:
        rows = connection.execute("select count(*) from tasks_live").fetchone()
    rig.stop(api)
    rates = {}
    for name, *rest in (("bare", dsn), ("alone",)):
        server = rig.run(name, [sys.executable, f"{name}.py", "18080", *rest], {})
        until(lambda: _up("http://127.0.0.1:18080/readyz"), seconds=20)
        _hammer("/api/tasks", connections, 1)
        rates[name] = _hammer("/api/tasks", connections, seconds)["rate"]
        rig.stop(server)
    if set(durable["statuses"]) != {"201"} or not rows or rows[0] < durable["statuses"]["201"]:
        raise AssertionError(f"void: {durable}, {rows} rows")
    n = durable["statuses"]["201"]
    micro = {name: round(seconds / n * 1e6, 1) for name, seconds in cpu.items()}
    shares = {"share": durable["rate"] / rates["bare"], "share_of_aiohttp": durable["rate"] / rates["alone"]}
    return {**durable, "without_database": rates["bare"], "aiohttp_alone": rates["alone"], **shares, "cpu_us": micro}


async def arrays(rig: Rig, *, n: int = 100_000) -> dict[str, Any]:
    """Arrays of 10,000 over HTTP, and COPY of the same rows into the same table: rates, the latter by the server's own time."""
    dsn = await rig.database()
    api = rig.start("api", dsn=dsn)
    until(lambda: _up("http://127.0.0.1:18080/readyz"), seconds=20)
    body = json.dumps([json.loads(BODY)] * 10_000).encode()
    _post("/api/tasks/batch", body)
    with cost(rig, api=api) as cpu:
        began = time.perf_counter()
        for _ in range(n // 10_000):
            _post("/api/tasks/batch", body)
        seconds = time.perf_counter() - began
    rig.stop(api)
    payload = json.dumps(json.loads(BODY)["payload"])
    with psycopg.connect(await rig.database(), autocommit=True) as connection:
        lines = f"noop\t{payload}\n".encode() * 10_000
        with cost(rig) as copy_cpu:
            began = time.perf_counter()
            for _ in range(n // 10_000):
                with connection.cursor().copy("copy tasks_live (task_type, payload) from stdin") as copy:
                    copy.write(lines)
            copied = time.perf_counter() - began
    return {
        "rate": n / seconds,
        "copy_rate": n / copied,
        "server_share": copy_cpu["postgres"] / cpu["postgres"],
        "share": (n / seconds) / (n / copied),
        "cpu_us": {name: round(value / n * 1e6, 1) for name, value in cpu.items()},
        "copy_cpu_us": round(copy_cpu["postgres"] / n * 1e6, 1),
    }


def _hammer(path: str, connections: int, seconds: float) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "client.py"), "hammer", "18080", path, BODY, str(connections), str(seconds)]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def _post(path: str, body: bytes) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:18080{path}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        if answer.status != 201:
            raise AssertionError(f"void: answered {answer.status}")
        answer.read()


def _up(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status < 300)
    except OSError:
        return False
