"""Declarations of maps: what is impossible is refused before any kernel is asked."""

from __future__ import annotations

from typing import Any

import pytest

from axoneme.core.datapath.layout import Struct, array, u8, u16, u32, u64
from axoneme.core.datapath.spec import MapError, MapSpec
from axoneme.core.datapath.uapi import MapFlag, MapKind

PREFIX = Struct("prefix4", {"length": u32, "address": array(u8, 4)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "Upper", "kind": MapKind.HASH, "key": u32, "value": u32}, "lower-case"),
        ({"name": "m", "kind": MapKind.HASH, "key": u32}, "needs a key and a value"),
        ({"name": "m", "kind": MapKind.HASH, "key": u32, "value": u32, "max_entries": 0}, "0 entries"),
        ({"name": "m", "kind": MapKind.ARRAY, "key": u64, "value": u32}, "key of an array is u32"),
        ({"name": "m", "kind": MapKind.LPM_TRIE, "key": u32, "value": u32}, "starts with the prefix length"),
        ({"name": "m", "kind": MapKind.RINGBUF, "max_entries": 5000}, "power of two"),
        ({"name": "m", "kind": MapKind.RINGBUF, "key": u32, "max_entries": 4096}, "has no key"),
    ],
)
def test_impossible(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MapError, match=message):
        MapSpec(**arguments)


def test_kinds_bring_what_they_need() -> None:
    assert MapSpec("calls", MapKind.PROG_ARRAY, max_entries=4).key == u32
    trie = MapSpec("trie", MapKind.LPM_TRIE, PREFIX, u32, 8)
    assert trie.flags == MapFlag.NO_PREALLOC
    record = Struct("record", {"a": u64})
    ring = MapSpec("events", MapKind.RINGBUF, value=record, max_entries=4096)
    assert (ring.key_size, ring.value_size) == (0, 0)


def test_digest_tells_layout_and_size_apart() -> None:
    spec = MapSpec("m", MapKind.HASH, u32, u32, 8)
    other = MapSpec("m", MapKind.HASH, u32, u16, 8)
    larger = MapSpec("m", MapKind.HASH, u32, u32, 16)
    assert spec.layout_digest == larger.layout_digest != other.layout_digest
    assert spec.digest != larger.digest
    assert spec.digest == MapSpec("renamed", MapKind.HASH, u32, u32, 8, doc="words").digest


def test_long_names_are_cut_for_the_kernel() -> None:
    spec = MapSpec("a_name_that_is_far_too_long", MapKind.HASH, u32, u32)
    assert spec.attributes().name == "a_name_that_is_"
