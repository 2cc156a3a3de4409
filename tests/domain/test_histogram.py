from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskrunner.domain.histogram import BOUNDS, SIZE, add, bucket, quantile


def counts_of(*durations: float) -> list[int]:
    counts = [0] * SIZE
    for seconds in durations:
        counts[bucket(seconds)] += 1
    return counts


def test_a_bound_belongs_to_its_own_bucket_and_what_is_longer_to_the_next() -> None:
    assert [bucket(bound) for bound in BOUNDS] == list(range(len(BOUNDS)))
    assert [bucket(bound * 1.001) for bound in BOUNDS] == list(range(1, SIZE))
    assert bucket(0.0) == 0
    assert all(low < high for low, high in pairwise(BOUNDS))


def test_quantiles_of_nothing_are_none() -> None:
    assert quantile([0] * SIZE, 0.5) is None


def test_a_quantile_is_interpolated_within_its_bucket() -> None:
    counts = [0] * SIZE
    counts[bucket(0.005)] = 100  # between 2 and 5 ms
    assert quantile(counts, 0.5) == pytest.approx(0.0035)
    assert quantile(counts, 1.0) == pytest.approx(0.005)


def test_what_is_beyond_the_last_bound_is_as_long_as_that() -> None:
    assert quantile(counts_of(1e6, 1e6), 0.5) == BOUNDS[-1]


@given(st.lists(st.floats(0, 7_200), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 0.99]))
def test_a_quantile_lies_in_the_bucket_of_the_true_one(durations: list[float], share: float) -> None:
    rank = min(len(durations) - 1, max(0, -(-round(share * len(durations) * 1000) // 1000) - 1))
    true = sorted(durations)[rank]
    found = quantile(counts_of(*durations), share)
    assert found is not None
    high = BOUNDS[bucket(true)]
    low = BOUNDS[bucket(true) - 1] if bucket(true) else 0.0
    assert low <= found <= high * 1.000001


def test_histograms_add_up() -> None:
    into = counts_of(0.001, 3.0)
    add(into, counts_of(3.0, 9_999.0))
    assert into == counts_of(0.001, 3.0, 3.0, 9_999.0)
