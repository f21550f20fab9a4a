"""What is in the kernel's maps of services right now, read from the maps themselves: for `axoneme bpf lb`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from typing import Any, Final

import numpy as np

from axoneme.core.datapath.maps import Map
from axoneme.plugins.lb import show, writer
from axoneme.plugins.lb.annotations import ALGORITHMS
from axoneme.plugins.lb.demand import Found
from axoneme.plugins.lb.maps import SOURCE_PREFIX_BITS, Algorithm
from axoneme.plugins.lb.rows import PAIR, SERVICE

Maps = Callable[[str], Map]
_NAMES: Final = {algorithm: name for name, algorithm in ALGORITHMS.items()}


def services(maps: Maps, kinds: Mapping[bytes, list[str]]) -> list[dict[str, Any]]:
    """Rows of `lb_services4` and `…6` with the backends in their slots.

    :param kinds: what rows are, by key, as `show.kinds` has it: the agent's word, the maps do not have it.
    """
    found = writer.read(maps)
    return sorted(_services(found, kinds), key=lambda row: (row["id"], row["frontend"]))


def _services(found: Found, kinds: Mapping[bytes, list[str]]) -> Iterator[dict[str, Any]]:
    for key, value in found.rows.items():
        number, first, count, affinity, flags, algorithm, _ = SERVICE.unpack(value)
        slots = Counter(np.frombuffer(found.slots, np.uint32)[first : first + count].tolist())
        yield {
            "id": number,
            "frontend": show.frontend_text(key),
            "kind": kinds.get(key, []),
            "algorithm": _NAMES[Algorithm(algorithm)] if number else "",
            "affinity": affinity,
            "flags": show.service_flags(flags),
            "slots": count,
            "first": first,
            "backends": [
                {
                    "id": backend,
                    "address": show.backend_text(found.backends[backend])
                    if backend in found.backends
                    else "",
                    "slots": times,
                }
                for backend, times in sorted(slots.items())
            ],
        }


def backends(maps: Maps) -> list[dict[str, Any]]:
    """Rows of `lb_backends4` and `…6`."""
    loads = maps("lb_loads")
    return [
        {
            "id": number,
            "address": show.backend_text(value),
            "flags": show.backend_flags(value),
            "connections": loads.lookup(number),
        }
        for number, value in sorted(writer.read(maps).backends.items())
    ]


def source_ranges(maps: Maps) -> list[dict[str, Any]]:
    rows = []
    for entry in writer.read(maps).entries["sources"]:
        length, number = PAIR.unpack_from(entry)
        rows.append(
            {"range": str(ip_network((entry[8:], length - SOURCE_PREFIX_BITS), strict=False)), "id": number}
        )
    return sorted(rows, key=lambda row: (row["id"], row["range"]))


def tables(maps: Maps, number: int = 0) -> list[dict[str, Any]]:
    """Consistent hashing tables, by service: the numbers of backends, slot by slot."""
    found = writer.read(maps)
    slots = np.frombuffer(found.slots, np.uint32)
    rows = []
    for key, value in found.rows.items():
        owner, first, count, _, _, algorithm, _ = SERVICE.unpack(value)
        if algorithm == Algorithm.MAGLEV and count and number in (0, owner):
            table = slots[first : first + count].tolist()
            rows.append({"id": owner, "frontend": show.frontend_text(key), "table": table})
    return sorted(rows, key=lambda row: row["id"])
