"""Open maps: read and written in batches as numpy arrays, reconciled by writing only the difference.

connections = Map.create(kernel, MapSpec("connections", MapKind.LRU_HASH, tuple4, entry, 65536))
keys, values = connections.items()
idle = values["last_seen"] < deadline
connections.delete_batch(keys[idle])
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

import numpy as np
from attrs import frozen

from axoneme.core.datapath import rows
from axoneme.core.datapath.kernel import BpfError, Buffer, Handle, Kernel, MapFull, MapInfo
from axoneme.core.datapath.layout import LayoutError, Scalar, c_type
from axoneme.core.datapath.spec import Layout, MapError, MapSpec
from axoneme.core.datapath.uapi import ENOTSUPP, MapKind
from axoneme.core.datapath.usage import OPERATIONS

__all__ = ["Diff", "Map", "MapError", "MapKind", "MapSpec"]

#: Entries per batch system call: so many that the call's own cost is lost in them, so few that the kernel, which does not
#: reschedule within one, is done in a few milliseconds.
CHUNK = 16384

_NO_BATCHES = frozenset({errno.EINVAL, errno.EOPNOTSUPP, ENOTSUPP})


@frozen
class Diff:
    """How many entries a reconciliation wrote."""

    added: int = 0
    changed: int = 0
    removed: int = 0

    @property
    def total(self) -> int:
        return self.added + self.changed + self.removed


class Map(Handle):
    """An open map.

    Keys and values are numbers for scalar layouts; for structs they are mappings, bytes or numpy records. In batches they
    are numpy arrays of the layouts' dtypes (or lists of mappings or numbers, where few).
    """

    def __init__(self, kernel: Kernel, spec: MapSpec, fd: int, *, adopted: bool = False) -> None:
        super().__init__(kernel, fd)
        self.spec = spec
        #: The map was there before, with its entries.
        self.adopted = adopted
        self._entries_seen: int | None = None
        self._key_dtype = spec.key.dtype if spec.key else np.dtype("V0")
        self._value_dtype = spec.value.dtype if spec.value else np.dtype("V0")
        self._entry_dtype = self._value_dtype
        if spec.kind.per_cpu:
            self._entry_dtype = _per_cpu(self._value_dtype, kernel.possible_cpus)
        self._entry_size = self._entry_dtype.itemsize

    @classmethod
    def create(cls, kernel: Kernel, spec: MapSpec) -> Map:
        """A new, empty, unpinned map. Raises `BpfError`."""
        if spec.inner is None:
            made = cls(kernel, spec, kernel.map_create(spec.attributes()))
            made.fill()
            return made
        with cls.create(kernel, spec.inner) as template:
            return cls(kernel, spec, kernel.map_create(spec.attributes(template.fd)))

    def fill(self) -> None:
        """Writes what a constant table holds; other maps stay as they are."""
        if self.spec.content is not None:
            entries = np.frombuffer(self.spec.content(), self._value_dtype)
            self.update_batch(range(len(entries)), entries)

    @property
    def info(self) -> MapInfo:
        return self.kernel.map_info(self.fd)

    @property
    def id(self) -> int:
        return self.info.id

    # One entry.

    def lookup(self, key: Any) -> Any:
        """The value or None: `int` for a scalar, `np.void` for a struct, an array over CPUs for a per-CPU map.

        In an LPM trie, the value of the longest prefix that matches.
        """
        found = self.kernel.map_lookup(self.fd, _pack(self.spec.key, key), self._entry_size)
        if found is None:
            return None
        if self.spec.kind.per_cpu:
            return np.frombuffer(found, self._entry_dtype)["cpu"]["v"][0]
        value = np.frombuffer(found, self._value_dtype)[0]
        return int(value) if isinstance(self.spec.value, Scalar) else value

    def update(self, key: Any, value: Any, flags: int = 0) -> None:
        """Writes one entry; for a per-CPU map `value` is an array over CPUs, or one value for all of them.

        :raises MapFull: when there is no room.
        :raises BpfError: with EEXIST or ENOENT, for the flags `UpdateFlag.NOEXIST` and `EXIST`.
        """
        try:
            self.kernel.map_update(self.fd, _pack(self.spec.key, key), self._pack_value(value), flags)
        except BpfError as error:
            OPERATIONS.add(self.spec.name, "update", ok=False)
            raise self._named(error) from None
        OPERATIONS.add(self.spec.name, "update")
        self._entries_seen = None

    def delete(self, key: Any) -> bool:
        """False when there was no such entry."""
        deleted = self.kernel.map_delete(self.fd, _pack(self.spec.key, key))
        OPERATIONS.add(self.spec.name, "delete", ok=deleted)
        self._entries_seen = None
        return deleted

    def _pack_value(self, value: Any) -> bytes:
        if not self.spec.kind.per_cpu:
            return _pack(self.spec.value, value)
        entry = np.zeros(1, self._entry_dtype)
        if not isinstance(value, np.ndarray):
            value = np.frombuffer(_pack(self.spec.value, value), self._value_dtype)
        entry["cpu"]["v"][0] = value
        return entry.tobytes()

    def _named(self, error: BpfError) -> BpfError:
        """The error with the map's name."""
        operation = f"map {self.spec.name}: {error.operation}"
        if isinstance(error, MapFull):
            hint = f"it is made for {self.spec.max_entries} entries"
            return MapFull(operation, error.errno, written=error.written, hint=hint)
        return BpfError(operation, error.errno)

    # Many entries.

    def items(self) -> tuple[Buffer, Buffer]:
        """All keys and values, as arrays of equal length; per-CPU values have the shape (entries, CPUs).

        Entries that are added or removed meanwhile may or may not be seen.
        """
        try:
            keys, entries = self._items_by_batch()
        except BpfError as error:
            if error.errno not in _NO_BATCHES:
                raise self._named(error) from None
            keys, entries = self._items_one_by_one()
        if not self.spec.kind.indexed:
            self._entries_seen = len(keys)
        return keys, self._values_of(entries)

    def lookup_each(self, keys: Any) -> tuple[Buffer, Buffer]:
        """Which of these keys are there, as a mask, and their values, which are zeros elsewhere.

        A system call per key: for the few keys of many for which `items` would be too much, or too early.
        """
        key_rows = self._keys(keys)
        entries = np.zeros(len(key_rows), self._entry_dtype)
        found = self.kernel.map_lookup_each(self.fd, key_rows, entries)
        return found, self._values_of(entries)

    def first(self, count: int) -> Buffer:
        """The values of the first entries of an array, at most `count`: what `items` gives, without reading all of it."""
        if not self.spec.kind.indexed or self.spec.kind.per_cpu:
            raise MapError(f"map {self.spec.name}: only an array has first entries")
        try:
            _, entries = self._items_by_batch(min(count, self.spec.max_entries))
        except BpfError as error:
            if error.errno not in _NO_BATCHES:
                raise self._named(error) from None
            entries = self._items_one_by_one()[1]
        return self._values_of(entries[:count])

    def _items_by_batch(self, most: int | None = None) -> tuple[Buffer, Buffer]:
        wanted = self.spec.max_entries if most is None else most
        step = min(self.spec.max_entries, CHUNK)
        keys = rows.scratch(wanted + step, self._key_dtype)
        entries = rows.scratch(wanted + step, self._entry_dtype)
        filled, cursor, more = 0, None, True
        while more and (most is None or filled < most):
            if len(keys) - filled < step:
                keys, entries = rows.grown(keys, step), rows.grown(entries, step)
            here = slice(filled, filled + step)
            try:
                count, cursor = self.kernel.map_lookup_batch(self.fd, cursor, keys[here], entries[here])
            except BpfError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step *= 2  # one bucket of the hash has more entries than that
                continue
            filled, more = filled + count, cursor is not None
        return keys[:filled], entries[:filled]

    def _items_one_by_one(self) -> tuple[Buffer, Buffer]:
        keys, entries = [], []
        key = self.kernel.map_next_key(self.fd, None, self.spec.key_size)
        while key is not None:
            if (entry := self.kernel.map_lookup(self.fd, key, self._entry_size)) is not None:
                keys.append(key)
                entries.append(entry)
            key = self.kernel.map_next_key(self.fd, key, self.spec.key_size)
        return (
            np.frombuffer(b"".join(keys), self._key_dtype),
            np.frombuffer(b"".join(entries), self._entry_dtype),
        )

    def _values_of(self, entries: Buffer) -> Buffer:
        values: Buffer = entries["cpu"]["v"] if self.spec.kind.per_cpu else entries
        return values

    def update_batch(self, keys: Any, values: Any) -> None:
        """Writes all entries, in order. Values of a per-CPU map have the shape (entries, CPUs).

        :raises MapFull: when there is no room; `written` entries are in the map.
        """
        key_rows, entries = self._keys(keys), self._entries(values)
        self._entries_seen = None
        if len(key_rows) != len(entries):
            raise MapError(f"map {self.spec.name}: {len(key_rows)} keys and {len(entries)} values")
        for start in range(0, len(key_rows), CHUNK):
            here = slice(start, start + CHUNK)
            try:
                self._update_chunk(key_rows[here], entries[here])
            except BpfError as error:
                OPERATIONS.add(self.spec.name, "update", ok=False)
                if isinstance(error, MapFull):
                    error.written += start
                raise self._named(error) from None
            OPERATIONS.add(self.spec.name, "update", times=len(key_rows[here]))

    def _update_chunk(self, keys: Buffer, entries: Buffer) -> None:
        try:
            self.kernel.map_update_batch(self.fd, keys, entries)
        except BpfError as error:
            if error.errno not in _NO_BATCHES:
                raise
            self._update_one_by_one(keys, entries)

    def _update_one_by_one(self, keys: Buffer, entries: Buffer) -> None:
        for written, (key, entry) in enumerate(zip(keys, entries, strict=True)):
            try:
                self.kernel.map_update(self.fd, key.tobytes(), entry.tobytes())
            except MapFull as error:
                error.written = written
                raise

    def count(self) -> int:
        """How many entries there are, of a map that has no fixed number of them.

        What was last read counts, unless this process wrote since. So of a map into which programs write it is the number
        of the last reading.
        """
        if self._entries_seen is None:
            self.items()
        return self._entries_seen or 0

    def add_missing(self, keys: Any, values: Any) -> int:
        """Writes the entries whose keys are not there, and says how many they were. Those that are there stay."""
        key_rows, given = self._keys(keys), np.asarray(values)
        wanted = rows.missing(key_rows, self.items()[0])
        self.update_batch(key_rows[wanted], given[wanted])
        return len(wanted)

    def delete_batch(self, keys: Any) -> int:
        """Deletes these keys and says how many of them were there."""
        deleted = self._delete_batch(self._keys(keys))
        self._entries_seen = None
        OPERATIONS.add(self.spec.name, "delete", times=deleted)
        return deleted

    def _delete_batch(self, key_rows: Buffer) -> int:
        position, deleted = 0, 0
        while position < len(key_rows):
            chunk = key_rows[position : position + CHUNK]
            try:
                count = self.kernel.map_delete_batch(self.fd, chunk)
            except BpfError as error:
                if error.errno not in _NO_BATCHES:
                    raise self._named(error) from None
                return deleted + sum(
                    self.kernel.map_delete(self.fd, key.tobytes()) for key in key_rows[position:]
                )
            # The kernel stops at the first key that is missing: go on behind it.
            deleted, position = deleted + count, position + count + (count < len(chunk))
        return deleted

    def clear(self) -> int:
        """Deletes all entries (writes zeros, in an array) and says how many there were."""
        keys, values = self.items()
        if not self.spec.kind.indexed:
            return self.delete_batch(keys)
        used = rows.nonzero(values)
        self._write_zeros(keys[used])
        return int(used.sum())

    def _write_zeros(self, keys: Buffer) -> None:
        entries = np.zeros(len(keys), self._entry_dtype)
        self.update_batch(keys, self._values_of(entries))

    def _keys(self, keys: Any) -> Buffer:
        return _array(self.spec.key, self._key_dtype, keys)

    def _entries(self, values: Any) -> Buffer:
        if not self.spec.kind.per_cpu:
            return _array(self.spec.value, self._value_dtype, values)
        values = np.asarray(values)
        if values.ndim != 2 or values.shape[1] != self.kernel.possible_cpus:
            raise MapError(f"map {self.spec.name}: values of shape {values.shape}, not (entries, CPUs)")
        entries = np.zeros(len(values), self._entry_dtype)
        entries["cpu"]["v"] = values
        return entries

    # Desired against actual.

    def reconcile(self, keys: Any, values: Any) -> Diff:
        """Makes the map hold exactly these entries and writes only what differs.

        What is added or changed is written before the rest is removed, so nothing that stays is ever missing; only when
        the map has no room for that does removal go first. In arrays, an entry of zeros counts as absent. In LPM tries,
        the bits behind a key's prefix do not count.

        :raises MapFull: when the desired entries do not fit.
        :raises MapError: when a key is desired twice, or the map is per-CPU (programs write those).
        """
        if self.spec.kind.per_cpu:
            raise MapError(f"map {self.spec.name}: a per-CPU map has no desired state")
        desired = self._normal(self._keys(keys), self._entries(values))
        actual = self._normal(*self.items())
        try:
            plan = rows.compare(*desired, *actual)
        except ValueError as error:
            raise MapError(f"map {self.spec.name}: {error}") from None
        self._apply(plan, *desired, actual[0][plan.removed])
        self._entries_seen = len(desired[0])
        return Diff(len(plan.added), len(plan.changed), len(plan.removed))

    def _normal(self, keys: Buffer, values: Buffer) -> tuple[Buffer, Buffer]:
        if self.spec.kind.indexed:
            used = rows.nonzero(values)
            return keys[used], values[used]
        return (rows.masked_prefixes(keys), values) if self.spec.kind is MapKind.LPM_TRIE else (keys, values)

    def _apply(self, plan: rows.Plan, keys: Buffer, values: Buffer, unwanted: Buffer) -> None:
        written = np.concatenate([plan.changed, plan.added])
        try:
            self.update_batch(keys[written], values[written])
        except MapFull:
            if not len(unwanted):
                raise
            self._remove(unwanted)
            self.update_batch(keys[written], values[written])
        else:
            self._remove(unwanted)

    def _remove(self, keys: Buffer) -> None:
        if self.spec.kind.indexed:
            self._write_zeros(keys)
        else:
            self.delete_batch(keys)

    def describe(self) -> Mapping[str, Any]:
        """What people want to know of the map, ready to be printed or serialised."""
        spec, info = self.spec, self.info
        return {
            "name": spec.name,
            "kind": spec.kind.name.lower(),
            "id": info.id,
            "key": c_type(spec.key) if spec.key else None,
            "value": c_type(spec.value) if spec.value else None,
            "key_size": info.key_size,
            "value_size": info.value_size,
            "max_entries": info.max_entries,
            "flags": info.flags,
            "pinned": spec.pinned,
            "digest": spec.digest,
            "doc": spec.doc,
        }

    def __repr__(self) -> str:
        return f"<Map {self.spec.name} {self.spec.kind.name} fd={self._fd}>"


def _per_cpu(value: np.dtype[Any], cpus: int) -> np.dtype[Any]:
    """One entry of a per-CPU map: a value per possible CPU, each rounded up to 8 bytes."""
    slot = np.dtype(
        {"names": ["v"], "formats": [value], "offsets": [0], "itemsize": rows.round_up(value.itemsize, 8)}
    )
    return np.dtype([("cpu", slot, (cpus,))])


def _pack(layout: Layout | None, value: Any) -> bytes:
    if layout is None:
        raise MapError("this kind of map has no entries to look up")
    if isinstance(value, Mapping) and not isinstance(layout, Scalar):
        return layout.pack(**value)
    if isinstance(value, np.void | bytes):
        raw = value if isinstance(value, bytes) else value.tobytes()
        if len(raw) != layout.size:
            raise LayoutError(f"{layout.name} has {layout.size} bytes, not {len(raw)}")
        return raw
    if isinstance(layout, Scalar):
        return layout.pack(value)
    raise LayoutError(f"{value!r} is no {c_type(layout)}", hint="give a mapping, bytes or a numpy record")


def _array(layout: Layout | None, dtype: np.dtype[Any], given: Any) -> Buffer:
    """The rows as a contiguous array of exactly this dtype."""
    if isinstance(given, np.ndarray) and given.dtype == dtype:
        return np.ascontiguousarray(given)
    if layout is None or (isinstance(given, np.ndarray) and given.dtype.names):
        raise LayoutError(f"an array of {given.dtype} is not one of {dtype}")
    if not isinstance(layout, Scalar):
        return layout.array(given)
    return np.frombuffer(b"".join(layout.pack(number) for number in given), dtype)
