"""Between an image and the kernel's maps: reads what they hold at the start, and does writes, in their order, in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np

from axoneme.core.datapath.kernel import MapFull
from axoneme.core.datapath.layout import Struct
from axoneme.core.datapath.maps import Map
from axoneme.plugins.lb.demand import Found, Writes
from axoneme.plugins.lb.maps import BACKEND, FRONTEND, MEMBER, SKIP, SOURCE
from axoneme.plugins.lb.maps import SERVICE as ROW
from axoneme.plugins.lb.rows import SERVICE

Array = np.ndarray[Any, Any]

#: Gives a map by name; the build that runs decides which.
Maps = Callable[[str], Map]
_FAMILIES: Final = (4, 6)


def read(maps: Maps) -> Found:
    """What is in the maps now."""
    rows: dict[bytes, bytes] = {}
    backends: dict[int, bytes] = {}
    for family in _FAMILIES:
        keys, values = maps(f"lb_services{family}").items()
        rows.update(zip(split(keys), split(values), strict=True))
        numbers, values = maps(f"lb_backends{family}").items()
        used = values["flags"] != 0
        backends.update(zip(numbers[used].tolist(), split(values[used]), strict=True))
    ends = (first + count for _, first, count, *_ in map(SERVICE.unpack, rows.values()) if count)
    end = max(ends, default=0)
    slots = maps("lb_slots").first(end).tobytes() if end else b""
    entries = {
        "members": split(maps("lb_members").items()[0]),
        "skips": split(maps("lb_skips").items()[0]),
        "sources": [key for family in _FAMILIES for key in split(maps(f"lb_sources{family}").items()[0])],
    }
    return Found(rows, backends, slots, entries)


def write(maps: Maps, writes: Writes) -> None:
    """In their order; only where a map has no room for that, what is to be dropped from it goes first.

    :raises BpfError: `MapFull` among them; then any part may have been done.
    """
    _write_backends(maps, writes.backends)
    _write_slots(maps, writes.slots)
    for kind, entries in writes.entries.items():
        unwanted = {name: keys for name, _, keys in _entry_maps(kind, writes.drop_entries[kind])}
        for name, layout, keys in _entry_maps(kind, entries):
            dropped = _array(layout, unwanted.get(name, ()))
            _update(maps(name), _array(layout, keys), np.ones(len(keys), np.uint32), dropped)
    for family, size in ((4, 8), (6, 20)):
        chosen = {key: value for key, value in writes.rows.items() if len(key) == size}
        dropped = _array(FRONTEND[family], [key for key in writes.drop_rows if len(key) == size])
        table = maps(f"lb_services{family}")
        if chosen:
            _update(table, _array(FRONTEND[family], chosen), _array(ROW, chosen.values()), dropped)
        if len(dropped):
            table.delete_batch(dropped)
    for kind, entries in writes.drop_entries.items():
        for name, layout, keys in _entry_maps(kind, entries):
            maps(name).delete_batch(_array(layout, keys))


def _update(table: Map, keys: Array, values: Array, unwanted: Array) -> None:
    """Writes these entries. Where there is no room for them, those that are to be dropped go first."""
    try:
        table.update_batch(keys, values)
    except MapFull:
        if not len(unwanted):
            raise
        table.delete_batch(unwanted)
        table.update_batch(keys, values)


def _write_backends(maps: Maps, backends: Mapping[int, bytes]) -> None:
    for family, size in ((4, 8), (6, 20)):
        chosen = {number: value for number, value in backends.items() if len(value) == size}
        if chosen:
            keys = np.fromiter(chosen, np.uint32, len(chosen))
            maps(f"lb_backends{family}").update_batch(keys, _array(BACKEND[family], chosen.values()))


def _write_slots(maps: Maps, slots: Mapping[int, bytes]) -> None:
    if not slots:
        return
    content = np.frombuffer(b"".join(slots.values()), np.uint32)
    counts = np.fromiter((len(one) // 4 for one in slots.values()), np.int64, len(slots))
    firsts = np.fromiter(slots, np.int64, len(slots))
    ends = np.cumsum(counts)
    keys = np.arange(len(content)) + np.repeat(firsts - ends + counts, counts)
    maps("lb_slots").update_batch(keys.astype(np.uint32), content)


def _entry_maps(kind: str, entries: Iterable[bytes]) -> list[tuple[str, Struct, list[bytes]]]:
    """Map, layout of its keys, and keys, of those that there are."""
    entries = list(entries)
    if kind != "sources":
        layout = MEMBER if kind == "members" else SKIP
        return [(f"lb_{kind}", layout, entries)] if entries else []
    found = []
    for family in _FAMILIES:
        keys = [entry for entry in entries if len(entry) == SOURCE[family].size]
        if keys:
            found.append((f"lb_sources{family}", SOURCE[family], keys))
    return found


def _array(layout: Struct, rows: Iterable[bytes]) -> Array:
    return np.frombuffer(b"".join(rows), layout.dtype)


def split(rows: Array) -> list[bytes]:
    """Each row's bytes."""
    size = rows.dtype.itemsize
    raw = np.ascontiguousarray(rows).tobytes()
    return [raw[at : at + size] for at in range(0, len(raw), size)]
