"""Plain functions in threads, and handlers in child processes."""

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from worker import child_tasks
from worker.bench import Bench, key, open_bench

from taskrunner.sdk import Context, task
from taskrunner.wire.pb.taskrunner.v1 import Outcome
from taskrunner.worker import frames

VARIABLE: contextvars.ContextVar[int] = contextvars.ContextVar("VARIABLE")
IN_CHILDREN = [value for value in vars(child_tasks).values() if hasattr(value, "__taskrunner_handler__")]


@task("thread")
def in_thread(ctx: Context, payload: int) -> dict[str, Any]:
    before = VARIABLE.get(None)
    VARIABLE.set(payload)
    return {"thread": threading.current_thread().name, "payload": payload, "before": before}


@task("obedient")
def obedient(ctx: Context, payload: Any) -> str:
    while not ctx.cancelled:
        time.sleep(0.002)
    return "obeyed"


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def running(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.executor.floor.running))


async def test_plain_functions_run_in_threads_that_are_used_again() -> None:
    async with open_bench(in_thread, slots=3) as bench:
        done = await bench.outcomes(bench.give("thread", *range(100)))
    assert [one.result["payload"] for one in done] == list(range(100))
    assert {one.result["before"] for one in done} == {None}
    assert 1 <= len({one.result["thread"] for one in done}) <= 3


async def test_threads_block_neither_each_other_nor_the_loop() -> None:
    barrier = threading.Barrier(4, timeout=5)

    @task("meet")
    def meet(ctx: Context, payload: Any) -> int:
        return barrier.wait()

    async with open_bench(meet, slots=4) as bench:
        done = await bench.outcomes(bench.give("meet", *range(4)))
    assert sorted(one.result for one in done) == [0, 1, 2, 3]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError("bad"), StopIteration()])
async def test_what_a_thread_raises_is_an_outcome(error: BaseException) -> None:
    @task("raise")
    def raise_(ctx: Context, payload: Any) -> None:
        raise error

    async with open_bench(raise_, in_thread, slots=1) as bench:
        done = await bench.run("raise")
        assert (done.outcome, done.error.partition(":")[0]) == (Outcome.RETRY, type(error).__name__)
        assert (await bench.run("thread", 1)).outcome is Outcome.COMPLETED


async def test_a_cancelled_function_that_looks_and_returns_has_obeyed() -> None:
    async with open_bench(obedient) as bench:
        (id_,) = bench.give("obedient", 1)
        await running(bench)
        bench.executor.cancel({key(id_)})
        (done,) = await bench.outcomes([id_])
        assert (done.outcome, done.result) == (Outcome.CANCELLED, None)


async def test_a_function_that_never_looks_has_finished() -> None:
    began, release = threading.Event(), threading.Event()

    @task("blind")
    def blind(ctx: Context, payload: Any) -> str:
        began.set()
        release.wait(5)
        return "done"

    async with open_bench(blind) as bench:
        (id_,) = bench.give("blind", 1)
        await bench.until(began.is_set)
        bench.executor.cancel({key(id_)})
        release.set()
        (done,) = await bench.outcomes([id_])
        assert (done.outcome, done.result) == (Outcome.COMPLETED, "done")


@pytest.mark.parametrize("threads", [0, 1])
async def test_threads_that_cannot_be_started_cost_no_worker(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    """As under a limit of processes. What is over before a thread has time for it is not begun."""
    began, release, start = [], threading.Event(), threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        if thread.name.startswith("handler-") and thread.name != f"handler-{threads}":
            raise RuntimeError("can't start new thread")
        start(thread)

    @task("wait")
    def wait(ctx: Context, payload: int) -> None:
        began.append(payload)
        release.wait(5)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", limited)
        async with open_bench(wait, slots=4) as bench:
            first, second, third = bench.give("wait", 1, 2, 3)
            if threads:
                await bench.until(lambda: began == [1])
                bench.executor.cancel({key(second)})
                release.set()
            done = await bench.outcomes([first, second, third])
            if threads:
                assert ([one.outcome for one in done], began) == ([Outcome.COMPLETED, Outcome.CANCELLED, Outcome.COMPLETED], [1, 3])
            else:
                assert {(one.outcome, one.error) for one in done} == {
                    (Outcome.RETRY, "a thread could not be started: can't start new thread")
                }
            patched.undo()
            release.set()
            assert (await bench.run("wait", 4)).outcome is Outcome.COMPLETED


async def test_a_thread_that_overruns_is_reported_at_its_deadline_and_keeps_its_slot() -> None:
    release, saw = threading.Event(), threading.Event()

    @task("deaf")
    def deaf(ctx: Context, payload: Any) -> None:
        release.wait(10)
        if ctx.cancelled:
            saw.set()

    async with open_bench(deaf, slots=3) as bench:
        began = time.monotonic()
        done = await bench.run("deaf", timeout=0.1)
        assert (done.outcome, done.error) == (Outcome.RETRY, "timed out after 0.1 s")
        assert 0.09 < time.monotonic() - began < 1
        assert bench.session.flow.capacity()[0] == 2
        release.set()
        await bench.until(lambda: bench.session.flow.capacity()[0] == 3)
        assert saw.is_set()


async def test_children_are_processes_that_are_kept_and_print_as_they_like() -> None:
    async with open_bench(*IN_CHILDREN, modules=[child_tasks.__name__], slots=1) as bench:
        ids = bench.give("child.echo", {"a": 1}, "b")
        first, second = await bench.outcomes(ids)
        assert (first.result["payload"], second.result["payload"]) == ({"a": 1}, "b")
        assert first.result["pid"] == second.result["pid"] != os.getpid()
        assert (first.result["task_id"].replace("-", ""), first.result["attempt"], first.result["queue"]) == (ids[0].hex(), 1, "default")
        assert (await bench.run("child.async", {"number": 5})).result == 5
        assert (await bench.run("child.async", {"number": "x"})).outcome is Outcome.FAILED
        assert len((await bench.run("child.result", 900_000)).result) == 900_000
        assert (await bench.run("child.result", 2_000_000)).error.startswith("the handler succeeded, but")
        fail, retry, error, left = [await bench.run(f"child.{name}", 3) for name in ("fail", "retry", "error", "sysexit")]
        assert (fail.outcome, fail.error) == (Outcome.FAILED, "no such customer")
        assert (retry.outcome, retry.error, retry.delay) == (Outcome.RETRY, "busy", 7)
        assert (error.outcome, error.error, "LookupError" in error.traceback) == (Outcome.RETRY, "LookupError: not here", True)
        assert (left.outcome, left.error) == (Outcome.RETRY, "SystemExit: 3")
        pid = first.result["pid"]
        assert (await bench.run("child.echo")).result["pid"] == pid
    assert not alive(pid)


async def test_a_child_that_dies_costs_an_attempt_and_no_more(tmp_path: Path) -> None:
    async with open_bench(*IN_CHILDREN, modules=[child_tasks.__name__], slots=1) as bench:
        exited, crashed = await bench.run("child.exit", 7), await bench.run("child.segfault")
        assert (exited.outcome, exited.error) == (Outcome.RETRY, "the child process ended with exit code 7")
        assert (crashed.outcome, crashed.error) == (Outcome.RETRY, "the child process was killed by SIGSEGV")
        pid = tmp_path / "pid"
        orphaned = await bench.run("child.orphan", str(pid))  # the grandchild holds the socket open, and dies too
        assert orphaned.error == "the child process was killed by SIGKILL"
        assert (await bench.run("child.echo", 1)).result["payload"] == 1
        await bench.until(lambda: not alive(int(pid.read_text())))


async def test_what_nobody_expects_of_a_child_costs_an_attempt_and_no_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise TypeError("this is not JSON")

    monkeypatch.setattr(sys, "path", [*sys.path, Path("/nowhere")])
    async with open_bench(*IN_CHILDREN, modules=[child_tasks.__name__], slots=1) as bench:
        for _ in ("a new child", "a warm one"):
            with monkeypatch.context() as patched:
                patched.setattr(frames, "send", broken)
                done = await bench.run("child.echo")
            assert (done.outcome, done.error) == (Outcome.RETRY, "TypeError: this is not JSON")
            pid = (await bench.run("child.echo")).result["pid"]
            ours = [one for one in psutil.process_iter(["cmdline", "ppid"]) if one.info["ppid"] == os.getpid()]
            assert [one.pid for one in ours if "taskrunner.worker.child" in (one.info["cmdline"] or ())] == [pid]


async def test_a_child_that_overruns_is_killed_at_its_deadline(tmp_path: Path) -> None:
    async with open_bench(*IN_CHILDREN, modules=[child_tasks.__name__], slots=1) as bench:
        await bench.run("child.echo")  # a warm one, so that the deadline meets the loop and not the start
        began = time.monotonic()
        done = await bench.run("child.spin", timeout=0.3)
        assert (done.outcome, done.error) == (Outcome.RETRY, "timed out after 0.3 s")
        assert (await bench.run("child.echo", 1)).result["payload"] == 1
        assert time.monotonic() - began < 0.3 + 2


async def test_a_cancelled_child_gets_a_moment_and_then_sigkill(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    async with open_bench(*IN_CHILDREN, modules=[child_tasks.__name__], slots=1) as bench:
        (id_,) = bench.give("child.deaf", str(pid))
        await bench.until(lambda: pid.exists() and pid.read_text() != "")
        began = time.monotonic()
        bench.executor.cancel({key(id_)})
        (done,) = await bench.outcomes([id_])
        assert done.outcome is Outcome.CANCELLED
        assert 0.9 < time.monotonic() - began < 2
        assert not alive(int(pid.read_text()))


async def test_children_do_not_outlive_a_worker_that_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    program = f"""
import asyncio
from worker import child_tasks
from worker.bench import open_bench

async def main():
    async with open_bench(child_tasks.deaf, modules=["worker.child_tasks"]) as bench:
        await bench.run("child.deaf", {str(pid)!r})

asyncio.run(main())
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", program], env=env) as worker:
        try:
            async with asyncio.timeout(20):
                while not pid.exists() or not pid.read_text():
                    await asyncio.sleep(0.02)
        finally:
            worker.kill()
    async with asyncio.timeout(2):
        while alive(int(pid.read_text())):
            await asyncio.sleep(0.02)
