"""Pins: what was there is adopted, what has another layout is not touched."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from axoneme.core.datapath import asm
from axoneme.core.datapath.kernel import BpfError, Kernel, Program, ProgramAttributes
from axoneme.core.datapath.layout import Struct, be32, u32, u64
from axoneme.core.datapath.maps import Map, MapSpec
from axoneme.core.datapath.pins import PinError, Pins
from axoneme.core.datapath.uapi import MapKind, ProgramType
from axoneme.core.testing.fake_kernel import FakeKernel

SPEC = MapSpec("numbers", MapKind.HASH, u32, u32, 8)


def program(kernel: Kernel, returns: int) -> Program:
    attributes = ProgramAttributes(
        type=ProgramType.SCHED_CLS, name=f"returns{returns}", instructions=asm.returning(returns)
    )
    return Program.load(kernel, attributes)


def test_a_map_is_adopted_with_its_entries(pins: Pins) -> None:
    with pins.open_map(SPEC) as first:
        assert not first.adopted
        first.update(1, 11)
        number = first.id
    with pins.open_map(SPEC) as again:
        assert again.adopted
        assert (again.id, again.lookup(1)) == (number, 11)


@pytest.mark.parametrize(
    "other",
    [
        MapSpec("numbers", MapKind.HASH, u32, be32, 8),
        MapSpec("numbers", MapKind.LRU_HASH, u32, u32, 8),
        MapSpec("numbers", MapKind.HASH, u32, Struct("pair", {"a": u32, "b": u32}), 8),
    ],
)
def test_another_layout_is_another_map(pins: Pins, other: MapSpec) -> None:
    with pins.open_map(SPEC) as before:
        before.update(1, 11)
    with pins.open_map(other) as after:
        assert not after.adopted
        assert len(after.items()[0]) == 0
    assert len(pins.names("maps")) == 2
    assert pins.prune_maps([other]) == [f"numbers@{SPEC.digest}"]
    assert pins.names("maps") == [f"numbers@{other.digest}"]


@pytest.mark.parametrize(("size", "kept"), [(16, 8), (4, 4)])
def test_another_size_takes_the_entries_over(pins: Pins, size: int, kept: int) -> None:
    with pins.open_map(SPEC) as before:
        before.update_batch(range(8), range(8))
    with pins.open_map(MapSpec("numbers", MapKind.HASH, u32, u32, size)) as after:
        assert not after.adopted
        keys, values = after.items()
        assert len(keys) == kept
        assert (keys == values).all()


@pytest.mark.parametrize(("kind", "caught_up"), [(MapKind.LRU_HASH, 2), (MapKind.HASH, 0)])
def test_what_programs_enter_meanwhile_follows(pins: Pins, kind: MapKind, caught_up: int) -> None:
    """Only in tables that programs fill: in others the agent may have deleted it on purpose."""
    with (
        pins.open_map(MapSpec("flows", kind, u32, u32, 64)) as before,
        pins.open_map(MapSpec("flows", kind, u32, u32, 128)) as after,
    ):
        before.update_batch([1, 2, 3], [10, 20, 30])
        after.update(2, 99)
        assert pins.catch_up([after]) == caught_up
        assert after.lookup(2) == 99, "what the new map has is newer"
        assert len(after.items()[0]) == 1 + caught_up
        assert pins.catch_up([after]) == 0


def test_an_array_takes_over_what_fits(pins: Pins) -> None:
    with pins.open_map(MapSpec("table", MapKind.ARRAY, u32, u64, 4)) as before:
        before.update_batch(range(4), [1, 2, 3, 4])
    with pins.open_map(MapSpec("table", MapKind.ARRAY, u32, u64, 3)) as after:
        assert after.items()[1].tolist() == [1, 2, 3]


@pytest.mark.parametrize(("size", "kept"), [(16, [3, 5, 9]), (4, [1, 3])])
def test_an_array_with_computed_places_is_computed_anew(pins: Pins, size: int, kept: list[int]) -> None:
    def spec(entries: int) -> MapSpec:
        return MapSpec("table", MapKind.ARRAY, u32, u64, entries, moved=lambda _, values, size: values % size)

    with pins.open_map(spec(8)) as before:
        before.update_batch([1, 3, 5], [9, 3, 5])
    with pins.open_map(spec(size)) as after:
        keys, values = after.items()
        assert keys[values > 0].tolist() == kept
        assert (values[kept] % size == kept).all()


def test_names_that_begin_alike_are_different_maps(pins: Pins) -> None:
    with pins.open_map(SPEC) as one:
        one.update(1, 1)
    with pins.open_map(MapSpec("numbers_more", MapKind.HASH, u32, u32, 16)) as other:
        assert len(other.items()[0]) == 0


def test_unpinned_maps_leave_nothing(pins: Pins) -> None:
    with pins.open_map(MapSpec("scratch", MapKind.HASH, u32, u32, 8, pinned=False)):
        assert pins.names("maps") == []


def test_a_foreign_map_under_our_name_is_replaced(pins: Pins) -> None:
    """Somebody pinned another map there: its digest lies, and the kernel's own facts tell."""
    path = pins.path("maps", f"numbers@{SPEC.digest}")
    with Map.create(pins.kernel, MapSpec("x", MapKind.HASH, u64, u64, 8)) as foreign:
        pins.put(path, foreign.fd)
    with pins.open_map(SPEC) as ours:
        assert not ours.adopted
        ours.update(1, 1)
    with pins.open_map(SPEC) as again:
        assert again.adopted


def test_programs(pins: Pins) -> None:
    assert pins.open_program("entry") is None
    with program(pins.kernel, 1) as first, program(pins.kernel, 2) as second:
        pins.pin_program("entry", first)
        pins.pin_program("entry", second)
        wanted = second.info.id
    with _found(pins.open_program("entry")) as found:
        assert found.info.id == wanted
    assert pins.names("programs") == ["entry"]


def _found(what: Any) -> Any:
    assert what is not None
    return what


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "..", "ä", "x" * 200, "half~"])
def test_names_that_the_file_system_does_not_take(pins: Pins, name: str) -> None:
    with pytest.raises(PinError, match="cannot be the name of a pin"):
        pins.path("links", name)


def test_what_a_crash_left_half_done_is_cleared(pins: Pins) -> None:
    with pins.open_map(SPEC) as opened:
        pins.kernel.pin(opened.fd, pins.root / "maps" / "numbers@1-8~")
    pins.prepare()
    assert pins.names("maps") == [f"numbers@{SPEC.digest}"]


def test_a_map_that_cannot_be_pinned_is_not_kept(tmp_path: Any) -> None:
    kernel = FakeKernel()
    pins = Pins(kernel, tmp_path)
    pins.prepare()
    kernel.fail("pin", errno.ENOSPC)
    with pytest.raises(BpfError, match="No space left"):
        pins.open_map(SPEC)
    assert kernel.open_fds == 0


def test_a_constant_table_is_written_whenever_it_is_opened(pins: Pins) -> None:
    """An agent that died between making and filling it leaves one of zeros."""
    spec = MapSpec(
        "table", MapKind.ARRAY, u32, u32, 3, content=lambda: bytes((1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0))
    )
    with pins.open_map(spec) as made:
        assert made.items()[1].tolist() == [1, 2, 3]
        made.clear()
    with pins.open_map(spec) as adopted:
        assert adopted.adopted
        assert adopted.items()[1].tolist() == [1, 2, 3]
