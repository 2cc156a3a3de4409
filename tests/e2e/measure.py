"""How long each view takes with 1,000,000 finished and 100,000 pending tasks, and what an open dashboard costs the API's process.

`make bench-dashboard` prints JSON; the figures of docs/dashboard.md are from it.
"""

import argparse
import asyncio
import json
import time
from typing import Any

import psycopg
from aiohttp import ClientSession
from bench.rig import Process, Rig, cost, percentiles, rig
from e2e.town import chromium
from playwright.async_api import Page

URL = "http://127.0.0.1:18080"
VISITS = 8
SECONDS = 20.0
TYPES = (
    "array['send-invoice', 'resize-image', 'charge-card', 'sync-crm', 'webhook', 'email', 'noop', 'report']",
    "array['mail', 'images', 'default', 'payments']",
)
FINISHED = f"""
insert into tasks_finished (id, task_type, queue, payload, status, run_at, created_at, finished_at, epoch, attempt, max_attempts,
  result, error, tags)
select pg_catalog.uuidv7(-age), case when i %% 10000 = 7 then 'rare' else ({TYPES[0]})[1 + i %% 8] end, ({TYPES[1]})[1 + i %% 4],
  jsonb_build_object('order', i, 'note', repeat('x', 60)), status, now() - age, now() - age, now() - age + interval '1 second', 1, 1, 5,
  case when status = 'COMPLETED' then '{{"done": true}}'::jsonb end, case when status = 'FAILED' then 'the bank said no to order ' || i end,
  case when i %% 1000 = 0 then array['vip'] else '{{}}' end
from (select i, (%(n)s - i) * interval '1 day' / %(n)s + interval '1 minute' as age,
  case when i %% 200 = 3 then 'CANCELLED' when i %% 40 = 1 then 'FAILED' else 'COMPLETED' end as status
  from generate_series(1, %(n)s) i) made"""
PENDING = f"""
insert into tasks_live (task_type, queue, payload, run_at)
select case when i %% 2 = 0 then 'unserved' else 'email' end, ({TYPES[1]})[1 + i %% 4], jsonb_build_object('order', i),
  case when i %% 2 = 0 then now() else now() + i * interval '1 second' + interval '1 hour' end from generate_series(1, %(n)s) i"""
COUNTED = """
insert into tally (minute, queue, task_type, outcome, n) select date_trunc('minute', finished_at), queue, task_type, status, count(*)
  from tasks_finished group by 1, 2, 3, 4;
insert into minutes (minute, queue, task_type, measure, bucket, n)
  select minute, queue, task_type, m.measure, m.bucket, n from tally,
    (values ('created', 0), ('start', 30), ('start', 40)) m (measure, bucket)
  where outcome = 'COMPLETED';
insert into failures (hour, task_type, message, n, last_at, example)
  select date_trunc('hour', finished_at), task_type, taskrunner_error_group(error),
  count(*), max(finished_at), (array_agg(id))[1] from tasks_finished where status = 'FAILED' group by 1, 2, 3;
vacuum analyze"""
VIEWS = {
    "overview": "overview",
    "overview of a day": "overview?span=86400",
    "tasks": "tasks",
    "failed tasks": "tasks?status=FAILED",
    "completed tasks of one type": "tasks?status=COMPLETED&task_type=email",
    "tasks of a rare type": "tasks?task_type=rare",
    "tasks with a tag": "tasks?tag=vip",
    "tasks of an error": "tasks?status=FAILED&error=the+bank+said+no+to+order+%23",
    "pending tasks of a queue": "tasks?status=PENDING&queue=mail",
    "errors": "errors",
    "queues": "queues",
    "types": "types",
    "workers": "workers",
    "new task": "new",
}
OPEN = """async (route) => {
  const shown = () => document.querySelector('#view > :not(.skeleton)') && !document.querySelector('#view .skeleton');
  location.hash = '#/workers?' + Math.random();
  await new Promise((done) => setTimeout(done, 150));
  const began = performance.now();
  location.hash = '#/' + route;
  while (!document.querySelector('#view .skeleton') && performance.now() - began < 20) await new Promise((done) => setTimeout(done, 1));
  while (!shown()) await new Promise((done) => setTimeout(done, 1));
  return (performance.now() - began) / 1000;
}"""


async def seeded(rig_: Rig, finished: int, pending: int) -> str:
    """A database with so many tasks."""
    dsn: str = await rig_.database()
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(FINISHED.encode(), {"n": finished})
        connection.execute(PENDING.encode(), {"n": pending})
        for statement in COUNTED.split(";\n"):
            connection.execute(statement.encode())
    return dsn


async def views(page: Page) -> dict[str, dict[str, float]]:
    """Milliseconds from the address to what is shown, view by view, all data included."""
    async with ClientSession(URL) as http, http.get("/api/tasks?status=FAILED&limit=1") as answer:
        routes = {**VIEWS, "task": f"tasks/{(await answer.json())['items'][0]['id']}"}
    return {name: percentiles([float(await page.evaluate(OPEN, route)) for _ in range(VISITS)]) for name, route in routes.items()}


async def load(rate: int, until: float) -> None:
    """Create so many tasks a second, in ten batches a second."""
    async with ClientSession(URL) as http:
        while time.monotonic() < until:
            next_ = time.monotonic() + 0.1
            async with http.post("/api/tasks/batch", json=[{"task_type": "noop", "payload": {"i": -1, "t": 0}}] * (rate // 10)):
                await asyncio.sleep(max(0.0, next_ - time.monotonic()))


async def costs(rig_: Rig, api: Process, pages: list[Page], route: str) -> dict[str, float]:
    """Shares of a core in per cent, at rest and under load."""
    for page in pages:
        await page.goto(f"{URL}/#/{route}")
    await asyncio.sleep(3)
    found: dict[str, float] = {}
    for name, rate in (("at rest", 0), ("at 500 tasks/s", 500)):
        with cost(rig_, api=api) as spent:
            ends = time.monotonic() + SECONDS
            if rate:
                await load(rate, ends)
            else:
                await asyncio.sleep(SECONDS)
        found |= {f"{who} {name}": round(100 * seconds / SECONDS, 1) for who, seconds in spent.items()}
    return found


async def main() -> None:
    """Seed, look, print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--finished", type=int, default=1_000_000)
    parser.add_argument("--pending", type=int, default=100_000)
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    async with rig() as rig_:
        dsn = await seeded(rig_, asked.finished, asked.pending)
        rig_.start("scheduler", dsn=dsn)
        rig_.start("worker", dsn=dsn)
        api = rig_.start("api", dsn=dsn)
        await asyncio.sleep(4)
        async with chromium() as browser:
            page = await browser.new_page()
            await page.goto(f"{URL}/#/workers")
            await page.wait_for_selector("tbody tr")
            found["views, ms"] = await views(page)
            await page.close()
            found["without a page, % of a core"] = await costs(rig_, api, [], "")
            for route in ("overview", "tasks"):
                page = await browser.new_page()
                found[f"with {route} open, % of a core"] = await costs(rig_, api, [page], route)
                await page.close()
    print(json.dumps(found, indent=1))


asyncio.run(main())
