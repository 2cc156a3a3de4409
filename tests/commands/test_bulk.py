"""``taskrunner task cancel`` and ``retry`` of all that fit, and ``task errors``."""

import asyncio
import json
import signal

import pytest
from api.door import Api
from commands.shell import Do, terminal


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be changed is tried again soon."""
    monkeypatch.setattr("taskrunner.api.bulk.LOOK", 0.3)


async def fail(api: Api, n: int, error: str, task_type: str = "x") -> None:
    """``n`` tasks that failed so, counted as a settle counts them."""
    for _ in range(n):
        task = (await api.create(task_type=task_type))["id"]
        await api.finish(task, "FAILED", error=error)
        await api.sql(
            "insert into failures (hour, task_type, message, n, last_at, example) "
            "values (date_trunc('hour', now()), %s, taskrunner_error_group(%s), 1, now(), %s)",
            *(task_type, error, task),
        )


async def statuses(api: Api, where: str = "true") -> set[str]:
    return {row[0] for row in await api.sql(f"select status from tasks where {where}")}


async def test_errors_by_kind_and_their_retry(do: Do, api: Api) -> None:
    await fail(api, 3, "no order 4711\x1b[H")
    await fail(api, 1, "no stock", "y")
    code, out, _ = await do("errors")
    assert (code, [row.split()[0] for row in out.splitlines()]) == (0, ["COUNT", "3", "1"])
    assert out.splitlines()[1].endswith("no order #\\x1b[H")
    kinds = [json.loads(line) for line in (await do("errors", "--json", "--task-type=x"))[1].splitlines()]
    assert [(kind["count"], kind["message"]) for kind in kinds] == [(3, "no order #\x1b[H")]
    assert len((await do("list", f"--error={kinds[0]['message']}"))[1].splitlines()) == 3
    code, out, err = await do("retry", f"--error={kinds[0]['message']}", "--task-type=x", "--yes")
    assert (code, out, err) == (0, "3 tasks made to run again", "")
    assert (await statuses(api, "task_type = 'x'"), await statuses(api, "task_type = 'y'")) == ({"PENDING"}, {"FAILED"})


async def test_nothing_is_changed_unless_it_was_said(do: Do, api: Api) -> None:
    task = await api.create(queue="q")
    assert (await do("cancel"))[::2] == (2, "taskrunner: give IDs, or filters that say which tasks to cancel\n")
    assert (await do("cancel", task["id"], "--queue=q"))[::2] == (2, "taskrunner: give IDs, or filters; not both\n")
    assert (await do("cancel", "--queue=q"))[::2] == (2, "taskrunner: this would cancel 1 task: say --yes to do it\n")
    assert await statuses(api) == {"PENDING"}


async def test_on_a_terminal_it_asks_and_shows_how_far_it_is(api: Api) -> None:
    await api.sql(
        "insert into tasks_live (task_type, queue, payload, run_at) "
        "select 'x', 'q', '1', now() + interval '1 h' from generate_series(1, 3000)"
    )
    words = ("task", "cancel", "--queue=q", f"--api-url={api.http._base_url}")
    for keys, code in ((b"n\n", 1), (b"y\n", 0)):
        async with terminal(*words) as it:
            await it.sees("cancel 3,000 tasks? [y/N]")
            it.press(keys)
            async with asyncio.timeout(20):
                assert await it.process.wait() == code
    await it.sees("3,000 tasks cancelled")
    assert "tasks done" in it.shown.decode()
    assert await statuses(api) == {"CANCELLED"}


async def test_ctrl_c_is_a_no(api: Api) -> None:
    await api.create(queue="q")
    async with terminal("task", "cancel", "--queue=q", f"--api-url={api.http._base_url}") as it:
        await it.sees("[y/N]")
        it.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(10):
            assert await it.process.wait() == 130
    assert await statuses(api) == {"PENDING"}


async def test_what_could_not_be_changed_is_a_failure(do: Do, api: Api) -> None:
    task = (await api.create(unique_key="k"))["id"]
    await api.finish(task, "FAILED", error="no")
    await api.create(unique_key="k")
    code, out, _ = await do("retry", "--status=FAILED", "--yes", "--json")
    assert (code, json.loads(out)["failed"], json.loads(out)["status"]) == (1, 1, "DONE")
