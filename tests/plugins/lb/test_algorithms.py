"""The laws of what the kernel chooses from."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.plugins.lb.algorithms import MAX_SLOTS, maglev, shares, weighted

SIZE = 16_381


def backends(count: int) -> list[bytes]:
    return [f"10.0.{number // 250}.{number % 250}:80".encode() for number in range(count)]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_each_backend_has_exactly_its_weight_and_is_evenly_spread(weights: list[int]) -> None:
    slots = weighted(weights)
    counts = np.bincount(slots, minlength=len(weights))
    common = Fraction(int(counts[0]), weights[0])
    assert all(count == weight * common for count, weight in zip(counts, weights, strict=True))
    for backend, count in enumerate(counts.tolist()):
        gaps = np.diff(np.flatnonzero(slots == backend))
        assert (gaps <= len(slots) / count + len(weights)).all()


def test_weights_without_a_measure_are_rounded() -> None:
    weights = [65_535, 1, 7919]
    counts = np.bincount(weighted(weights))
    assert counts.sum() <= MAX_SLOTS + 1
    assert counts.min() == 1
    assert abs(counts[2] / counts.sum() - 7919 / sum(weights)) < 1 / MAX_SLOTS


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=50).filter(any), st.integers(1, 5000))
def test_shares_are_exact_to_one_slot(weights: list[int], slots: int) -> None:
    counts = shares(weights, slots)
    assert counts.sum() == slots
    exact = np.asarray(weights) * slots / sum(weights)
    assert (np.abs(counts - exact) < 1).all()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10, 40, 100])
def test_maglev_moves_few_flows_when_a_backend_goes_or_comes(count: int) -> None:
    """At most 1/N + 1 % of the flows; seen from the other side, it is the backend that comes."""
    names = backends(count + 1)
    more = maglev(names, [1] * (count + 1), SIZE)
    for gone in sorted({0, count // 2, count}):
        kept = [number for number in range(count + 1) if number != gone]
        fewer = np.asarray(kept)[maglev([names[number] for number in kept], [1] * count, SIZE)]
        assert np.mean(more != fewer) <= 1 / (count + 1) + 0.01
        assert (fewer[more != gone] == more[more != gone]).mean() >= 0.99


@pytest.mark.parametrize(("size", "count"), [(251, 2), (1021, 10), (4093, 40), (8191, 81)])
def test_small_tables_move_more_but_share_well_with_a_hundred_slots_for_each(size: int, count: int) -> None:
    """What the configuration's help and a service's problem say of sizes below 16,381."""
    names = backends(count + 1)
    more, fewer = maglev(names, [1] * (count + 1), size), maglev(names[:-1], [1] * count, size)
    assert np.mean((more != fewer) & (more != count)) <= 0.04
    assert (np.abs(np.bincount(fewer) * count / size - 1) <= 0.01).all()


@pytest.mark.parametrize("weights", [[1] * 5, [1] * 80, [3, 1], [5, 4, 3, 2, 1], [100, 1, 50, 7]])
def test_maglev_loads_follow_the_weights(weights: list[int]) -> None:
    counts = np.bincount(maglev(backends(len(weights)), weights, SIZE), minlength=len(weights))
    wanted = np.asarray(weights) * SIZE / sum(weights)
    assert (np.abs(counts / wanted - 1) <= 0.02).all()


def test_maglev_is_the_same_whatever_the_order_of_backends() -> None:
    names = backends(9)
    one = [names[number] for number in maglev(names, [1] * 9, 4093)]
    turned = names[4:] + names[:4]
    other = [turned[number] for number in maglev(turned, [1] * 9, 4093)]
    differing = sum(a != b for a, b in zip(one, other, strict=True))
    assert differing <= 4093 // 100, "ties only; the callers sort"


def test_maglev_is_the_same_every_time() -> None:
    table = maglev(backends(3), [1, 2, 3], 251)
    assert table.tolist() == maglev(backends(3), [1, 2, 3], 251).tolist()
    assert table[:12].tolist() == [2, 2, 1, 1, 2, 2, 0, 1, 1, 2, 2, 1], (
        "other nodes, and other versions, agree"
    )
