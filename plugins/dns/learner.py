"""From answers to what the kernel knows: an answer waits until the addresses in it have their identities.

Names go into the table `dns_names`. What follows (identities, decision tables, ipcache) is others' work: the policy plugin
reads that table. When an address's entry in the kernel's ipcache has an identity with the labels of all selectors that select
the name, everything that decides about it is there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from typing import Any

import numpy as np

from axoneme.core import logs
from axoneme.core.datapath.endpoint_maps import words
from axoneme.core.plugin import PluginContext
from axoneme.core.workloads.endpoints import (
    IDENTITIES,
    IPCACHE,
    Address,
    Identity,
    IpcacheEntry,
    IpcacheSource,
)
from axoneme.core.workloads.ipcache import host_prefix
from axoneme.core.workloads.names import DNS_NAMES, FQDN_SELECTORS, DnsName, FqdnSelector, name_matches
from axoneme.plugins.dns.cache import Entry, NameCache, Pair
from axoneme.plugins.dns.journal import Journal

log = logs.get(__name__)

#: How often the kernel is asked whether it knows an address, in seconds.
STEP = 0.001
#: Of how many names it is remembered who selects them.
REMEMBERED = 10_000


class Learner:
    """:param delay: how long an answer may wait, in seconds."""

    def __init__(self, context: PluginContext, cache: NameCache, journal: Journal, *, delay: float) -> None:
        self._context, self._cache, self._journal, self._delay = context, cache, journal, delay
        state = context.state
        self._names = state.writer(DNS_NAMES.name, DnsName)
        self._selectors = state.table(FQDN_SELECTORS.name, FqdnSelector)
        self._ipcache = state.table(IPCACHE.name, IpcacheEntry)
        self._identities = state.table(IDENTITIES.name, Identity)
        self._selecting: dict[str, frozenset[str]] = {}
        self._asked = -1
        #: Answers that went out before the kernel knew them; addresses that were forgotten.
        self.late = 0
        self.forgotten = 0

    def restore(self) -> None:
        """What an earlier run knew enters the table, and nothing else stays in it."""
        wanted = {pair for pair, _ in self._cache.items()}
        with self._context.state.transaction() as txn:
            for row in self._names:
                if (row.name, row.address) not in wanted:
                    txn.delete(self._names, (row.name, row.address))
            for name, address in wanted:
                txn.upsert(self._names, DnsName(name=name, address=address))

    async def learn(self, name: str, addresses: tuple[Address, ...], ttl: int, endpoint: int) -> None:
        """Returns when the kernel knows the addresses, or after the longest delay."""
        change = self._cache.learn(name, addresses, ttl, endpoint, time.time())
        self._journal.learned(self._cache, ((name, address) for address in addresses))
        self._journal.forgotten(change.evicted)
        with self._context.state.transaction() as txn:
            for pair in change.evicted:
                txn.delete(self._names, pair)
            for pair in change.added:
                txn.upsert(self._names, DnsName(name=pair[0], address=pair[1]))
        labels = self._labels(name)
        kept = [address for address in addresses if self._cache.get(name, address) is not None]
        if labels and not await self._settled(kept, labels):
            self.late += 1
            log.warning("dns_answer_not_settled", name=name, seconds=self._delay)

    def _labels(self, name: str) -> frozenset[str]:
        """Those of the selectors that select the name; remembered until the selectors change."""
        if self._selectors.revision != self._asked or len(self._selecting) > REMEMBERED:
            self._asked = self._selectors.revision
            self._selecting.clear()
        labels = self._selecting.get(name)
        if labels is None:
            matching = (row.pattern for row in self._selectors if name_matches(row.pattern, name))
            labels = self._selecting[name] = frozenset(f"fqdn:{pattern}" for pattern in matching)
        return labels

    async def _settled(self, addresses: list[Address], labels: frozenset[str]) -> bool:
        clock = asyncio.get_running_loop()
        deadline = clock.time() + self._delay
        while addresses := [one for one in addresses if not self._is_known(one, labels)]:
            if clock.time() > deadline:
                return False
            await asyncio.sleep(STEP)
        return True

    def _is_known(self, address: Address, labels: frozenset[str]) -> bool:
        row = self._ipcache.get(host_prefix(address))
        if row is None:
            return False
        ours = next((one for one in (row, *row.shadowed) if one.source is IpcacheSource.POLICY), None)
        if ours is None:
            return False
        identity = self._identities.get(ours.identity)
        if identity is None or not labels.issubset(identity.labels):
            return False
        if ours is not row:
            return True  # it is a workload's or the host's own, and a name does not change that
        key = {"length": address.max_prefixlen, "address": {"a": words(address)}}
        found = self._context.map(f"ipcache{address.version}").lookup(key)
        return found is not None and int(found["identity"]) == ours.identity

    def expire(self, grace: float) -> None:
        """Forgets what is over, unless somebody still talks to the address."""
        self._adopt()
        self._forget(self._cache.expire(time.time(), grace, self._alive))

    def _adopt(self) -> None:
        """During a reload, the service before this one still learns: what it entered is over some day, too."""
        if len(self._names) == len(self._cache):
            return
        for row in self._names:
            if self._cache.get(row.name, row.address) is None:
                self._cache.restore(row.name, row.address, Entry(0, time.time()))

    def _forget(self, pairs: Iterable[Pair]) -> None:
        pairs = list(pairs)
        self.forgotten += len(pairs)
        self._journal.forgotten(pairs)
        self._names.delete(*pairs)

    def _alive(self) -> Collection[Address]:
        """The addresses that connections go to."""
        return {address for family in (4, 6) for address in _destinations(self._context, family)}


def _destinations(context: PluginContext, family: int) -> Iterable[Address]:
    keys: Any = context.map(f"connections{family}").items()[0]
    if not len(keys):
        return []
    size = 4 if family == 4 else 16
    distinct = np.unique(np.ascontiguousarray(keys["daddr"]).view(np.uint8).reshape(len(keys), size), axis=0)
    return [ip_address(row.tobytes()) for row in distinct]
