"""Which service an address and port belong to, by the table `services` of whatever plugin balances load."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import numpy as np

from axoneme.core.datapath.abi import EventType
from axoneme.core.state.table import State, Table
from axoneme.plugins.hubble.columns import Array, Protocol
from axoneme.plugins.hubble.enrich import Columns, Join
from axoneme.plugins.hubble.names import Names
from axoneme.plugins.hubble.proto.flow_pb2 import Service

_TABLE: Final = "services"
_PROTOCOLS: Final = {"TCP": Protocol.TCP, "UDP": Protocol.UDP, "SCTP": Protocol.SCTP}


class Services:
    """Fills in services.

    The table's rows have `namespace`, `name` and `frontends`; each of those `address`, `port`, `protocol` and `number`, which
    is what the kernel's records call it.
    """

    def __init__(self, state: State, names: Names) -> None:
        self._state, self._names = state, names
        self._known = (-1, -1)
        self._by_address: dict[int, int] = {}
        self._by_number: dict[int, int] = {}
        self._addresses = Join(lambda key: self._by_address.get(key, 0))
        self._numbers = Join(lambda key: self._by_number.get(key, 0))

    def refresh(self) -> None:
        if _TABLE not in self._state.names():
            return
        table: Table[Any] = self._state.table(_TABLE)
        now = (table.revision, self._names.generation)
        if now == self._known:
            return
        self._known = now
        self._by_address, self._by_number = {}, {}
        for row in table:
            self._enter(row)
        self._addresses.forget()
        self._numbers.forget()

    def _enter(self, row: Any) -> None:
        service = self._names.services.number(Service(name=row.name, namespace=row.namespace))
        for frontend in row.frontends:
            if frontend.number:
                self._by_number[frontend.number] = service
            protocol = _PROTOCOLS.get(frontend.protocol)
            if protocol is None:
                continue
            address = ipaddress.ip_address(str(frontend.address))
            number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
            halves = np.array([number >> 64, number & 0xFFFFFFFFFFFFFFFF], np.uint64)
            ends = np.array([frontend.port], np.uint16), np.array([protocol], np.uint8)
            self._by_address[int(_keys(halves[:1], halves[1:], *ends)[0])] = service

    def fill(self, made: Columns, records: Array) -> None:
        """Of a flow whose address was exchanged the service that it was meant for, of any other that of its address."""
        if not self._by_address:
            return
        for end in ("source", "destination"):
            keys = _keys(made[f"{end}_high"], made[f"{end}_low"], made[f"{end}_port"], made["protocol"])
            made[f"{end}_service"] = self._addresses(keys)
        exchanged = np.flatnonzero(records["service"])
        if len(exchanged):
            found = self._numbers(records["service"][exchanged].astype(np.uint64))
            # A packet of the server's comes from the service; a close is told from the client's side anyway.
            back = (records["reply"][exchanged] != 0) & (records["type"][exchanged] != EventType.CLOSE)
            for end, its in (("source", back), ("destination", ~back)):
                known = its & (found != 0)
                made[f"{end}_service"][exchanged[known]] = found[known]


def _keys(high: Array, low: Array, port: Array, protocol: Array) -> Array:
    """64 bits for address, port and protocol; two of a million frontends share them with a probability of 2^-25."""
    with np.errstate(over="ignore"):
        last = port.astype(np.uint64) << np.uint64(8) | protocol
        mixed = (high ^ np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = ((mixed ^ mixed >> np.uint64(29)) + low) * np.uint64(0x94D049BB133111EB)
        mixed = ((mixed ^ mixed >> np.uint64(32)) + last) * np.uint64(0xD6E8FEB86659FD93)
        result: Array = mixed ^ mixed >> np.uint64(31)
    return result
