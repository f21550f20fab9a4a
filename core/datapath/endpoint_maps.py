"""From the tables `endpoints` and `ipcache` to the kernel's maps: who is where, and who is behind which prefix.

Everything here is idempotent. The revision is raised after a change and never without one: a raised revision makes the
next packet of every connection be decided anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from axoneme.core.datapath.abi import ADDRESS as ADDRESS_LAYOUT
from axoneme.core.datapath.abi import ENDPOINT, IPCACHE_ENTRY, PREFIX
from axoneme.core.datapath.maps import Diff, Map
from axoneme.core.workloads.endpoints import Address, Endpoint, EndpointState, IpcacheEntry, mac_bytes

#: Gives a map by name; the build that runs decides which.
Maps = Callable[[str], Map]

_PRESENT = (EndpointState.CREATING, EndpointState.READY)


def words(address: Address) -> list[int]:
    """An address as the 32-bit words of its layout."""
    packed = address.packed
    return [int.from_bytes(packed[i : i + 4], "big") for i in range(0, len(packed), 4)]


def wide_bytes(address: Address | None) -> bytes:
    """16 bytes: IPv6, IPv4-mapped, or zero for none."""
    if address is None:
        return bytes(16)
    return address.packed if address.version == 6 else b"\0" * 10 + b"\xff\xff" + address.packed


def endpoint_value(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "ifindex": endpoint.ifindex,
        "identity": endpoint.identity,
        "id": endpoint.id,
        "mac": mac_bytes(endpoint.mac),
        "node_mac": mac_bytes(endpoint.node_mac),
    }


def _is_present(endpoint: Endpoint) -> bool:
    return bool(endpoint.ifindex) and endpoint.state in _PRESENT


class EndpointOperations:
    """Makes the maps `endpoints4`, `endpoints6` and `links` hold the workloads of this node.

    :param changed: called after something was written.
    """

    def __init__(self, maps: Maps, changed: Callable[[], object]) -> None:
        self._maps = maps
        self._changed = changed

    def write(self, endpoint: Endpoint) -> None:
        """Enters one endpoint. The links' map first, so that an address never points to an interface unknown."""
        value = endpoint_value(endpoint)
        new = self._set("links", endpoint.ifindex, value)
        for address in endpoint.addresses:
            new |= self._set(f"endpoints{address.version}", {"a": words(address)}, value)
        if new:
            self._changed()

    def _set(self, name: str, key: Any, value: Mapping[str, Any]) -> bool:
        table, packed = self._maps(name), ENDPOINT.pack(**value)
        known = table.lookup(key)
        if known is not None and known.tobytes() == packed:
            return False
        table.update(key, packed)
        return True

    def erase(self, endpoint: Endpoint) -> None:
        """Takes one endpoint out: its addresses first. An address that meanwhile has another owner stays."""
        gone = False
        for address in endpoint.addresses:
            table, key = self._maps(f"endpoints{address.version}"), {"a": words(address)}
            known = table.lookup(key)
            if known is not None and int(known["id"]) == endpoint.id:
                gone |= table.delete(key)
        known = self._maps("links").lookup(endpoint.ifindex)
        if known is not None and int(known["id"]) == endpoint.id:
            gone |= self._maps("links").delete(endpoint.ifindex)
        if gone:
            self._changed()

    async def update(self, rows: Sequence[Endpoint]) -> None:
        for row in rows:
            if _is_present(row):
                self.write(row)
            else:
                self.erase(row)

    async def delete(self, rows: Sequence[Endpoint]) -> None:
        for row in rows:
            self.erase(row)

    async def prune(self, rows: Sequence[Endpoint]) -> None:
        present = [row for row in rows if _is_present(row)]
        changed = self._reconcile_links(present).total
        for family in (4, 6):
            changed += self._reconcile_addresses(present, family).total
        if changed:
            self._changed()

    def _reconcile_links(self, rows: Iterable[Endpoint]) -> Diff:
        by_link = {row.ifindex: endpoint_value(row) for row in rows}
        return self._maps("links").reconcile(np.array(list(by_link), "u4"), ENDPOINT.array(by_link.values()))

    def _reconcile_addresses(self, rows: Iterable[Endpoint], family: int) -> Diff:
        pairs = [
            ({"a": words(address)}, endpoint_value(row))
            for row in rows
            for address in row.addresses
            if address.version == family
        ]
        keys = ADDRESS_LAYOUT[family].array(key for key, _ in pairs)
        return self._maps(f"endpoints{family}").reconcile(keys, ENDPOINT.array(value for _, value in pairs))


class IpcacheOperations:
    """Makes the maps `ipcache4` and `ipcache6` hold the table `ipcache`."""

    def __init__(self, maps: Maps, changed: Callable[[], object]) -> None:
        self._maps = maps
        self._changed = changed

    async def update(self, rows: Sequence[IpcacheEntry]) -> None:
        for family, keys, values in _by_family(rows):
            self._maps(f"ipcache{family}").update_batch(keys, values)
        if rows:
            self._changed()

    async def delete(self, rows: Sequence[IpcacheEntry]) -> None:
        deleted = 0
        for family, keys, _ in _by_family(rows):
            deleted += self._maps(f"ipcache{family}").delete_batch(keys)
        if deleted:
            self._changed()

    async def prune(self, rows: Sequence[IpcacheEntry]) -> None:
        diffs = [
            self._maps(f"ipcache{family}").reconcile(keys, values)
            for family, keys, values in _by_family(rows, empty=True)
        ]
        if any(diff.total for diff in diffs):
            self._changed()


def _by_family(
    rows: Sequence[IpcacheEntry], *, empty: bool = False
) -> Iterable[tuple[int, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Keys and values of each address family that has rows; with `empty`, of both."""
    for family in (4, 6):
        chosen = [row for row in rows if row.prefix.version == family]
        if chosen or empty:
            keys = PREFIX[family].array(
                {"length": row.prefix.prefixlen, "address": {"a": words(row.prefix.network_address)}}
                for row in chosen
            )
            values = IPCACHE_ENTRY.array(
                {"identity": row.identity, "node": wide_bytes(row.node), "key": row.key} for row in chosen
            )
            yield family, keys, values
