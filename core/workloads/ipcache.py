"""Who is behind an address: prefixes with their identities, from several sources, the longest prefix winning.

Several sources may speak about one prefix (an address is a workload's here and, in a policy, a CIDR). The `ipcache` table
has what the most believable one says; when it takes that back, the next one's word holds again.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

import attrs

from axoneme.core.state.table import State, Transaction
from axoneme.core.workloads.endpoints import IPCACHE, Address, IpcacheEntry, IpcacheSource, Network
from axoneme.core.workloads.identities import HOST, WORLD, WORLD_IPV4, WORLD_IPV6

#: The address that the host has on the link to each workload: the workload's IPv6 gateway.
GATEWAY6 = IPv6Network("fe80::1/128")

_RANK = {source: rank for rank, source in enumerate(IpcacheSource)}


class Ipcache:
    """Keeps the `ipcache` table.

    :param dual_stack_world: the world of each family has an identity of its own (9 and 10) instead of one for both (2).
    """

    def __init__(self, state: State, *, dual_stack_world: bool = False) -> None:
        self._state = state
        self._table = state.writer(IPCACHE.name, IpcacheEntry)
        #: The lengths that prefixes have or had, by version.
        self._lengths: dict[int, set[int]] = {4: set(), 6: set()}
        self._worlds = (WORLD_IPV4, WORLD_IPV6) if dual_stack_world else (WORLD, WORLD)

    def start(self) -> None:
        """Writes what is always true: the whole world, and the host's address on the links to its workloads."""
        four, six = self._worlds
        self.upsert(
            IpcacheEntry(prefix=IPv4Network("0.0.0.0/0"), identity=four, source=IpcacheSource.DEFAULT),
            IpcacheEntry(prefix=IPv6Network("::/0"), identity=six, source=IpcacheSource.DEFAULT),
            IpcacheEntry(prefix=GATEWAY6, identity=HOST, source=IpcacheSource.HOST),
        )

    def upsert(self, *entries: IpcacheEntry, txn: Transaction | None = None) -> None:
        """What a source says now about these prefixes, in place of what it said before."""
        if txn is None:
            with self._state.transaction() as own:
                return self.upsert(*entries, txn=own)
        for entry in entries:
            said = self._said(entry.prefix, txn)
            self._decide(entry.prefix, said | {entry.source: entry}, txn)
        return None

    def delete(self, source: IpcacheSource, *prefixes: Network, txn: Transaction | None = None) -> None:
        """A source takes back what it said about these prefixes; nothing happens where it said nothing."""
        if txn is None:
            with self._state.transaction() as own:
                return self.delete(source, *prefixes, txn=own)
        for prefix in prefixes:
            said = self._said(prefix, txn)
            if said.pop(source, None) is not None:
                self._decide(prefix, said, txn)
        return None

    def set_hosts(self, addresses: Iterable[Address]) -> None:
        """The node's own addresses, all of them: those that it does not have any more are taken back."""
        wanted = {host_prefix(address) for address in addresses} | {GATEWAY6}
        with self._state.transaction() as txn:
            gone = {row.prefix for row in self._table.by("identity", HOST)} - wanted
            self.delete(IpcacheSource.HOST, *gone, txn=txn)
            rows = (IpcacheEntry(prefix=p, identity=HOST, source=IpcacheSource.HOST) for p in wanted)
            self.upsert(*rows, txn=txn)

    def lookup(self, address: Address) -> IpcacheEntry | None:
        """The entry of the longest prefix that contains an address."""
        for length in sorted(self._lengths[address.version], reverse=True):
            if (entry := self._table.get(ip_network((address, length), strict=False))) is not None:
                return entry
        return None

    def _said(self, prefix: Network, txn: Transaction) -> dict[IpcacheSource, IpcacheEntry]:
        """All that is said about a prefix."""
        row = txn.get(self._table, prefix)
        return {} if row is None else {entry.source: entry for entry in (row, *row.shadowed)}

    def _decide(self, prefix: Network, said: dict[IpcacheSource, IpcacheEntry], txn: Transaction) -> None:
        if not said:
            txn.delete(self._table, prefix)
            return
        best, *others = (
            attrs.evolve(said[source], shadowed=()) for source in sorted(said, key=_RANK.__getitem__)
        )
        txn.upsert(self._table, attrs.evolve(best, shadowed=tuple(others)))
        self._lengths[prefix.version].add(prefix.prefixlen)


def host_prefix(address: Address) -> Network:
    """The prefix of one address: /32 or /128."""
    return ip_network(address)
