"""The bytes of the maps' keys and values, as what is computed and what the kernel holds are compared by.

To make an object of each of half a million rows, only to compare it, would cost more than all the rest.
"""

from __future__ import annotations

import struct
from typing import Final

from axoneme.plugins.lb.maps import SOURCE_PREFIX_BITS, Scope
from axoneme.plugins.lb.model import Address, Network

#: Rows' values: `maps.SERVICE` and the end of `maps.BACKEND`.
SERVICE: Final = struct.Struct("=IIIIHBB")
_END: Final = struct.Struct("!HBB")
PAIR: Final = struct.Struct("=II")

#: A backend: address, port, protocol and a zero, packed.
BackendKey = bytes
#: A row of `lb_services4` or `…6`, as the map's own bytes; 8 or 20 of them.
RowKey = bytes


def key_end(port: int, protocol: int) -> bytes:
    """What follows the address in a backend's key."""
    return _END.pack(port, protocol, 0)


def backend_key(address: Address, port: int, protocol: int) -> BackendKey:
    return address.packed + _END.pack(port, protocol, 0)


def port_of(key: BackendKey) -> int:
    return int.from_bytes(key[-4:-2], "big")


def row_key(address: Address, port: int, protocol: int, scope: Scope) -> RowKey:
    return address.packed + _END.pack(port, protocol, scope)


def family_of(key: bytes) -> int:
    return 4 if len(key) == 8 else 6


def source_entry(number: int, network: Network) -> bytes:
    """A key of `lb_sources4` or `…6`."""
    return PAIR.pack(SOURCE_PREFIX_BITS + network.prefixlen, number) + network.network_address.packed
