"""A worker over HTTP, as anybody would write it in any language: ``python pull_worker.py URL JOURNAL``."""

import json
import os
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

URL, JOURNAL = sys.argv[1:]
SLOTS = 5
held: dict[str, int] = {}  # id: epoch, until its settle is answered
state: dict[str, Any] = {"session": None, "lease": 1.0}


def call(what: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{URL}/api/work/{what}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


def beat() -> None:
    while True:
        time.sleep(state["lease"] / 5)
        if state["session"] and not call("beat", {"session": state["session"], "running": [*held.items()]})["alive"]:
            os._exit(1)  # its tasks run elsewhere


def run(task: dict[str, Any]) -> None:
    with Path(JOURNAL).open("a", buffering=1) as journal:
        journal.write(f"start {task['id']} {os.getpid()}\n")
        time.sleep(task["payload"]["seconds"])
        journal.write(f"done {task['id']} {os.getpid()}\n")
    outcome = {"id": task["id"], "epoch": task["epoch"], "outcome": "COMPLETED", "result": {"n": task["payload"]["n"]}}
    call("settle", {"session": state["session"], "outcomes": [outcome]})
    del held[task["id"]]


threading.Thread(target=beat, daemon=True).start()
with ThreadPoolExecutor(SLOTS) as slots:
    while True:
        free = SLOTS - len(held)
        if not free:
            time.sleep(0.01)
            continue
        asked = {"name": f"pull:{os.getpid()}", "task_types": ["work"], "max": free, "wait": 0.5}
        state |= (answer := call("claim", asked | ({"session": state["session"]} if state["session"] else {})))
        held |= {task["id"]: task["epoch"] for task in answer["tasks"]}
        for task in answer["tasks"]:
            slots.submit(run, task)
