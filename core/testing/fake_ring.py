"""A ring buffer in memory, laid out and filled as the kernel does it."""

from __future__ import annotations

import os
import struct

import numpy as np

from axoneme.core.datapath.kernel import RingMemory
from axoneme.core.datapath.rows import round_up

_DISCARDED = 1 << 30
_BUSY = 1 << 31
_HEADER = 8


class FakeRing:
    """One ring. `size` in bytes, a power of two."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = RingMemory(
            consumer=np.zeros(1, np.uint64),
            producer=np.zeros(1, np.uint64),
            data=np.zeros(2 * size, np.uint8),
        )
        self._events = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def poll_fd(self) -> int:
        """A descriptor that polls as readable once something was written."""
        return os.dup(self._events)

    def emit(self, record: bytes, *, discard: bool = False) -> bool:
        """Writes a record and wakes the reader. False when there is no room."""
        at = self.reserve(record)
        if at is None:
            return False
        self.commit(at, len(record) | (_DISCARDED if discard else 0))
        return True

    def reserve(self, record: bytes) -> int | None:
        """Writes a record that stays busy until it is committed; where it is, or None without room."""
        position = int(self.memory.producer[0])
        room = round_up(_HEADER + len(record), 8)
        if position + room - int(self.memory.consumer[0]) > self.size - 1:
            return None
        self._write(position, struct.pack("=II", len(record) | _BUSY, 0) + record)
        self.memory.producer[0] = position + room
        return position

    def commit(self, position: int, length: int) -> None:
        """Makes a reserved record readable."""
        self._write(position, struct.pack("=I", length))
        os.eventfd_write(self._events, 1)

    def _write(self, position: int, raw: bytes) -> None:
        for index, byte in enumerate(raw):
            place = (position + index) & (self.size - 1)
            self.memory.data[place] = self.memory.data[place + self.size] = byte

    def __del__(self) -> None:
        os.close(self._events)
