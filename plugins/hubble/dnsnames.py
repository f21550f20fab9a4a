"""The DNS names behind addresses, by the table `dns_names` of whoever learns them."""

from __future__ import annotations

import numpy as np

from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import Address
from axoneme.core.workloads.names import DNS_NAMES, DnsName
from axoneme.plugins.hubble.columns import Array
from axoneme.plugins.hubble.enrich import Columns, Join
from axoneme.plugins.hubble.names import Names

#: Names that a flow shows of one address.
_MOST = 16


class DnsNames:
    """Fills in the names that workloads of this node looked up to get an address."""

    def __init__(self, state: State, names: Names) -> None:
        self._table = state.table(DNS_NAMES.name, DnsName)
        self._names = names
        self._known = (-1, -1)
        self._addresses: dict[int, Address] = {}
        self._join = Join(self._number)

    def refresh(self) -> None:
        now = (self._table.revision, self._names.generation)
        if now == self._known:
            return
        for change in self._table.changes(self._known[0]).changes:
            self._addresses[key_of(change.row.address)] = change.row.address
        if len(self._addresses) > 2 * len(self._table) + 1024:
            self._addresses = {key_of(row.address): row.address for row in self._table}
        self._known = now
        self._join.forget()

    def fill(self, made: Columns, _records: Array) -> None:
        if not len(self._table):
            return
        for end in ("source", "destination"):
            made[f"{end}_names"] = self._join(_keys(made[f"{end}_high"], made[f"{end}_low"]))

    def of(self, address: Address) -> list[str]:
        return sorted(row.name for row in self._table.by("address", address))[:_MOST]

    def _number(self, key: int) -> int:
        address = self._addresses.get(key)
        found = self.of(address) if address is not None else []
        return self._names.dns.number(tuple(found)) if found else 0


def key_of(address: Address) -> int:
    """64 bits for an address."""
    number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    halves = np.array([number >> 64, number & 0xFFFFFFFFFFFFFFFF], np.uint64)
    return int(_keys(halves[:1], halves[1:])[0])


def _keys(high: Array, low: Array) -> Array:
    with np.errstate(over="ignore"):
        mixed = (high ^ np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = ((mixed ^ mixed >> np.uint64(29)) + low) * np.uint64(0x94D049BB133111EB)
        result: Array = mixed ^ mixed >> np.uint64(32)
    return result
