"""The vectorised comparison against the obvious one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.datapath import rows

SIZES = st.sampled_from([1, 3, 4, 8, 12, 16, 20])


@st.composite
def states(draw: st.DrawFn) -> tuple[dict[bytes, bytes], dict[bytes, bytes], int, int]:
    key, value = draw(SIZES), draw(SIZES)
    few = st.binary(min_size=key, max_size=key) | st.sampled_from([bytes(key), bytes(key - 1) + b"\1"])
    content = st.dictionaries(few, st.sampled_from([bytes(value), b"\1" * value, bytes(value - 1) + b"\2"]))
    return draw(content), draw(content), key, value


def arrays(state: dict[bytes, bytes], key: int, value: int) -> tuple[rows.Array, rows.Array]:
    return np.frombuffer(b"".join(state), f"V{key}"), np.frombuffer(b"".join(state.values()), f"V{value}")


@given(states())
def test_compare_is_what_dictionaries_say(
    drawn: tuple[dict[bytes, bytes], dict[bytes, bytes], int, int],
) -> None:
    desired, actual, key, value = drawn
    keys, values = arrays(desired, key, value)
    actual_keys, actual_values = arrays(actual, key, value)
    plan = rows.compare(keys, values, actual_keys, actual_values)
    assert {keys[i].tobytes() for i in plan.added} == desired.keys() - actual.keys()
    common = desired.keys() & actual.keys()
    assert {keys[i].tobytes() for i in plan.changed} == {k for k in common if desired[k] != actual[k]}
    assert {actual_keys[i].tobytes() for i in plan.removed} == actual.keys() - desired.keys()


def test_a_key_seen_twice_in_a_scan_is_one_key() -> None:
    desired = np.array([1], "u4"), np.array([1], "u4")
    plan = rows.compare(*desired, np.array([1, 1, 2, 2], "u4"), np.array([1, 1, 1, 1], "u4"))
    assert (len(plan.added), len(plan.changed)) == (0, 0)
    assert plan.removed.tolist() == [2, 3]


def test_a_key_desired_twice_is_an_error() -> None:
    twice = np.array([1, 1], "u4")
    with pytest.raises(ValueError, match="desired twice"):
        rows.compare(twice, twice, twice[:0], twice[:0])


def test_bits_behind_a_prefix_are_cleared() -> None:
    keys = np.zeros(4, [("length", "u4"), ("address", "u1", (4,))])
    keys["length"] = [0, 9, 24, 32]
    keys["address"] = 255
    masked = rows.masked_prefixes(keys)["address"].tolist()
    assert masked == [[0, 0, 0, 0], [255, 128, 0, 0], [255, 255, 255, 0], [255, 255, 255, 255]]


def test_large_scratch_is_writable_and_independent() -> None:
    large = rows.scratch(1 << 20, np.dtype("u8"))
    large[-1] = 7
    assert rows.grown(large, 5)[(1 << 20) - 1] == 7


def test_missing_keys_are_found_once_each() -> None:
    keys = np.array([5, 1, 7, 5, 2], "u4")
    assert rows.missing(keys, np.array([1, 1, 9], "u4")).tolist() == [0, 2, 4]
    assert rows.missing(keys, keys).tolist() == []
    assert rows.missing(keys[:0], keys).tolist() == []
