"""A checker that finds nothing proves nothing: each invariant is broken once."""

from dataclasses import replace

import pytest
from faults.checker import FOREVER, Absence, Change, Evidence, Row, Run


def sound() -> Evidence:
    """One task that lost its first worker, process 7, and was completed by process 8."""
    return Evidence(
        acknowledged={0: "t"},
        unknown=set(),
        rows=[Row(task="t", n=0, status="COMPLETED", epoch=2, attempt=2, max_attempts=5)],
        changes=[
            Change(at=0, leaf="live", op="INSERT", task="t", epoch=0, attempt=0, status="PENDING"),
            Change(at=1, leaf="live", op="UPDATE", task="t", epoch=1, attempt=1, status="QUEUED", holder=7),
            Change(at=3, leaf="live", op="UPDATE", task="t", epoch=1, attempt=1, status="PENDING"),
            Change(at=4, leaf="live", op="UPDATE", task="t", epoch=2, attempt=2, status="QUEUED", holder=8),
            Change(at=6, leaf="live", op="DELETE", task="t", epoch=2, attempt=2, status="QUEUED", holder=8),
            Change(at=6, leaf="finished", op="INSERT", task="t", epoch=2, attempt=2, status="COMPLETED"),
        ],
        runs=[
            Run(task="t", attempt=1, holder=7, start=1.1, end=9, how="done"),
            Run(task="t", attempt=2, holder=8, start=4.1, end=5, how="done"),
        ],
        absences=[Absence(7, 2, 8)],
        longest_hold=3,
    )


def found(seen: Evidence) -> set[str]:
    return {sentence.partition(":")[0] for sentence in seen.violations()}


def test_nothing_is_wrong_with_a_task_that_ran_again_after_its_worker_was_cut_off() -> None:
    assert sound().violations() == []


def test_a_task_that_was_born_claimed_was_claimed_once() -> None:
    seen = sound()
    born = Change(at=1, leaf="live", op="INSERT", task="t", epoch=1, attempt=1, status="QUEUED", holder=7)
    seen.changes = [born, *seen.changes[2:]]
    assert seen.violations() == []
    seen.runs.append(replace(seen.runs[0], start=1.2))
    assert "I3" in found(seen)


@pytest.mark.parametrize("status", ["RUNNING", "PENDING", "QUEUED"])
def test_i1_a_task_that_does_not_end(status: str) -> None:
    seen = sound()
    seen.rows = [replace(seen.rows[0], status=status)]
    assert "I1" in found(seen)


def test_i1_a_task_that_is_lost() -> None:
    seen = sound()
    seen.rows = []
    assert "I1" in found(seen)


def test_i2_a_task_that_was_refused_or_is_there_twice_or_has_another_id() -> None:
    seen = sound()
    seen.acknowledged = {}
    assert found(seen) == {"I2"}
    seen.unknown = {0}
    assert found(seen) == set(), "an unknown outcome may be either"
    seen.rows.append(replace(seen.rows[0], task="u"))
    assert "I2" in found(seen)
    other = sound()
    other.acknowledged = {0: "u"}
    assert "I2" in found(other)


def test_i3_two_starts_of_one_claim() -> None:
    seen = sound()
    seen.runs.append(Run(task="t", attempt=2, holder=8, start=5.1, end=5.2, how="done"))
    assert found(seen) == {"I3"}


def test_i3_more_attempts_than_it_may_have() -> None:
    seen = sound()
    seen.rows = [replace(seen.rows[0], max_attempts=1)]
    assert found(seen) == {"I3"}


def test_i4_a_finished_task_that_changes_or_starts() -> None:
    seen = sound()
    seen.changes.append(replace(seen.changes[-1], op="UPDATE", status="FAILED"))
    assert found(seen) == {"I4"}
    seen = sound()
    seen.runs[0].start = 6.5
    assert "I4" in found(seen)


def test_i5_the_result_of_a_dead_claim() -> None:
    seen = sound()
    seen.rows = [replace(seen.rows[0], epoch=1, attempt=1)]
    assert found(seen) == {"I5"}
    seen = sound()
    seen.runs[1].how = "stopped"
    assert found(seen) == {"I5"}
    seen = sound()
    seen.runs[1].end = 6.5
    assert found(seen) == {"I5"}, "the result that was accepted was not the holder's"


def test_i6_two_at_the_same_time() -> None:
    seen = sound()
    seen.absences = []
    assert found(seen) == {"I6"}
    seen.absences = [Absence(7, 4.2, FOREVER)]
    assert found(seen) == {"I6"}, "it was cut off only after the second start"


def test_i6_a_run_without_an_end_in_a_process_that_lives() -> None:
    seen = sound()
    seen.runs.append(Run(task="u", attempt=1, holder=8, start=5))
    assert "I6" in found(seen)


def test_i7_a_task_that_is_held_for_too_long() -> None:
    seen = sound()
    seen.longest_hold = 1.5
    assert found(seen) == {"I7"}
    seen = sound()
    seen.changes = seen.changes[:4]
    assert "I7" in found(seen)


def test_a_second_run_needs_a_reason() -> None:
    seen = sound()
    assert {why: len(runs) for why, runs in seen.second_runs().items()} == {"cut off": 1}
    seen.absences = [Absence(7, 2, FOREVER)]
    assert [*seen.second_runs()] == ["died"]
    seen.absences = [Absence(7, 2, 2.4), Absence(8, 2, FOREVER), Absence(7, 4.2, 9)]
    assert [*seen.second_runs()] == ["unexplained"], "a moment, another process, and later"
    began = seen.runs[0].start
    for late, why in ((0.04, "cut off"), (0.06, "unexplained")):
        seen.absences = [Absence(7, began - 3, began - late)]
        assert [*seen.second_runs()] == [why], "it goes on with what it was about to start, and only with that"
    seen.asked = {7: 2}
    assert [*seen.second_runs()] == ["asked to stop"]
    seen.runs[0].how = "failed"
    assert [*seen.second_runs()] == ["failed"]
