"""What a user's module writes, and what it is told when it writes something else."""

import inspect
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
from pydantic import BaseModel, ValidationError

from taskrunner import Context, task
from taskrunner.sdk import Fail, Handler, Isolation, Retry, Snooze, Verdict, handlers_in


class Invoice(BaseModel):
    number: int


def module(**names: Any) -> ModuleType:
    made = ModuleType("theirs")
    vars(made).update(names)
    return made


def only(function: Any) -> Handler:
    (handler,) = handlers_in(module(f=function)).values()
    return handler


def test_a_handler_carries_its_options_and_stays_a_function() -> None:
    @task("invoice", timeout=30, max_attempts=8, backoff_base=2, backoff_cap=60)
    def send(ctx: Context, payload: Invoice) -> int:
        return payload.number

    handler = only(send)
    assert (handler.task_type, handler.timeout, handler.max_attempts) == ("invoice", 30, 8)
    assert (handler.backoff_base, handler.backoff_cap) == (2, 60)
    assert send(None, Invoice(number=7)) == 7  # type: ignore[arg-type]  # it does not look at its context
    assert inspect.isfunction(send)


def test_where_a_handler_runs_follows_from_how_it_is_written() -> None:
    @task("loop")
    async def on_the_loop(ctx: Context, payload: Any) -> None: ...

    @task("thread")
    def in_a_thread(ctx: Context, payload: Any) -> None: ...

    @task("process", isolation="process")
    async def in_a_process(ctx: Context, payload: Any) -> None: ...

    assert [only(f).isolation for f in (on_the_loop, in_a_thread, in_a_process)] == [Isolation.LOOP, Isolation.THREAD, Isolation.PROCESS]


def test_an_annotation_validates_the_payload_and_a_plain_dict_costs_nothing() -> None:
    @task("typed")
    def typed(ctx: Context, payload: Invoice) -> None: ...

    @task("strings")
    def strings(ctx: Context, payload: "list[int]") -> None: ...

    @task("plain")
    def plain(ctx: Context, payload: dict[str, Any]) -> None: ...

    @task("bare")
    def bare(ctx, payload): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 — as many will write it

    adapter = only(typed).payload
    assert adapter is not None
    assert adapter.validate_python({"number": 1}) == Invoice(number=1)
    with pytest.raises(ValidationError):
        adapter.validate_python({"number": "x"})
    listed = only(strings).payload
    assert listed is not None
    assert listed.validate_python(["1"]) == [1]
    assert only(plain).payload is None
    assert only(bare).payload is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"task_type": ""}, "1 to 200 characters"),
        ({"task_type": "x" * 201}, "1 to 200 characters"),
        ({"isolation": "thread"}, 'isolation is "process" or left out'),
        ({"timeout": 0}, "timeout must be more than 0"),
        ({"timeout": float("nan")}, "timeout must be more than 0"),
        ({"timeout": float("inf")}, "and at most 2592000, not inf"),
        ({"max_attempts": 0}, "max_attempts must be 1 to 1000, not 0"),
        ({"max_attempts": 5000}, "max_attempts must be 1 to 1000, not 5000"),
    ],
)
def test_a_wrong_option_is_told_where_it_is_written(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        task(**{"task_type": "t", **options})


def test_a_handler_takes_two_arguments() -> None:
    with pytest.raises(TypeError, match="two arguments"):

        @task("short")
        def short(ctx: Context) -> None: ...


def test_the_same_handler_twice_is_one_and_two_for_a_type_are_refused() -> None:
    @task("t")
    def one(ctx: Context, payload: Any) -> None: ...

    @task("t")
    def other(ctx: Context, payload: Any) -> None: ...

    assert list(handlers_in(module(a=one, b=one, c=1, d="x"))) == ["t"]
    with pytest.raises(ValueError, match="theirs has two handlers for the task type 't'"):
        handlers_in(module(a=one, b=other))


def test_verdicts_carry_their_delay_in_seconds() -> None:
    assert Retry("later").after is None
    assert Retry(after=timedelta(minutes=2)).after == 120
    assert Snooze(1.5, "not yet").delay == 1.5
    assert str(Fail("never")) == "never"
    assert all(issubclass(word, Verdict) for word in (Retry, Snooze, Fail))


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), 367 * 86_400, timedelta(days=-1)])
def test_a_delay_that_is_none_is_refused(delay: Any) -> None:
    with pytest.raises(ValueError, match="between 0 seconds and 366 days"):
        Retry(after=delay)
    with pytest.raises(ValueError, match="between 0 seconds and 366 days"):
        Snooze(delay)


def test_a_context_reads_the_columns_of_the_wire() -> None:
    asked = iter([False, True])
    id_ = uuid4()
    ctx = Context(
        id=id_.bytes,
        task_type="t",
        queue="q",
        attempt=2,
        max_attempts=5,
        timeout=30.0,
        run_at=820_540_800_000_001,
        cancelled=lambda: next(asked),
    )
    assert ctx.task_id == str(id_)
    assert ctx.run_at == datetime(2026, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    assert [ctx.cancelled, ctx.cancelled] == [False, True]
