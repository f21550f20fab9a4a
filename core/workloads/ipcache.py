"""Who is behind an address: prefixes with their identities, from several sources, the longest prefix winning.

Several sources may speak about one prefix (a pool's address is a workload's and, with `except`, a policy's). The most
believable one is in the `ipcache` table; when it takes back what it said, the next one's word holds again.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, ip_network

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
        #: What the sources that are not believed say, by prefix.
        self._others: dict[Network, dict[IpcacheSource, IpcacheEntry]] = {}
        #: How many prefixes there are of each length, by version.
        self._lengths: dict[int, dict[int, int]] = {4: {}, 6: {}}
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
        lengths = self._lengths[address.version]
        for length in sorted((length for length, count in lengths.items() if count), reverse=True):
            if (entry := self._table.get(ip_network((address, length), strict=False))) is not None:
                return entry
        return None

    def _said(self, prefix: Network, txn: Transaction) -> dict[IpcacheSource, IpcacheEntry]:
        """All that is said about a prefix."""
        said = dict(self._others.get(prefix, {}))
        if (row := txn.get(self._table, prefix)) is not None:
            said[row.source] = row
        return said

    def _decide(self, prefix: Network, said: dict[IpcacheSource, IpcacheEntry], txn: Transaction) -> None:
        present = txn.get(self._table, prefix) is not None
        lengths = self._lengths[prefix.version]
        lengths[prefix.prefixlen] = lengths.get(prefix.prefixlen, 0) + bool(said) - present
        if not said:
            self._others.pop(prefix, None)
            txn.delete(self._table, prefix)
            return
        best = min(said, key=_RANK.__getitem__)
        txn.upsert(self._table, said.pop(best))
        if said:
            self._others[prefix] = said
        else:
            self._others.pop(prefix, None)


def host_prefix(address: Address) -> Network:
    """The prefix of one address: /32 or /128."""
    return ip_network(address)
