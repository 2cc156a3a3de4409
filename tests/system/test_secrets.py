"""What nobody should read in a log is not in it: everything runs at the level debug, is given markers wherever a secret may stand, and is
asked for what goes wrong, too.
"""

import json
import socket
from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from faults.cluster import free_ports
from faults.database import Server
from faults.processes import Process
from faults.waiting import until

SECRET = "hunter2secret"
TOKEN = f"token-{SECRET}-0123456789"
ENDS = ("return", "fail", "nul", "huge", "raise")
HEAD = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}


def call(api: str, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = Request(api + path, data, {**HEAD, **headers}, method=method)
    try:
        with urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def raw(port: int, *lines: str) -> None:
    """A request as no client sends it."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall("\r\n".join((*lines, "", "")).encode("latin-1"))
        connection.recv(1 << 16)


async def test_no_secret_is_in_a_log(plain: Server, launch: Callable[..., Process]) -> None:
    await plain.start()
    http, scheduler = free_ports(2)
    environment = {
        "DB_DSN": plain.dsn.replace("postgres@", f"postgres:password{SECRET}@"),
        "HTTP_PORT": str(http),
        "SCHEDULER_PORT": str(scheduler),
        "TASKRUNNER_API_TOKENS": TOKEN,
        "TASKRUNNER_API_TOKEN": TOKEN,
        "TASKRUNNER_WEBHOOK_SECRET": "whsec_" + SECRET.ljust(32, "x"),
        "TASKRUNNER_WEBHOOK_ALLOW": "127.0.0.0/8",
        "TASKRUNNER_SMTP_URL": f"smtp://me:{SECRET}@127.0.0.1:9",
    }
    one = launch("--worker-port=0", "--log-level=debug", "--handlers=system.secret_tasks", "--max-attempts=1", **environment)
    await one.said("ready")
    await one.said("connected")
    ask = partial(call, f"http://127.0.0.1:{http}/api")

    # What is wrong with a request is said to its sender, not to the log.
    for body in (f'{{"task_type": "{SECRET}'.encode(), {"task_type": "x", "payload": SECRET, "priority": 9, SECRET: 1}, [SECRET]):
        assert ask("POST", "/tasks", body)[0] in (400, 422)
    assert ask("POST", "/tasks/batch", [{"task_type": "x", "payload": SECRET}, {"task_type": SECRET * 90}])[0] == 422
    assert ask("POST", "/tasks/batch", f'{{"payload": "{SECRET}"}}\n'.encode(), **{"Content-Type": "application/x-ndjson"})[0] == 422
    assert ask("GET", "/tasks", Authorization=f"Bearer {SECRET}")[0] == 401
    assert ask("POST", "/session", {"token": SECRET})[0] == 401
    assert ask("POST", "/session", {"token": TOKEN})[0] == 200
    assert ask("GET", f"/tasks?cursor={SECRET}&nope={SECRET}")[0] == 400
    raw(http, "GET /api/tasks HTTP/1.1", "Host: x", f"Authorization: Bearer {SECRET}\0{SECRET}")
    raw(http, "GET /api/tasks HTTP/1.1", f"Cookie {SECRET}")
    raw(http, f"{SECRET}")

    # Tasks that end in every way.
    address = f"http://127.0.0.1:{http}/api/healthz?token={SECRET}"
    tasks = [{"task_type": "secret", "payload": {"marker": SECRET, "end": end}, "callback_url": address} for end in ENDS]
    tasks += [{"task_type": name, "payload": {"marker": SECRET}} for name in ("secret-thread", "secret-child")]
    tasks += [{"task_type": "webhook", "payload": {"url": address, "method": "GET", "headers": {"X-Key": SECRET}, "body": {"a": SECRET}}}]
    tasks += [{"task_type": "webhook", "payload": {"url": f"http://127.0.0.1:9/{SECRET}"}}]
    tasks += [{"task_type": "email", "payload": {"to": "a@example.com", "subject": SECRET, "message": SECRET}}]
    status, made = ask("POST", "/tasks/batch", tasks)
    assert status == 201
    ids = [item["id"] for item in made["items"]]
    ended = [ask("GET", f"/tasks/{id_}?wait=30")[1] for id_ in ids]
    assert [task["status"] for task in ended[: len(ENDS)]] == ["COMPLETED", "FAILED", "FAILED", "FAILED", "FAILED"], ended
    assert {task["status"] for task in ended} == {"COMPLETED", "FAILED"}
    assert SECRET in json.dumps(ended[4]["error"]), "who may see it, sees it"

    # The database goes away in the middle, and comes back.
    await plain.crash()
    assert ask("POST", "/tasks", {"task_type": "secret", "payload": {"marker": SECRET}})[0] == 503
    await plain.start()
    await until(lambda: ask("GET", "/readyz")[0] == 200, within=20, what="the API")
    one.popen.terminate()
    assert await one.ended(within=40) == 0

    text = one.log.read_text()
    assert len(one.events()) > 5, "at the level debug there is something to read"
    assert [line for line in text.splitlines() if SECRET in line] == []
    assert "request failed" in text, "what went wrong was said"
