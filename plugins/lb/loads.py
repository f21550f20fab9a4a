"""How many connections each backend has: counted in the connection table, for services that choose by it.

The programs count one up for each choice; what ended, or never was, is taken away here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import numpy as np

from axoneme.core.datapath.abi import ConnectionFlag
from axoneme.core.datapath.maps import Map
from axoneme.core.plugin import PluginContext
from axoneme.plugins.lb.rows import family_of

Rows = np.ndarray[Any, Any]

#: Seconds between two counts.
INTERVAL: Final = 2.0


class Loads:
    """A service.

    :param backends: gives the backends to be counted: their keys and numbers. Nobody: nothing is read.
    """

    def __init__(self, context: PluginContext, backends: Callable[[], Mapping[bytes, int]]) -> None:
        self._context = context
        self._backends = backends

    async def run(self, ready: Callable[[], None]) -> None:
        """Until it is cancelled; see `axoneme.core.records.Service`."""
        ready()
        while True:
            backends = dict(self._backends())
            if backends:
                await asyncio.to_thread(self.count, backends)
            await asyncio.sleep(INTERVAL)

    def count(self, backends: Mapping[bytes, int]) -> None:
        """Counts once and writes what differs."""
        numbers = np.fromiter(backends.values(), np.uint32, len(backends))
        counts = np.zeros(len(backends), np.uint32)
        positions = {key: at for at, key in enumerate(backends)}
        for family in (4, 6):
            chosen = [key for key in backends if family_of(key) == family]
            table = self._context.map(f"connections{family}")
            if chosen:
                with table.held():
                    found = live_by_backend(chosen, *table.items())
                counts[[positions[key] for key in chosen]] = found
        _write(self._context.map("lb_loads"), numbers, counts)


def live_by_backend(backends: Iterable[bytes], keys: Rows, values: Rows) -> Rows:
    """How many live connections each of these backends has, in their order; all are of the table's family."""
    wanted = np.array(list(backends), f"S{keys.dtype['saddr'].itemsize + 4}")
    live = (values["flags"] & (ConnectionFlag.REPLY | ConnectionFlag.CLOSED)) == 0
    ends = np.sort(_destinations(keys[live], values[live]))
    first = np.searchsorted(ends, wanted, "left")
    return np.asarray(np.searchsorted(ends, wanted, "right") - first, np.uint32)


def _destinations(keys: Rows, values: Rows) -> Rows:
    """Where each connection really leads to, as backends' keys."""
    rows = np.zeros(
        len(keys),
        [("address", keys.dtype["daddr"]), ("port", keys.dtype["dport"]), ("protocol", "u1"), ("pad", "u1")],
    )
    rows["address"], rows["port"], rows["protocol"] = keys["daddr"], keys["dport"], keys["protocol"]
    if "nat_daddr" in (values.dtype.names or ()):
        translated = (values["flags"] & ConnectionFlag["NAT"]) > 0
        rows["address"][translated] = values["nat_daddr"][translated]
        rows["port"][translated] = values["nat_dport"][translated]
    return rows.view(f"S{rows.dtype.itemsize}")


def _write(table: Map, numbers: Rows, counts: Rows) -> None:
    before = table.first(int(numbers.max()) + 1)
    differs = before[numbers] != counts
    if differs.any():
        table.update_batch(numbers[differs], counts[differs])
