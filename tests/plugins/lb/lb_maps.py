"""The maps as dictionaries: what the kernel would see after each single write."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from attrs import define, field

from axoneme.plugins.lb.demand import KINDS, Found, Writes
from axoneme.plugins.lb.rows import SERVICE


@define
class Maps:
    """Content of the maps as the bytes that the kernel has."""

    rows: dict[bytes, bytes] = field(factory=dict)
    backends: dict[int, bytes] = field(factory=dict)
    slots: dict[int, int] = field(factory=dict)
    entries: dict[str, set[bytes]] = field(factory=lambda: {kind: set() for kind in KINDS})

    def apply(self, writes: Writes) -> Iterator[None]:
        """Does one write after the other, in the writer's order; stops after each."""
        for number, value in writes.backends.items():
            self.backends[number] = value
            yield
        for first, content in writes.slots.items():
            for at, slot in enumerate(np.frombuffer(content, np.uint32).tolist()):
                self.slots[first + at] = slot
                yield
        for kind, entries in writes.entries.items():
            for entry in entries:
                self.entries[kind].add(entry)
                yield
        for key, value in writes.rows.items():
            self.rows[key] = value
            yield
        for key in writes.drop_rows:
            self.rows.pop(key, None)
            yield
        for kind, entries in writes.drop_entries.items():
            for entry in entries:
                self.entries[kind].discard(entry)
                yield

    def backends_of(self, key: bytes) -> list[bytes]:
        """What the kernel may choose from for a row: backends as bytes; fails on a slot with nothing behind it."""
        _, first, count, *_ = SERVICE.unpack(self.rows[key])
        found = []
        for slot in range(first, first + count):
            value = self.backends[self.slots[slot]]
            assert value[-2] & 1, "a backend that is none"
            found.append(value[:-2] + bytes((value[-1], 0)))
        return found

    def found(self) -> Found:
        """What an agent finds at its start."""
        end = max(self.slots, default=-1) + 1
        content = np.zeros(end, np.uint32)
        for at, slot in self.slots.items():
            content[at] = slot
        used = {number: value for number, value in self.backends.items() if any(value)}
        return Found(dict(self.rows), used, content.tobytes(), {k: set(v) for k, v in self.entries.items()})
