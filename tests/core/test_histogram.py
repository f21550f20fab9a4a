"""Histograms: what is counted where, and that labels cannot grow without end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.histogram import BUCKETS, Histogram


@given(st.lists(st.floats(0, 100)))
def test_each_observation_is_in_the_first_bucket_that_holds_it(values: list[float]) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    if not values:
        assert histogram.read() == {}
        return
    seen = histogram.read()[()]
    assert (seen.count, seen.sum) == (len(values), pytest.approx(sum(values)))
    assert list(seen.buckets())[-1] == ("+Inf", len(values))
    for bound, (text, count) in zip(BUCKETS, seen.buckets(), strict=False):
        assert float(text) == bound
        assert count == sum(value <= bound for value in values)


def test_bounds_are_written_as_go_does() -> None:
    histogram = Histogram((0.005, 1.0, 2.5, 10.0))
    histogram.observe(3)
    assert [text for text, _ in histogram.read()[()].buckets()] == ["0.005", "1", "2.5", "10", "+Inf"]


def test_labels_beyond_the_limit_overflow() -> None:
    histogram = Histogram(limit=3)
    for number in range(10):
        histogram.observe(1.0, "a", str(number))
    assert len(histogram.read()) == 4
    assert histogram.read()[("overflow", "overflow")].count == 7


def test_a_block_that_raises_is_timed_too() -> None:
    histogram = Histogram()
    with pytest.raises(ValueError, match="it failed"), histogram.timed("x"):
        raise ValueError("it failed")
    assert histogram.read()[("x",)].count == 1
