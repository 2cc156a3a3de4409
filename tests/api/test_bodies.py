"""What a task may say, and how each fault is named."""

from datetime import UTC, datetime

import pytest

from taskrunner.api.bodies import many_tasks, one_task
from taskrunner.api.errors import Problem
from taskrunner.domain.task import NewTask


def test_a_bare_task_gets_the_defaults() -> None:
    task = one_task({"task_type": "email"})
    assert isinstance(task, NewTask)
    assert (task.payload, task.queue, task.priority, task.run_at, task.delay, task.tags) == ("{}", "default", 2, None, None, ())
    assert (task.max_attempts, task.timeout) == (None, None)


def test_a_full_task_is_taken_as_it_is() -> None:
    task = one_task(
        {
            "task_type": "email",
            "payload": [1, {"ü": None}],
            "run_at": "2026-02-20T10:00:00.5+05:30",
            "queue": "slow",
            "priority": 4,
            "max_attempts": 1000,
            "timeout": 2592000,
            "tags": ["a", "b"],
        }
    )
    assert task.payload == '[1,{"ü":null}]'
    assert task.run_at == datetime(2026, 2, 20, 4, 30, 0, 500_000, tzinfo=UTC)
    assert (task.queue, task.priority, task.max_attempts, task.timeout, task.tags) == ("slow", 4, 1000, 2592000.0, ("a", "b"))


@pytest.mark.parametrize("value", [None, 0, False, "", "x", [], {}, 1.5])
def test_payload_is_any_json_value(value: object) -> None:
    assert one_task({"task_type": "x", "payload": value}).payload in ("null", "0", "false", '""', '"x"', "[]", "{}", "1.5")


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-02-20t10:00:00z", "2026-02-20T10:00:00.123456789-00:00"]
)
def test_times_of_rfc_3339(text: str) -> None:
    task = one_task({"task_type": "x", "run_at": text})
    assert task.run_at is not None
    assert task.run_at.tzinfo is UTC


FAULTS = [
    ({}, "/task_type", "is required"),
    ({"task_type": ""}, "/task_type", "at least 1 character"),
    ({"task_type": "x" * 201}, "/task_type", "at most 200 characters"),
    ({"task_type": 5}, "/task_type", "must be a valid string"),
    ({"task_type": None}, "/task_type", "must be a valid string"),
    ({"task_type": "x", "colour": 1}, "/colour", "is not a field of a task"),
    ({"task_type": "x", "a/b~": 1}, "/a~1b~0", "is not a field of a task"),
    ({"task_type": "x", "queue": ""}, "/queue", "at least 1 character"),
    ({"task_type": "x", "queue": None}, "/queue", "must be a valid string"),
    ({"task_type": "x", "priority": 0}, "/priority", "greater than or equal to 1"),
    ({"task_type": "x", "priority": 5}, "/priority", "less than or equal to 4"),
    ({"task_type": "x", "priority": True}, "/priority", "must be a valid integer"),
    ({"task_type": "x", "priority": "2"}, "/priority", "must be a valid integer"),
    ({"task_type": "x", "priority": 2.0}, "/priority", "must be a valid integer"),
    ({"task_type": "x", "max_attempts": 0}, "/max_attempts", "greater than or equal to 1"),
    ({"task_type": "x", "max_attempts": 1001}, "/max_attempts", "less than or equal to 1000"),
    ({"task_type": "x", "timeout": 0}, "/timeout", "greater than 0"),
    ({"task_type": "x", "timeout": 2592001}, "/timeout", "less than or equal to 2592000"),
    ({"task_type": "x", "timeout": "30"}, "/timeout", "must be a valid number"),
    ({"task_type": "x", "delay": -1}, "/delay", "greater than or equal to 0"),
    ({"task_type": "x", "delay": 1e300}, "/delay", "less than or equal to"),
    ({"task_type": "x", "delay": 1, "run_at": "2026-02-20T10:00:00Z"}, "/delay", "cannot be combined with run_at"),
    ({"task_type": "x", "run_at": "2026-02-20T10:00:00"}, "/run_at", "with an offset"),
    ({"task_type": "x", "run_at": "2026-02-20"}, "/run_at", "RFC 3339"),
    ({"task_type": "x", "run_at": "2026-02-20 10:00:00Z"}, "/run_at", "RFC 3339"),
    ({"task_type": "x", "run_at": "2026-02-30T10:00:00Z"}, "/run_at", "RFC 3339"),
    ({"task_type": "x", "run_at": "0001-01-01T00:00:00+01:00"}, "/run_at", "RFC 3339"),
    ({"task_type": "x", "run_at": "10000-01-01T00:00:00Z"}, "/run_at", "RFC 3339"),
    ({"task_type": "x", "run_at": 1771581600}, "/run_at", "RFC 3339"),
    ({"task_type": "x", "tags": ["a"] * 21}, "/tags", "at most 20 items"),
    ({"task_type": "x", "tags": ["a", ""]}, "/tags/1", "at least 1 character"),
    ({"task_type": "x", "tags": ["a" * 101]}, "/tags/0", "at most 100 characters"),
    ({"task_type": "x", "tags": [1]}, "/tags/0", "must be a valid string"),
    ({"task_type": "x", "tags": "a"}, "/tags", "must be an array of strings"),
    ({"task_type": "x", "tags": {"a": 1}}, "/tags", "must be an array of strings"),
    ([], "", "must be a JSON object"),
    (None, "", "must be a JSON object"),
]


@pytest.mark.parametrize(("body", "pointer", "reason"), FAULTS, ids=lambda value: str(value)[:60])
def test_each_fault_is_named(body: object, pointer: str, reason: str) -> None:
    with pytest.raises(Problem) as caught:
        one_task(body)
    assert caught.value.status == 422
    assert [fault.pointer for fault in caught.value.faults] == [pointer]
    assert reason in caught.value.faults[0].detail


def test_all_faults_are_named_at_once_and_one_is_the_sentence() -> None:
    with pytest.raises(Problem, match=r"^priority must be less than or equal to 4$") as caught:
        one_task({"task_type": "x", "priority": 9, "tags": [0], "when": 1})
    assert {fault.pointer for fault in caught.value.faults} == {"/priority", "/tags/0", "/when"}


def test_a_large_payload_is_too_large() -> None:
    assert len(one_task({"task_type": "x", "payload": "a" * (262_144 - 2)}).payload) == 262_144
    with pytest.raises(Problem, match="payload must be at most 256 KiB") as caught:
        one_task({"task_type": "x", "payload": "a" * 262_143})
    assert caught.value.status == 413


def test_a_fault_in_a_batch_is_named_by_its_index() -> None:
    good = {"task_type": "x"}
    with pytest.raises(Problem, match=r"^/3/priority must be") as caught:
        many_tasks([good, good, good, {**good, "priority": 7}, good, 5])
    assert [fault.pointer for fault in caught.value.faults] == ["/3/priority", "/5"]


@pytest.mark.parametrize(
    ("body", "status"), [({}, 422), (None, 422), ([{"task_type": "x"}] * 10_001, 413)], ids=["object", "null", "10,001"]
)
def test_what_is_no_batch(body: object, status: int) -> None:
    with pytest.raises(Problem) as caught:
        many_tasks(body)
    assert caught.value.status == status


def test_ten_thousand_tasks_are_a_batch() -> None:
    assert len(many_tasks([{"task_type": "x", "payload": {"n": n}} for n in range(10_000)])) == 10_000
