from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner.domain.histogram import SECONDS, TASKS, Histogram


def of(*values: float) -> Histogram:
    made = Histogram()
    for value in values:
        made.observe(value)
    return made


def test_a_bound_belongs_to_its_own_bucket_and_what_is_longer_to_the_next() -> None:
    assert of(*SECONDS).counts == [1] * len(SECONDS) + [0]
    assert of(*(bound * 1.001 for bound in SECONDS)).counts == [0] + [1] * len(SECONDS)
    assert of(0.0).counts[0] == 1
    assert all(low < high for bounds in (SECONDS, TASKS) for low, high in pairwise(bounds))


def test_quantiles_of_nothing_are_none() -> None:
    assert Histogram().quantile(0.5) is None


def test_a_quantile_is_interpolated_within_its_bucket() -> None:
    made = Histogram()
    made.observe(0.004, 100)  # between 2 and 5 ms
    assert made.quantile(0.5) == pytest.approx(0.0035)
    assert made.quantile(1.0) == pytest.approx(0.005)
    assert made.total == pytest.approx(0.4)


def test_what_is_beyond_the_last_bound_is_as_long_as_that() -> None:
    assert of(1e6, 1e6).quantile(0.5) == SECONDS[-1]


@given(st.lists(st.floats(0, 7_200), min_size=1, max_size=200), st.integers(1, 100))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(values: list[float], percent: int) -> None:
    true = sorted(values)[-(-percent * len(values) // 100) - 1]
    found = of(*values).quantile(percent / 100)
    assert found is not None
    bucket = of(true).counts.index(1)
    low = SECONDS[bucket - 1] if bucket else 0.0
    assert low * 0.999999 <= found <= SECONDS[bucket] * 1.000001


@given(st.lists(st.floats(0, 20_000), max_size=50), st.lists(st.sampled_from([0.0, *SECONDS]), max_size=50))
def test_many_at_once_are_the_same_as_one_by_one(some: list[float], bounds: list[float]) -> None:
    one, all_ = of(*some, *bounds), Histogram()
    all_.observe_all([*some, *bounds])
    assert one.counts == all_.counts
    assert one.total == pytest.approx(all_.total)


def test_histograms_add_up() -> None:
    into = of(0.001, 3.0)
    into.add(of(3.0, 9_999.0))
    assert into.counts == of(0.001, 3.0, 3.0, 9_999.0).counts
    assert into.total == pytest.approx(10_005.001)
