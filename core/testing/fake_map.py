"""The content of a map in memory, by the rules of its kind."""

from __future__ import annotations

import errno
import struct
from collections import OrderedDict

from attrs import define, field

from axoneme.core.datapath.kernel import BpfError, MapAttributes, MapFull
from axoneme.core.datapath.rows import round_up
from axoneme.core.datapath.uapi import MapKind, UpdateFlag
from axoneme.core.testing.fake_ring import FakeRing

_LRU = frozenset({MapKind.LRU_HASH, MapKind.LRU_PERCPU_HASH})


@define
class FakeMap:
    """`entries` from key bytes to value bytes, least recently used first."""

    id: int
    attributes: MapAttributes
    entry_size: int
    entries: OrderedDict[bytes, bytes] = field(factory=OrderedDict)
    ring: FakeRing | None = None
    frozen: bool = False

    @classmethod
    def new(cls, number: int, attributes: MapAttributes, cpus: int) -> FakeMap:
        """An empty map; an array is full of zeros."""
        per_cpu = attributes.kind.per_cpu
        size = round_up(attributes.value_size, 8) * cpus if per_cpu else attributes.value_size
        made = cls(number, attributes, size)
        if attributes.kind is MapKind.RINGBUF:
            made.ring = FakeRing(attributes.max_entries)
        if attributes.kind.indexed:
            made.entries.update((struct.pack("=I", i), bytes(size)) for i in range(attributes.max_entries))
        return made

    @property
    def _is_trie(self) -> bool:
        return self.attributes.kind is MapKind.LPM_TRIE

    def lookup(self, key: bytes) -> bytes | None:
        if self._is_trie:
            found = max(
                (stored for stored in self.entries if _covers(stored, key)), key=_prefix, default=None
            )
            return None if found is None else self.entries[found]
        if key in self.entries and self.attributes.kind in _LRU:
            self.entries.move_to_end(key)
        return self.entries.get(key)

    def update(self, key: bytes, value: bytes, flags: int = 0) -> None:
        if self.frozen:
            raise BpfError("update", errno.EPERM)
        if len(key) != self.attributes.key_size or len(value) != self.entry_size:
            raise BpfError("update (the kernel would read past the buffer)", errno.EFAULT)
        present = self._stored(key)
        self._check(present, flags)
        if present is not None and present != key:
            del self.entries[present]  # a trie keeps the bytes of the last writer
        self.entries[key] = value

    def _check(self, present: bytes | None, flags: int) -> None:
        if present is not None and flags == UpdateFlag.NOEXIST:
            raise BpfError("update", errno.EEXIST)
        if present is not None:
            return
        if self.attributes.kind.indexed:  # an index past the end
            raise MapFull("update", errno.E2BIG)
        if flags == UpdateFlag.EXIST:
            raise BpfError("update", errno.ENOENT)
        if len(self.entries) >= self.attributes.max_entries:
            self._make_room()

    def _make_room(self) -> None:
        if self.attributes.kind not in _LRU:
            raise MapFull("update", errno.ENOSPC if self._is_trie else errno.E2BIG)
        self.entries.popitem(last=False)

    def delete(self, key: bytes) -> bool:
        if self.attributes.kind.indexed:
            raise BpfError("delete", errno.EINVAL)
        present = self._stored(key)
        return present is not None and self.entries.pop(present, None) is not None

    def _stored(self, key: bytes) -> bytes | None:
        """The stored key that means the same."""
        if not self._is_trie:
            return key if key in self.entries else None
        if _prefix(key) > 8 * (len(key) - 4):
            raise BpfError("use trie", errno.EINVAL)
        return next((k for k in self.entries if _prefix(k) == _prefix(key) and _covers(k, key)), None)


def _prefix(key: bytes) -> int:
    return int(struct.unpack_from("=I", key)[0])


def _covers(stored: bytes, key: bytes) -> bool:
    """Whether the stored prefix contains the key's."""
    length = _prefix(stored)
    if length > _prefix(key):
        return False
    cut = 8 * (len(stored) - 4) - length
    return int.from_bytes(stored[4:], "big") >> cut == int.from_bytes(key[4:], "big") >> cut
