"""Open maps, on the kernel in memory and on the running one."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axoneme.core.datapath.kernel import BpfError, Kernel, MapFull
from axoneme.core.datapath.layout import LayoutError, Struct, array, be32, s32, u8, u16, u32, u64
from axoneme.core.datapath.maps import Diff, Map, MapError, MapSpec
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.datapath.uapi import MapKind, UpdateFlag

KEY = Struct("flow", {"src": be32, "dst": be32, "zone": u16, "pad": array(u8, 2)})
VALUE = Struct("counters", {"packets": u64, "bytes": u64})
PREFIX = Struct("prefix4", {"length": u32, "address": array(u8, 4)})
OPEN = Callable[..., Map]

#: hypothesis runs many examples in one test: the open maps are closed at its end, which is fine here.
many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)


@pytest.fixture
def opened(kernel: Kernel) -> Iterator[OPEN]:
    maps: list[Map] = []

    def open_map(kind: MapKind, key: Any = KEY, value: Any = VALUE, entries: int = 64) -> Map:
        maps.append(Map.create(kernel, MapSpec("test", kind, key, value, entries)))
        return maps[-1]

    yield open_map
    for each in maps:
        each.close()


def flows(*numbers: int) -> np.ndarray[Any, Any]:
    keys = KEY.array(len(numbers))
    keys["src"] = numbers
    return keys


def counts(*numbers: int) -> np.ndarray[Any, Any]:
    values = VALUE.array(len(numbers))
    values["packets"] = numbers
    return values


def content(opened: Map) -> dict[bytes, bytes]:
    keys, values = opened.items()
    return {key.tobytes(): value.tobytes() for key, value in zip(keys, values, strict=True)}


HASHES = pytest.mark.parametrize("kind", [MapKind.HASH, MapKind.LRU_HASH])


@HASHES
def test_one_entry(opened: OPEN, kind: MapKind) -> None:
    flow = opened(kind)
    assert flow.lookup({"src": 1}) is None
    flow.update({"src": 1}, {"packets": 3})
    assert flow.lookup({"src": 1})["packets"] == 3
    assert flow.lookup(KEY.pack(src=1)) == flow.lookup(flows(1)[0])
    assert flow.delete({"src": 1})
    assert not flow.delete({"src": 1})


def test_scalars_are_numbers(opened: OPEN) -> None:
    numbers = opened(MapKind.HASH, u32, u64)
    numbers.update(1, 2**63)
    assert numbers.lookup(1) == 2**63
    assert isinstance(numbers.lookup(1), int)
    numbers.update_batch([2, 3], [20, 30])
    keys, values = numbers.items()
    assert dict(zip(keys.tolist(), values.tolist(), strict=True)) == {1: 2**63, 2: 20, 3: 30}


def test_update_flags(opened: OPEN) -> None:
    numbers = opened(MapKind.HASH, u32, u32)
    with pytest.raises(BpfError) as missing:
        numbers.update(1, 1, UpdateFlag.EXIST)
    assert missing.value.errno == errno.ENOENT
    numbers.update(1, 1, UpdateFlag.NOEXIST)
    with pytest.raises(BpfError, match="map test: update") as present:
        numbers.update(1, 1, UpdateFlag.NOEXIST)
    assert present.value.errno == errno.EEXIST


@HASHES
def test_batches(opened: OPEN, kind: MapKind) -> None:
    flow = opened(kind, entries=5000)
    numbers = np.arange(4000)
    flow.update_batch(flows(*numbers), counts(*numbers))
    keys, values = flow.items()
    assert sorted(keys["src"].tolist()) == numbers.tolist()
    assert (keys["src"] == values["packets"]).all()
    assert flow.delete_batch(flows(5000, 1, 2, 2, 3, 6000)) == 3
    assert len(flow.items()[0]) == 3997
    assert flow.clear() == 3997
    assert len(flow.items()[0]) == 0


def test_some_entries_are_looked_up_by_their_keys(opened: OPEN) -> None:
    flow = opened(MapKind.HASH)
    flow.update_batch(flows(1, 2, 3), counts(10, 20, 30))
    found, values = flow.lookup_each(flows(3, 9, 1))
    assert found.tolist() == [True, False, True]
    assert values["packets"].tolist() == [30, 0, 10]
    found, values = flow.lookup_each(flows())
    assert (len(found), len(values)) == (0, 0)


def test_only_what_is_missing_is_added(opened: OPEN) -> None:
    numbers = opened(MapKind.HASH, u32, u32)
    numbers.update_batch([1, 2], [10, 20])
    assert numbers.add_missing([2, 3, 4], [99, 30, 40]) == 2
    assert [numbers.lookup(key) for key in (1, 2, 3, 4)] == [10, 20, 30, 40]


def test_empty_batches(opened: OPEN) -> None:
    flow = opened(MapKind.HASH)
    flow.update_batch(flows(), counts())
    assert flow.delete_batch(flows()) == 0
    assert flow.reconcile(flows(), counts()) == Diff()
    assert flow.clear() == 0


def test_a_full_hash_says_so(opened: OPEN) -> None:
    flow = opened(MapKind.HASH, entries=4)
    with pytest.raises(MapFull, match="made for 4 entries") as full:
        flow.update_batch(flows(1, 2, 3, 4, 5, 6), counts(1, 2, 3, 4, 5, 6))
    assert (full.value.written, full.value.errno) == (4, errno.E2BIG)
    with pytest.raises(MapFull):
        flow.update({"src": 7}, {})
    flow.update({"src": 1}, {"packets": 9})


def test_a_full_trie_says_so(opened: OPEN) -> None:
    trie = opened(MapKind.LPM_TRIE, PREFIX, u32, 2)
    trie.update_batch([{"length": 8, "address": bytes([n, 0, 0, 0])} for n in (10, 11)], [1, 2])
    with pytest.raises(MapFull) as full:
        trie.update({"length": 8, "address": bytes([12, 0, 0, 0])}, 3)
    assert full.value.errno == errno.ENOSPC


def test_lru_makes_room(opened: OPEN) -> None:
    flow = opened(MapKind.LRU_HASH, entries=256)
    flow.update_batch(flows(*range(1000)), counts(*range(1000)))
    keys, _ = flow.items()
    assert 0 < len(keys) <= 256
    assert flow.lookup({"src": 999}) is not None


def test_longest_prefix(opened: OPEN) -> None:
    trie = opened(MapKind.LPM_TRIE, PREFIX, u32)
    trie.update({"length": 8, "address": bytes([10, 0, 0, 0])}, 8)
    trie.update({"length": 24, "address": bytes([10, 1, 2, 0])}, 24)
    assert trie.lookup({"length": 32, "address": bytes([10, 1, 2, 3])}) == 24
    assert trie.lookup({"length": 32, "address": bytes([10, 9, 9, 9])}) == 8
    assert trie.lookup({"length": 32, "address": bytes([11, 0, 0, 1])}) is None
    assert not trie.delete({"length": 16, "address": bytes([10, 1, 0, 0])})
    with pytest.raises(BpfError) as wrong:
        trie.update({"length": 33, "address": bytes(4)}, 0)
    assert wrong.value.errno == errno.EINVAL


def test_arrays(opened: OPEN) -> None:
    table = opened(MapKind.ARRAY, u32, u64, 4)
    table.update(2, 7)
    keys, values = table.items()
    assert (keys.tolist(), values.tolist()) == ([0, 1, 2, 3], [0, 0, 7, 0])
    with pytest.raises(BpfError) as past_the_end:
        table.update(4, 1)
    assert past_the_end.value.errno == errno.E2BIG
    with pytest.raises(BpfError):
        table.delete(2)
    assert table.reconcile([0, 1], [5, 0]) == Diff(added=1, removed=1)
    assert table.items()[1].tolist() == [5, 0, 0, 0]
    assert table.clear() == 1


@pytest.mark.parametrize("kind", [MapKind.PERCPU_ARRAY, MapKind.PERCPU_HASH, MapKind.LRU_PERCPU_HASH])
def test_per_cpu(opened: OPEN, kernel: Kernel, kind: MapKind) -> None:
    cpus = kernel.possible_cpus
    each = opened(kind, u32, u32, 4)
    each.update(1, 5)
    assert each.lookup(1).tolist() == [5] * cpus
    each.update(2, np.arange(cpus))
    keys, values = each.items()
    assert values.shape == (len(keys), cpus)
    assert values[keys == 2][0].tolist() == list(range(cpus))
    each.update_batch([3], np.full((1, cpus), 9))
    assert each.lookup(3).sum() == 9 * cpus
    with pytest.raises(MapError, match="not \\(entries, CPUs\\)"):
        each.update_batch([3, 4], [1, 2])
    with pytest.raises(MapError, match="no desired state"):
        each.reconcile([1], [1])
    assert each.clear() == 3


def test_per_cpu_structs(opened: OPEN, kernel: Kernel) -> None:
    each = opened(MapKind.PERCPU_HASH, KEY, VALUE)
    each.update({"src": 1}, {"packets": 3, "bytes": 4})
    _, values = each.items()
    assert values["packets"].sum() == 3 * kernel.possible_cpus


STATES = st.dictionaries(st.integers(0, 40), st.integers(0, 3), max_size=30)


@many
@given(desired=STATES, actual=STATES)
@pytest.mark.parametrize("kind", [MapKind.HASH, MapKind.LRU_HASH])
def test_reconcile_is_exact_and_writes_only_the_difference(
    opened: OPEN, kind: MapKind, desired: dict[int, int], actual: dict[int, int]
) -> None:
    flow = opened(kind, entries=1024)
    flow.update_batch(flows(*actual), counts(*actual.values()))
    common = desired.keys() & actual.keys()
    wanted = Diff(
        added=len(desired.keys() - actual.keys()),
        changed=sum(desired[key] != actual[key] for key in common),
        removed=len(actual.keys() - desired.keys()),
    )
    assert flow.reconcile(flows(*desired), counts(*desired.values())) == wanted
    keys, values = flow.items()
    assert dict(zip(keys["src"].tolist(), values["packets"].tolist(), strict=True)) == desired
    assert flow.reconcile(flows(*desired), counts(*desired.values())) == Diff()
    flow.close()


@many
@given(desired=st.dictionaries(st.integers(0, 15), st.integers(0, 3)), actual=STATES)
def test_reconcile_of_an_array(opened: OPEN, desired: dict[int, int], actual: dict[int, int]) -> None:
    table = opened(MapKind.ARRAY, u32, u32, 64)
    table.update_batch(list(actual), list(actual.values()))
    table.reconcile(list(desired), list(desired.values()))
    assert table.items()[1].tolist() == [desired.get(index, 0) for index in range(64)]
    assert table.reconcile(list(desired), list(desired.values())) == Diff()
    table.close()


PREFIXES = st.dictionaries(
    st.tuples(st.integers(0, 32), st.binary(min_size=4, max_size=4)), st.integers(0, 3), max_size=12
)


def canonical(prefixes: dict[tuple[int, bytes], int]) -> dict[tuple[int, bytes], int]:
    mask = [(0xFFFFFFFF << (32 - n)) & 0xFFFFFFFF for n in range(33)]
    return {
        (length, (int.from_bytes(address, "big") & mask[length]).to_bytes(4, "big")): value
        for (length, address), value in prefixes.items()
    }


@many
@given(desired=PREFIXES, actual=PREFIXES)
def test_reconcile_of_a_trie(
    opened: OPEN, desired: dict[tuple[int, bytes], int], actual: dict[tuple[int, bytes], int]
) -> None:
    desired = canonical(desired)
    trie = opened(MapKind.LPM_TRIE, PREFIX, u32, 64)

    def rows(state: dict[tuple[int, bytes], int]) -> tuple[Any, list[int]]:
        return PREFIX.array([{"length": n, "address": a} for n, a in state]), list(state.values())

    trie.update_batch(*rows(actual))
    trie.reconcile(*rows(desired))
    keys, values = trie.items()
    found = {(int(k["length"]), k["address"].tobytes()): int(v) for k, v in zip(keys, values, strict=True)}
    assert canonical(found) == desired
    assert trie.reconcile(*rows(desired)) == Diff()
    trie.close()


def test_reconcile_makes_room_first_when_it_must(opened: OPEN) -> None:
    flow = opened(MapKind.HASH, entries=4)
    flow.update_batch(flows(1, 2, 3, 4), counts(1, 2, 3, 4))
    assert flow.reconcile(flows(3, 4, 5, 6), counts(3, 4, 5, 6)) == Diff(added=2, removed=2)
    assert sorted(flow.items()[0]["src"].tolist()) == [3, 4, 5, 6]
    with pytest.raises(MapFull):
        flow.reconcile(flows(*range(10)), counts(*range(10)))


def test_reconcile_wants_each_key_once(opened: OPEN) -> None:
    with pytest.raises(MapError, match="map test: a key is desired twice"):
        opened(MapKind.HASH).reconcile(flows(1, 1), counts(1, 2))


@pytest.mark.parametrize(
    ("key", "message"),
    [(b"short", "has 12 bytes, not 5"), ({"from": 1}, "no field 'from'"), (7, "is no struct flow")],
)
def test_wrong_keys(opened: OPEN, key: Any, message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        opened(MapKind.HASH).lookup(key)


def test_wrong_arrays(opened: OPEN) -> None:
    flow = opened(MapKind.HASH)
    with pytest.raises(LayoutError, match="is not one of"):
        flow.update_batch(counts(1), counts(1))
    with pytest.raises(MapError, match="2 keys and 1 values"):
        flow.update_batch(flows(1, 2), counts(1))


@pytest.mark.kernel
def test_maps_of_maps(running_kernel: SyscallKernel) -> None:
    inner = MapSpec("inner", MapKind.HASH, u32, u32, 4)
    outer = MapSpec("outer", MapKind.ARRAY_OF_MAPS, max_entries=2, inner=inner)
    with Map.create(running_kernel, outer) as table, Map.create(running_kernel, inner) as entry:
        table.update(1, entry.fd)
        assert table.lookup(1) == entry.id


def test_closed_maps_refuse(opened: OPEN) -> None:
    flow = opened(MapKind.HASH)
    flow.close()
    flow.close()
    with pytest.raises(ValueError, match="is closed"):
        flow.lookup({"src": 1})


def test_describe(opened: OPEN) -> None:
    flow = opened(MapKind.LRU_HASH, entries=64)
    described = flow.describe()
    assert described["name"] == "test"
    assert described["kind"] == "lru_hash"
    assert described["key"] == "struct flow"
    assert (described["key_size"], described["value_size"], described["max_entries"]) == (12, 16, 64)
    assert described["id"] == flow.id


@pytest.mark.kernel
def test_a_bucket_larger_than_the_batch(
    running_kernel: SyscallKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a batch of one entry, some bucket holds more, and the kernel says ENOSPC."""
    monkeypatch.setattr("axoneme.core.datapath.maps.CHUNK", 1)
    with Map.create(running_kernel, MapSpec("test", MapKind.HASH, u32, u32, 1024)) as numbers:
        numbers.update_batch(range(1024), range(1024))
        keys, _ = numbers.items()
        assert sorted(keys.tolist()) == list(range(1024))


def test_where_batches_are_unknown_entries_go_one_by_one() -> None:
    from axoneme.core.testing.fake_kernel import FakeKernel

    kernel = FakeKernel()
    for method in ("map_lookup_batch", "map_update_batch", "map_delete_batch"):
        for nth in range(1, 9):
            kernel.fail(method, errno.EINVAL, nth=nth)
    with Map.create(kernel, MapSpec("test", MapKind.HASH, u32, u32, 8)) as numbers:
        numbers.update_batch([1, 2, 3], [1, 2, 3])
        assert numbers.items()[0].tolist() == [1, 2, 3]
        assert numbers.delete_batch([1, 9, 3]) == 2
        with pytest.raises(MapFull) as full:
            numbers.update_batch(range(10), range(10))
        assert full.value.written == 8
    assert kernel.open_fds == 0


@pytest.mark.kernel
def test_half_a_million_entries_are_read_in_batches(running_kernel: SyscallKernel) -> None:
    spec = MapSpec("test", MapKind.LRU_HASH, KEY, VALUE, 1 << 19)
    with Map.create(running_kernel, spec) as flow:
        keys, values = KEY.array(1 << 18), VALUE.array(1 << 18)
        keys["src"] = values["packets"] = np.arange(1 << 18)
        flow.update_batch(keys, values)
        found, counters = flow.items()
        assert (found["src"] == counters["packets"]).all()
        assert len(found) > 0.99 * (1 << 18)


@pytest.mark.kernel
def test_storage_of_sockets() -> None:
    """Its keys are descriptors of our own; entries go with the sockets."""
    with (
        Map.create(SyscallKernel(), MapSpec("test", MapKind.SK_STORAGE, s32, VALUE, 0)) as table,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        table.update(one.fileno(), {"packets": 3, "bytes": 4})
        assert tuple(table.lookup(one.fileno())) == (3, 4)
        assert table.lookup(other.fileno()) is None
        assert table.delete(one.fileno())
        assert table.lookup(one.fileno()) is None
