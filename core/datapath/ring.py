"""Reads a BPF ring buffer through shared memory, whole stretches of records at once, as numpy arrays.

The kernel's layout: a page that holds how far the reader is, a page that holds how far the kernel is, and the data, mapped
twice in a row. Each record has a header of 8 bytes, whose first word is the length with two flags, and is filled up to a
multiple of 8 bytes. Records here are all of one size, so a stretch of them is an array.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import numpy as np

from axoneme.core.datapath.layout import LayoutError, Struct
from axoneme.core.datapath.maps import Map, MapKind
from axoneme.core.datapath.rows import round_up

Records: TypeAlias = np.ndarray[Any, Any]

_BUSY = np.uint32(1 << 31)
_DISCARDED = np.uint32(1 << 30)
_HEADER = 8

#: How long a reader waits at most before it looks by itself, in seconds: programs need not wake it for each record.
PATIENCE = 0.1


class RingReader:
    """The only reader of a ring. Not safe for several threads at once.

    :param record: the layout of every record in the ring.
    :param losses: tells how many records found no room since the programs' counters began, all CPUs together. The ring
        itself does not count them.
    """

    def __init__(self, ring: Map, record: Struct, losses: Callable[[], int] | None = None) -> None:
        if ring.spec.kind is not MapKind.RINGBUF:
            raise LayoutError(f"map {ring.spec.name} is no ring buffer")
        self._ring = ring
        self._record = record
        self._size = ring.spec.max_entries
        self._slot = _slot(record)
        self._memory = ring.kernel.ring_memory(ring.fd, self._size)
        self._losses = losses
        self._reported = losses() if losses else 0
        #: How many records were read.
        self.read_total = 0

    @property
    def pending(self) -> int:
        """Bytes that the kernel has written and nobody has read."""
        return int(self._memory.producer[0]) - int(self._memory.consumer[0])

    def read(self, limit: int = 1 << 16) -> Records:
        """The records that are complete, at most `limit`, as an own copy; empty when there are none.

        :raises LayoutError: when a record of another size is in the ring; the ring is emptied then.
        """
        consumed, stride = int(self._memory.consumer[0]), self._slot.itemsize
        count = min((int(self._memory.producer[0]) - consumed) // stride, limit)
        if count <= 0:
            return np.empty(0, self._record.dtype)
        start = consumed & (self._size - 1)
        stretch = self._memory.data[start : start + count * stride].view(self._slot)
        taken, records = self._complete(stretch)
        self._memory.consumer[0] = consumed + taken * stride
        self.read_total += len(records)
        return records

    def _complete(self, stretch: Records) -> tuple[int, Records]:
        """How many slots are done with, and the records in them that were not discarded."""
        headers = stretch["length"].copy()
        busy = np.flatnonzero(headers & _BUSY)
        taken = int(busy[0]) if len(busy) else len(headers)
        headers = headers[:taken]
        if (headers & ~_DISCARDED != self._record.size).any():
            self._memory.consumer[0] = self._memory.producer[0]
            raise LayoutError(
                f"ring {self._ring.spec.name} holds a record that is not {self._record.size} bytes"
                f" (struct {self._record.name})"
            )
        kept = headers & _DISCARDED == 0
        records = stretch["record"][:taken]
        return taken, records.copy() if kept.all() else records[kept]

    def lost(self) -> int:
        """How many records found no room since this was last asked."""
        if self._losses is None:
            return 0
        now, before = self._losses(), self._reported
        self._reported = now
        return now - before

    def wait(self, timeout: float) -> bool:
        """Blocks until there is something to read, or that many seconds. Returns whether there is."""
        poll = select.poll()
        poll.register(self._ring.fd, select.POLLIN)
        return self.pending > 0 or bool(poll.poll(timeout * 1000))

    async def batches(self, *, pause: float = 0.01, patience: float = PATIENCE) -> AsyncIterator[Records]:
        """Yields what was written, again and again, never an empty array.

        :param pause: seconds between two reads, in which records gather: at a high rate, that makes for few large batches.
        :param patience: seconds after which it looks without having been woken.
        """
        woken = False
        while True:
            if len(records := self.read()):
                yield records
            elif not woken:
                woken = await self._woken(patience)
                continue
            # Also when a wake-up brought nothing: the first record is still being written, and the ring stays readable.
            await asyncio.sleep(pause)
            woken = False

    async def _woken(self, patience: float) -> bool:
        loop, readable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._ring.fd, readable.set)
        try:
            async with asyncio.timeout(patience):
                return await readable.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(self._ring.fd)

    def close(self) -> None:
        """Lets go of the shared memory; the map stays open, it is its owner's."""
        del self._memory


def _slot(record: Struct) -> np.dtype[Any]:
    return np.dtype(
        {
            "names": ["length", "record"],
            "formats": [np.uint32, record.dtype],
            "offsets": [0, _HEADER],
            "itemsize": round_up(_HEADER + record.size, 8),
        }
    )


def per_cpu_sum(counters: Map, index: int = 0) -> Callable[[], int]:
    """A reading of one counter in a per-CPU array, all CPUs added up; for `losses`."""

    def read() -> int:
        values = counters.lookup(index)
        return 0 if values is None else int(values.sum())

    return read
