"""The ring reader: order, wrap-around, records still being written, discarded ones, losses."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.datapath import asm
from axoneme.core.datapath.kernel import Program, ProgramAttributes
from axoneme.core.datapath.layout import LayoutError, Struct, u32, u64
from axoneme.core.datapath.maps import Map, MapSpec
from axoneme.core.datapath.relocate import relocate
from axoneme.core.datapath.ring import RingReader, per_cpu_sum
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.datapath.testrun import run_skb
from axoneme.core.datapath.uapi import MapKind, ProgramType
from axoneme.core.testing.fake_kernel import FakeKernel

RECORD = Struct("record", {"number": u64, "mark": u64})
SPEC = MapSpec("events", MapKind.RINGBUF, value=RECORD, max_entries=4096)
SLOTS = 4096 // 24


@pytest.fixture
def fake() -> Iterator[tuple[FakeKernel, RingReader]]:
    kernel = FakeKernel()
    with Map.create(kernel, SPEC) as ring:
        yield kernel, RingReader(ring, RECORD)


def test_records_come_in_order(fake: tuple[FakeKernel, RingReader]) -> None:
    kernel, reader = fake
    assert len(reader.read()) == 0
    for number in range(5):
        kernel.emit("events", RECORD.pack(number=number))
    assert reader.pending == 5 * 24
    assert reader.read(limit=3)["number"].tolist() == [0, 1, 2]
    assert reader.read()["number"].tolist() == [3, 4]
    assert (reader.pending, reader.read_total) == (0, 5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=30))
def test_nothing_is_lost_or_changed_over_the_edge(steps: list[tuple[bool, int]]) -> None:
    kernel = FakeKernel()
    with Map.create(kernel, SPEC) as ring:
        reader, sent, kept, got = RingReader(ring, RECORD), 0, [], []
        for discard, count in steps:
            for _ in range(count):
                assert kernel.emit("events", RECORD.pack(number=sent), discard=discard)
                kept += [] if discard else [sent]
                sent += 1
            got += reader.read()["number"].tolist()
        assert got == kept


def test_a_full_ring_takes_no_more(fake: tuple[FakeKernel, RingReader]) -> None:
    kernel, reader = fake
    taken = sum(kernel.emit("events", RECORD.pack()) for _ in range(1000))
    assert taken == SLOTS
    assert len(reader.read()) == SLOTS
    assert kernel.emit("events", RECORD.pack())


def test_reading_stops_before_a_record_that_is_being_written(fake: tuple[FakeKernel, RingReader]) -> None:
    kernel, reader = fake
    ring = kernel.map_named("events").ring
    assert ring is not None
    kernel.emit("events", RECORD.pack(number=1))
    place = ring.reserve(RECORD.pack(number=2))
    assert place is not None
    kernel.emit("events", RECORD.pack(number=3))
    assert reader.read()["number"].tolist() == [1]
    assert reader.read().tolist() == []
    ring.commit(place, RECORD.size)
    assert reader.read()["number"].tolist() == [2, 3]


def test_a_record_of_another_size_is_an_error_and_not_the_end(fake: tuple[FakeKernel, RingReader]) -> None:
    kernel, reader = fake
    kernel.emit("events", bytes(8))
    kernel.emit("events", bytes(8))
    with pytest.raises(LayoutError, match="not 16 bytes"):
        reader.read()
    kernel.emit("events", RECORD.pack(number=1))
    assert reader.read()["number"].tolist() == [1]


def test_only_rings_are_read() -> None:
    with (
        Map.create(FakeKernel(), MapSpec("m", MapKind.HASH, u32, u32)) as other,
        pytest.raises(LayoutError, match="no ring"),
    ):
        RingReader(other, RECORD)


def test_losses_are_what_was_counted_since() -> None:
    kernel = FakeKernel()
    counters = Map.create(kernel, MapSpec("losses", MapKind.PERCPU_ARRAY, u32, u64))
    counters.update(0, np.array([3, 4], "u8"))
    reader = RingReader(Map.create(kernel, SPEC), RECORD, per_cpu_sum(counters))
    assert reader.lost() == 0
    counters.update(0, np.array([5, 7], "u8"))
    assert reader.lost() == 5
    assert reader.lost() == 0


async def test_batches(fake: tuple[FakeKernel, RingReader]) -> None:
    """Each batch makes room for the next records; the reader waits when it has caught up."""
    kernel, reader = fake
    loop = asyncio.get_running_loop()
    numbers = iter(range(1000))
    got: list[int] = []

    def fill() -> None:
        for number in itertools.islice(numbers, SLOTS):
            assert kernel.emit("events", RECORD.pack(number=number))

    loop.call_soon(fill)
    async for batch in reader.batches(pause=0):
        got += batch["number"].tolist()
        if len(got) == 1000:
            break
        loop.call_soon(fill)
    assert got == list(range(1000))


def emitting(fd: int, flags: int) -> bytes:
    """A program that emits a record of (mark, mark)."""
    text = b"".join(
        (
            asm.load_word(6, 1, 8),
            asm.load_map(1, 1),
            asm.mov(2, RECORD.size),
            asm.mov(3, 0),
            asm.call(131),
            asm.jump_if_zero(0, 5),
            asm.store_double(0, 0, 6),
            asm.store_double(0, 8, 6),
            asm.copy(1, 0),
            asm.mov(2, flags),
            asm.call(132),
            asm.mov(0, 0),
            asm.leave(),
        )
    )
    return relocate(text, {1: fd})


@pytest.mark.kernel
@pytest.mark.parametrize("flags", [0, 1], ids=["wakes", "does not wake"])
async def test_the_running_kernel(running_kernel: SyscallKernel, flags: int) -> None:
    with Map.create(running_kernel, SPEC) as ring:
        attributes = ProgramAttributes(
            type=ProgramType.SCHED_CLS, name="emit", instructions=emitting(ring.fd, flags)
        )
        reader = RingReader(ring, RECORD)
        with Program.load(running_kernel, attributes) as program:
            got: list[int] = []
            for start in range(0, 1000, 100):  # several times around the ring
                for mark in range(start, start + 100):
                    run_skb(program, bytes(64), mark=mark)
                assert reader.wait(5)
                async for batch in reader.batches(pause=0):
                    assert (batch["number"] == batch["mark"]).all()
                    got += batch["mark"].tolist()
                    if len(got) == start + 100:
                        break
            assert got == list(range(1000))
            run_skb(program, bytes(64), repeat=1000)
            assert len(reader.read()) == SLOTS
        reader.close()


def test_the_fake_ring_is_laid_out_as_the_kernels() -> None:
    kernel = FakeKernel()
    with Map.create(kernel, SPEC):
        kernel.emit("events", RECORD.pack(number=7), discard=True)
        ring = kernel.map_named("events").ring
        assert ring is not None
        assert ring.memory.data[:8].tobytes() == struct.pack("=II", 16 | 1 << 30, 0)
        assert ring.memory.data[4096:4120].tobytes() == ring.memory.data[:24].tobytes()
