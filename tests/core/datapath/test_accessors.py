"""The generated C: typed functions, one token."""

from __future__ import annotations

import pytest

from axoneme.core.datapath.layout import Struct, u32, u64
from axoneme.core.datapath.spec import MapSpec
from axoneme.core.datapath.uapi import MapKind
from axoneme.core.errors import AxonemeError

KEY = Struct("some_key", {"a": u32})


def text(kind: MapKind, **more: object) -> str:
    return MapSpec("things", kind, **({"key": KEY, "value": u64} | more)).c_accessors(77)  # type: ignore[arg-type]


def test_hash() -> None:
    c = text(MapKind.LRU_HASH)
    assert "u64 *things_lookup(const struct some_key *key)" in c
    assert "long things_update(const struct some_key *key, const u64 *value, u64 flags)" in c
    assert "long things_delete(const struct some_key *key)" in c
    assert c.count("bpf_pseudo_fd(1, 77)") == 3


def test_entries_of_arrays_cannot_be_deleted() -> None:
    assert "_delete" not in text(MapKind.ARRAY, key=u32)


def test_ring() -> None:
    c = text(MapKind.RINGBUF, key=None, max_entries=4096)
    for function in ("things_reserve(u64 size)", "things_submit(void *record, u64 flags)", "things_discard("):
        assert function in c


def test_tail_call() -> None:
    assert "things_tail_call(void *ctx, u32 index)" in text(MapKind.PROG_ARRAY, key=None, value=None)


def test_sockets_are_looked_up_as_sockets() -> None:
    assert "struct bpf_sock *things_lookup(const u32 *key)" in text(MapKind.SOCKMAP, key=u32)


def test_kinds_that_stages_cannot_reach() -> None:
    with pytest.raises(AxonemeError, match="no C accessors for a QUEUE"):
        text(MapKind.QUEUE)
