"""From an HTTP request to a handler's own span, over processes and time: one trace."""

import socket
import subprocess
import sys
from typing import Any

import aiohttp
import psycopg
from faults.processes import Process, plain_environment
from faults.waiting import now, until
from traces.conftest import Launch
from traces.sink import Sink

from taskrunner import Client, SyncClient
from taskrunner.client import enqueue_sync
from taskrunner.kit.trace import CLOSE

TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{CALLER}-01"
OTHER = f"00-{'1' * 32}-{'2' * 16}-01"


async def api_of(process: Process) -> str:
    return str((await process.said("ready"))["api"])


async def make(api: str, task_type: str, **more: Any) -> dict[str, Any]:
    """Create it in the caller's trace, and wait until it is finished."""
    async with aiohttp.ClientSession(api, headers={"traceparent": PARENT}) as session:
        async with session.post("/api/tasks", json={"task_type": task_type, **more}) as answer:
            assert answer.status == 201
            made = await answer.json()
        async with session.get(f"/api/tasks/{made['id']}", params={"wait": "20"}) as answer:
            found: dict[str, Any] = await answer.json()
            return found


async def ended(process: Process) -> float:
    """How many seconds it took to end after SIGTERM. The collector, which is on our loop, goes on meanwhile."""
    began = now()
    process.popen.terminate()
    assert await until(lambda: process.popen.poll() is not None, within=30, what="its end")
    assert process.popen.returncode == 0, process.log.read_text()
    return now() - began


async def test_a_request_its_task_and_the_handlers_own_spans_are_one_trace(traced: Launch, sink: Sink) -> None:
    """The API and the scheduler in one process, the worker in another one, and its child in a third."""
    office = traced(TASKRUNNER_ROLES="api,scheduler")
    ready = await office.said("ready")
    shop = traced(TASKRUNNER_ROLES="worker", SCHEDULER_ADDRESS=ready["scheduler"])
    processes = {}
    for where in ("loop", "inline", "thread", "child"):
        task = await make(ready["api"], f"trace.{where}")
        assert (task["status"], task["traceparent"][:36]) == ("COMPLETED", f"00-{TRACE}-")
        run = await sink.named(f"run trace.{where}", **{"messaging.message.id": task["id"]})
        own = await sink.named(f"own {where}")
        post = await sink.until(lambda spans, parent=run.parent: next((span for span in spans if span.span == parent), None))
        assert (post.name, post.kind, post.parent) == ("POST /api/tasks", "server", CALLER)
        assert task["traceparent"] == f"00-{TRACE}-{post.span}-01"
        assert (run.kind, run.failed, own.parent) == ("consumer", False, run.span)
        assert {span.trace for span in (post, run, own)} == {TRACE}
        assert run.process == own.process != post.process
        processes[where] = run.process
    assert len(set(processes.values())) == 2, "the child has its own"
    assert processes["loop"].endswith(f":{shop.pid}")
    async with Client(ready["api"]) as client:
        assert len([found async for found in client.list()]) == 4
    got = await sink.named("GET /api/tasks")
    assert got.words["http.response.status_code"] == 200
    below = await sink.until(lambda spans: [span for span in spans if span.parent == got.span])
    assert {(span.kind, span.words["db.system.name"]) for span in below} == {("client", "postgresql")}
    for statement in ("create_tasks", "claim_tasks"):
        found = await sink.named(statement)
        assert (found.parent, found.kind) == ("", "client")
    await ended(shop)
    there = await sink.named("taskrunner.v1.Scheduler/Work", **{"rpc.system": "grpc"})
    await ended(office)
    ends = [span for span in sink.spans if span.name == there.name]
    assert {span.kind for span in ends} == {"client", "server"}
    assert {span.parent for span in ends if span.kind == "server"} == {span.span for span in ends if span.kind == "client"}
    assert {resource["service.name"] for resource in sink.resources} == {"taskrunner"}


async def test_what_went_wrong_shows_and_its_words_do_not(traced: Launch, sink: Sink) -> None:
    api = await api_of(traced())
    assert (await make(api, "trace.fail"))["error"] == "the card 4242 was refused"
    run = await sink.named("run trace.fail")
    assert (run.failed, run.words["error.type"]) == (True, "Fail")
    assert (await make(api, "trace.snooze"))["status"] == "COMPLETED"
    snoozed = await sink.until(lambda spans: len(found := [span for span in spans if span.name == "run trace.snooze"]) == 2 and found)
    assert not any(span.failed for span in snoozed), "a task that waits has not failed"
    assert "was refused" not in repr(sink.spans)


async def test_a_caller_that_does_not_sample_is_obeyed_and_its_trace_is_kept(traced: Launch, sink: Sink) -> None:
    api = await api_of(traced())
    async with (
        aiohttp.ClientSession(api, headers={"traceparent": f"00-{TRACE}-{CALLER}-00"}) as session,
        session.post("/api/tasks", json={"task_type": "trace.loop"}) as answer,
    ):
        quiet = await answer.json()
    assert (quiet["traceparent"][:36], quiet["traceparent"][-3:]) == (f"00-{TRACE}-", "-00")
    await make(api, "trace.inline")
    await sink.named("run trace.inline")
    assert not [span for span in sink.spans if span.name == "run trace.loop" or span.words.get("messaging.message.id") == quiet["id"]]


async def test_a_collector_that_hangs_holds_nobody(launch: Launch) -> None:
    """Neither a request nor the end of the process, beyond a few seconds."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        where = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        process = launch(TASKRUNNER_TRACES="1", OTEL_EXPORTER_OTLP_ENDPOINT=where, OTEL_BSP_SCHEDULE_DELAY="100")
        assert (await make(await api_of(process), "trace.inline"))["status"] == "COMPLETED"
        assert CLOSE <= await ended(process) < CLOSE + 10


async def test_without_traces_the_callers_is_kept_and_nothing_is_imported(launch: Launch, sink: Sink) -> None:
    """The packages are there, and a worker in the process too."""
    api = await api_of(launch(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url))
    task = await make(api, "trace.modules")
    assert (task["result"], task["traceparent"]) == ([], PARENT)
    assert (await make(api, "trace.modules", traceparent=OTHER))["traceparent"] == OTHER, "the task's own word comes first"
    async with aiohttp.ClientSession(api, headers={"traceparent": "00-nonsense"}) as session:
        async with session.post("/api/tasks", json={"task_type": "trace.modules"}) as answer:
            assert (answer.status, (await answer.json())["traceparent"]) == (201, None)
        body = b'{"task_type": "t"}\n' * 2
        headers = {"traceparent": PARENT, "Content-Type": "application/x-ndjson"}
        async with session.post("/api/tasks/batch", data=body, headers=headers) as answer:
            assert answer.status == 201
        async with session.post("/api/tasks/batch", json=[{"task_type": "t"}], headers={"traceparent": PARENT}) as answer:
            assert answer.status == 201
    async with Client(api) as client:
        assert [found.traceparent async for found in client.list(task_type="t")] == [PARENT] * 3
    assert sink.spans == []


def test_without_the_packages_one_line_says_what_to_install() -> None:
    blocked = "import sys; sys.modules['opentelemetry'] = None; from taskrunner.cli import main; sys.exit(main())"
    environment = plain_environment() | {"TASKRUNNER_TRACES": "1", "TASKRUNNER_LOG_FORMAT": "json"}
    done = subprocess.run(
        [sys.executable, "-c", blocked, "--roles=worker"], check=False, capture_output=True, text=True, timeout=30, env=environment
    )
    assert done.returncode == 1
    assert "install opentelemetry-sdk and opentelemetry-exporter-otlp-proto-http, as requirements.txt has them" in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_a_program_with_traces_hands_its_own_on(launch: Launch, dsn: str) -> None:
    """By the client's header and by ``enqueue``, for programs that have OpenTelemetry and are in a span."""
    from opentelemetry import trace

    span = trace.NonRecordingSpan(trace.SpanContext(int(TRACE, 16), int(CALLER, 16), is_remote=False, trace_flags=trace.TraceFlags(1)))
    with SyncClient(await api_of(launch())) as client, psycopg.connect(dsn, autocommit=True) as connection:
        with trace.use_span(span):
            made = [client.create("t").id, enqueue_sync(connection, "t")]
            apart = [enqueue_sync(connection, "t", traceparent=OTHER), client.create("t", traceparent=OTHER).id]
        made += [client.create("t").id, enqueue_sync(connection, "t")]
        assert [client.get(id_).traceparent for id_ in made] == [PARENT, PARENT, None, None]
        assert [client.get(id_).traceparent for id_ in apart] == [OTHER, OTHER]
