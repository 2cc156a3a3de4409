"""Server-sent events: what comes, from where it goes on, and who is dropped."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
import pytest
from aiohttp import ClientResponse, ClientTimeout
from api.door import Api, answers, problem, until

from taskrunner.api import events
from taskrunner.api.feed import BUFFER, GLIMPSE, Listener, cursor_of, place_of
from taskrunner.api.filters import EventQuery
from taskrunner.api.role import serve
from taskrunner.domain.lifecycle import Status
from taskrunner.settings import Settings
from taskrunner.store.events import Happened, Place

BEGINNING = cursor_of(Place(datetime(1970, 1, 1, tzinfo=UTC), UUID(int=0)))


@asynccontextmanager
async def listening(api: Api, query: str = "", last: str | None = None) -> AsyncIterator[ClientResponse]:
    headers = {"Last-Event-ID": last} if last else {}
    async with api.http.get(f"/api/events{query}", headers=headers, timeout=ClientTimeout(sock_read=30)) as answer:
        assert (answer.status, answer.content_type, answer.headers["Cache-Control"]) == (200, "text/event-stream", "no-cache")
        assert await answer.content.readline() == b"retry: 2000\n"
        yield answer


async def heard(answer: ClientResponse, n: int, kind: str = "finished") -> list[dict[str, Any]]:
    """The next ``n`` events of a kind: their data, with the id in ``cursor``."""
    found: list[dict[str, Any]] = []
    event: dict[str, str] = {}
    while len(found) < n:
        line = (await answer.content.readline()).decode().rstrip("\n")
        name, _, value = line.partition(": ")
        if name:
            event[name] = value
        elif "data" in event:
            if event["event"] == kind:
                found.append(json.loads(event["data"]) | {"cursor": event.get("id")})
            event = {}
    return found


async def cancelled(api: Api, **fields: Any) -> str:
    task = await api.create(**fields)
    async with api.http.post(f"/api/tasks/{task['id']}/cancel") as answer:
        assert answer.status == 200
    return str(task["id"])


async def test_what_finishes_is_told_in_order_to_everyone_who_wants_it(api: Api) -> None:
    async with listening(api, "?status=CANCELLED") as everything, listening(api, "?queue=q&tag=a&tag=b&status=CANCELLED") as some:
        ids = [await cancelled(api, queue=queue, tags=tags) for queue in ("q", "p") for tags in (["b", "c", "a"], ["a"])]
        found = await heard(everything, 4)
        assert [event["id"] for event in found] == ids
        assert {event["status"] for event in found} == {"CANCELLED"}
        assert "payload" not in found[0]
        assert [event["id"] for event in await heard(some, 1)] == ids[:1]


async def test_a_stream_goes_on_behind_the_last_event(api: Api) -> None:
    ids = [await cancelled(api) for _ in range(3)]
    async with listening(api, last=BEGINNING) as first:
        events_ = await heard(first, 3)
    assert [event["id"] for event in events_] == ids
    missed = await cancelled(api)
    async with listening(api, last=events_[1]["cursor"]) as again:
        assert [event["id"] for event in await heard(again, 2)] == [ids[2], missed]
        later = await cancelled(api)
        found = [event["id"] for event in await heard(again, 1)]
        assert found in ([later], [missed])  # the last one may come twice


async def test_live_tasks_are_sampled(api: Api) -> None:
    async with listening(api, "?status=RUNNING") as running, listening(api, "?status=PENDING") as waiting:
        await until(lambda: asked(api, "from tasks_live where session is not null"))  # the first sample is only remembered
        task = await api.create()
        assert [event["id"] for event in await heard(waiting, 1, "live")] == [task["id"]]
        await api.hold(task["id"])
        (event,) = await heard(running, 1, "live")
    assert (event["id"], event["status"], event["attempt"], event["cursor"]) == (task["id"], "RUNNING", 1, None)


async def test_a_sample_is_small_however_much_happens_and_takes_nothing_from_those_who_want_all(api: Api) -> None:
    """Alone it is read in glimpses, and what lies between is skipped; beside others it is cut off what they read."""
    await api.make_leaves()
    made = (
        "insert into tasks (task_type, payload, status, finished_at) "
        "select 'x', '{}', 'COMPLETED', clock_timestamp() from generate_series(1, %s)"
    )
    async with listening(api, "?sample=true&status=COMPLETED,CANCELLED") as some:
        await until(lambda: asked(api, "from tasks_finished"))
        await api.sql(made, 4 * GLIMPSE)
        first = await heard(some, GLIMPSE)
        assert {event["cursor"] for event in first} == {None}
        last = await cancelled(api)
        assert [event["id"] for event in await heard(some, 1)] == [last]
        async with listening(api, "?status=COMPLETED") as everything:
            await api.sql(made, 4 * GLIMPSE)
            assert len({event["id"] for event in await heard(everything, 4 * GLIMPSE)}) == 4 * GLIMPSE
            await heard(some, GLIMPSE)
            last = await cancelled(api)
            assert [event["id"] for event in await heard(some, 1)] == [last]


async def asked(api: Api, words: str) -> bool:
    """Whether the last statement on some connection of the API has these words."""
    text = "select 1 from pg_stat_activity where datname = current_database() and strpos(query, %s) > 0 and pid <> pg_backend_pid()"
    return bool(await api.sql(text, words))


async def test_nothing_is_told_before_what_finished_earlier_can_be_seen(api: Api) -> None:
    """A transaction that began earlier and commits later: its task comes first all the same, and is not skipped."""
    slow, quick = await api.create(), await api.create()
    async with listening(api, "?status=CANCELLED") as stream, await psycopg.AsyncConnection.connect(api.dsn) as open_:
        await open_.execute("select now(), pg_current_xact_id()")
        async with api.http.post(f"/api/tasks/{quick['id']}/cancel") as answer:
            assert answer.status == 200
        await open_.execute("update tasks set status = 'CANCELLED', finished_at = now() where id = %s", [slow["id"]])
        await asyncio.sleep(0.3)
        await open_.commit()
        assert [event["id"] for event in await heard(stream, 2)] == [slow["id"], quick["id"]]


async def test_a_silent_stream_shows_that_it_lives_and_nobody_asks_without_listeners(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "HEARTBEAT", 0.05)
    async with listening(api, "?queue=nothing") as answer:
        assert await answer.content.readline() == b"\n"
        assert await answer.content.readline() == b": still here\n"

    async def quiet() -> bool:
        return not await asked(api, "from tasks_finished")

    await until(quiet)


async def test_streams_end_with_the_service(api: Api) -> None:
    async with serve(Settings(http_port=0, grace=30), api.store) as door:
        await until(lambda: answers(api.http, f"{door.url}/readyz"))
        stream = await api.http.get(f"{door.url}/api/events")
    assert (await stream.content.read()).startswith(b"retry: 2000\n")


async def test_wrong_words_are_refused_and_head_does_not_stream(api: Api) -> None:
    for query, headers in (("?state=x", {}), ("?status=DONE", {}), ("", {"Last-Event-ID": "7"}), ("", {"Last-Event-ID": "7" * 32})):
        async with api.http.get(f"/api/events{query}", headers=headers) as answer:
            assert (answer.status, (await problem(answer))["code"]) == (400, "invalid_parameter")
    async with api.http.head("/api/events") as answer:
        assert (answer.status, answer.content_type) == (200, "text/event-stream")


async def test_a_listener_that_does_not_keep_up_is_dropped_with_bounded_memory() -> None:
    listener = Listener(EventQuery(), payloads=True)
    for _ in range(3):
        listener.offer(b"x" * (BUFFER // 3))
    assert not listener.over
    listener.offer(b"xx")
    assert listener.over
    assert len(await listener.next(1)) == BUFFER // 3 * 3
    listener.offer(b"x")
    assert await listener.next(0.01) == b""


def test_a_listener_wants_what_fits_all_of_its_words() -> None:
    now = datetime.now(UTC)
    one = Happened(
        id=UUID(int=1),
        task_type="x",
        queue="q",
        status=Status.FAILED,
        tags=["a", "b"],
        attempt=1,
        error="no",
        progress=None,
        progress_message=None,
        created_at=now,
        updated_at=now,
        finished_at=now,
    )
    for wants, words in [
        (True, {}),
        (True, {"status": ("FAILED",), "task_type": "x", "queue": "q", "tag": ("a", "b")}),
        (False, {"status": ("COMPLETED",)}),
        (False, {"task_type": "y"}),
        (False, {"queue": "p"}),
        (False, {"tag": ("a", "c")}),
    ]:
        assert Listener(EventQuery(**words), payloads=True).wants(one) is wants


def test_a_cursor_is_its_place_and_nothing_else_is_one() -> None:
    place = Place(datetime(2026, 11, 24, 8, 25, 12, 123456, tzinfo=UTC), UUID(int=2**128 - 1))
    assert place_of(cursor_of(place)) == place
    assert [place_of(text) for text in ("", "x", "é", "A" * 31, "7" * 32)] == [None] * 5
