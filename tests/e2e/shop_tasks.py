"""What a shop would have workers do: quick and slow things, some that fail now and then, some that always do."""

import asyncio
import random
from pathlib import Path
from typing import Any

from taskrunner import Context, Fail, Retry, task

Payload = dict[str, Any]


@task("send-invoice", max_attempts=5)
async def send_invoice(ctx: Context, payload: Payload) -> Payload:
    """Takes a moment; the mail server is away at times."""
    await asyncio.sleep(random.uniform(0.005, 0.06))
    if random.random() < 0.02:
        raise ConnectionError(f"mail server 10.0.3.{random.randint(2, 9)}:25 refused the connection")
    return {"message_id": f"<{ctx.task_id}@shop.example>", "pages": payload.get("pages", 1)}


@task("resize-image", max_attempts=3)
async def resize_image(_: Context, payload: Payload) -> Payload:
    """Some files are broken, and stay so."""
    await asyncio.sleep(random.uniform(0.01, 0.15))
    if str(payload.get("file", "")).endswith("7.png"):
        raise Fail(f"cannot identify image file {payload['file']!r}")
    return {"width": 640, "height": 480, "bytes": random.randint(20_000, 90_000)}


@task("charge-card", max_attempts=4)
async def charge_card(_: Context, payload: Payload) -> Payload:
    """Declined cards are declined for good; a slow bank is asked again."""
    await asyncio.sleep(random.uniform(0.02, 0.2))
    number = int(payload.get("order", 0))
    if number % 23 == 0:
        raise Fail("card was declined: insufficient_funds")
    if random.random() < 0.05:
        raise Retry("the bank did not answer in time", after=2)
    return {"charged": True, "receipt": f"R-{number:06d}"}


@task("sync-crm", max_attempts=2)
async def sync_crm(_: Context, payload: Payload) -> None:
    """Fails by a bug, with a traceback to look at."""
    await asyncio.sleep(0.01)
    if int(payload.get("customer", 0)) % 5 == 0:
        contact: Payload = {}
        raise KeyError(contact["email"])


@task("nightly-report", timeout=600)
async def nightly_report(ctx: Context, payload: Payload) -> Payload:
    """Long, and says how far it is."""
    steps = int(payload.get("steps", 60))
    for step in range(steps):
        ctx.progress(step / steps, f"page {step + 1} of {steps}")
        await asyncio.sleep(float(payload.get("pace", 1.0)))
    return {"pages": steps}


@task("hostile", max_attempts=1)
async def hostile(ctx: Context, payload: Payload) -> Payload:
    """Says markup wherever it may say something."""
    ctx.progress(0.5, str(payload["markup"]))
    if payload.get("fails"):
        raise Fail(str(payload["markup"]))
    return {"markup": payload["markup"]}


@task("quick")
async def quick(_: Context, payload: Payload) -> Payload:
    """Done at once."""
    return {"order": payload.get("order")}


@task("patient", timeout=120)
async def patient(ctx: Context, payload: Payload) -> str:
    """Runs until it is told to stop, or for the seconds that it is given."""
    await asyncio.sleep(float(payload.get("seconds", 60)))
    return f"waited as attempt {ctx.attempt}"


@task("needs-file", max_attempts=1)
def needs_file(_: Context, payload: Payload) -> str:
    """Fails for as long as a file is missing."""
    if not Path(str(payload["file"])).exists():
        raise Fail(str(payload.get("says", "the file is missing")))
    return "it is there"
