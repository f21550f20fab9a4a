"""Identities for the prefixes that policies speak of: numbers of this node, and their places in the ipcache.

The order of a change keeps traffic undisturbed. A new prefix is first known to the policies that hold (they judge it as
they judged it before), then its addresses get the new identity, and only then the policy that mentions it takes effect.
A prefix that is no longer mentioned goes the other way round.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_network
from pathlib import Path

from attrs import define, field, frozen

from axoneme.core import logs
from axoneme.core.state.persist import Numbers
from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import IDENTITIES, IPCACHE, Address, IpcacheEntry, IpcacheSource
from axoneme.core.workloads.endpoints import Identity as IdentityRow
from axoneme.core.workloads.identities import FIRST_LOCAL
from axoneme.core.workloads.ipcache import Ipcache
from axoneme.plugins.policy.fqdn import Names
from axoneme.plugins.policy.model import CidrGroup, CidrSelector, Network, Policy
from axoneme.plugins.policy.prefixes import cidr_labels, name_labels, names, peers_of, world_label
from axoneme.plugins.policy.selectors import Identity

log = logs.get(__name__)

#: Local identities have bit 24 set and fill 24 bits below it.
LAST_LOCAL = (FIRST_LOCAL << 1) - 1
#: How long to wait until the kernel knows a prefix before the policy that mentions it takes effect, in seconds.
SETTLE = 1.0

#: The identity that the kernel has behind a prefix's first address, None for none.
Behind = Callable[[Network], int | None]


@frozen
class WorldChange:
    """What has to change: prefixes with their new identities, prefixes to forget, identities that end with them."""

    added: Mapping[Network, Identity] = field(factory=dict)
    removed: tuple[Network, ...] = ()
    ended: tuple[Identity, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.added and not self.removed


def speaks_of_prefixes(policy: Policy | None) -> bool:
    """Whether addresses may need identities because of it: by prefixes, or by names."""
    if policy is None:
        return False
    return any(isinstance(peer, CidrSelector) for peer in peers_of([policy])) or bool(names([policy]))


@define
class World:
    """The prefixes that policies speak of, as they stand in the tables.

    :param behind: asks the kernel; to know when a change has arrived there.
    """

    state: State
    ipcache: Ipcache
    numbers: Numbers
    behind: Behind
    dns: Names = field(factory=Names)
    _current: dict[Network, Identity] = field(factory=dict)
    #: How many prefixes have an identity: addresses of names share them.
    _users: Counter[Identity] = field(factory=Counter)
    _cidrs: dict[Network, tuple[str, ...]] = field(factory=dict)
    _lengths: dict[int, list[int]] = field(factory=lambda: {4: [], 6: []})

    @classmethod
    def open(cls, state: State, ipcache: Ipcache, folder: Path, behind: Behind) -> World:
        """Raises `PersistError` when the numbers cannot be read."""
        numbers = Numbers(folder / "prefix-identities.json", FIRST_LOCAL, LAST_LOCAL, what="prefix identity")
        return cls(state, ipcache, numbers, behind)

    def change(self, policies: Iterable[Policy], groups: Iterable[CidrGroup]) -> WorldChange:
        """What these policies need that is not there yet, and what is there that they do not."""
        policies = list(policies)
        self._cidrs = cidr_labels(policies, groups, dual_stack=True)
        lengths: dict[int, set[int]] = {4: set(), 6: set()}
        for prefix in self._cidrs:
            lengths[prefix.version].add(prefix.prefixlen)
        self._lengths = {version: sorted(found, reverse=True) for version, found in lengths.items()}
        self.dns.select(names(policies))
        self.dns.take_changed()
        wanted: dict[Network, tuple[str, ...] | None] = dict.fromkeys(self._current)
        wanted |= self._cidrs
        wanted |= {
            ip_network(one): self._named(one, patterns) for one, patterns in self.dns.selected().items()
        }
        return self._difference(wanted)

    def change_names(self) -> WorldChange:
        """The same for the addresses of names that have changed, the policies being what they were."""
        wanted: dict[Network, tuple[str, ...] | None] = {}
        for address in self.dns.take_changed():
            prefix, patterns = ip_network(address), self.dns.of(address)
            wanted[prefix] = self._named(address, patterns) if patterns else self._cidrs.get(prefix)
        return self._difference(wanted)

    def _named(self, address: Address, patterns: Iterable[str]) -> tuple[str, ...]:
        around: tuple[str, ...] = ()
        for length in self._lengths[address.version]:
            if (found := self._cidrs.get(ip_network((address, length), strict=False))) is not None:
                around = found
                break
        return name_labels(patterns, around, world_label(ip_network(address), dual_stack=True))

    def _difference(self, wanted: Mapping[Network, tuple[str, ...] | None]) -> WorldChange:
        """:param wanted: labels of prefixes, None for those that need none; the others stay as they are."""
        new = {
            prefix: labels for prefix, labels in wanted.items() if labels and self._labels(prefix) != labels
        }
        given = self.numbers.allocate_many(_name(labels) for labels in new.values())
        added = {prefix: Identity(given[_name(new[prefix])], new[prefix]) for prefix in new}
        removed = tuple(prefix for prefix, labels in wanted.items() if not labels and prefix in self._current)
        left = [self._current[prefix] for prefix in (*new, *removed) if prefix in self._current]
        users = self._users + Counter(added.values()) - Counter(left)
        return WorldChange(added, removed, tuple(dict.fromkeys(one for one in left if not users[one])))

    def _labels(self, prefix: Network) -> tuple[str, ...] | None:
        known = self._current.get(prefix)
        return None if known is None else known.labels

    async def enter(self, change: WorldChange) -> None:
        """Gives addresses their new identities; returns when the kernel has them, or after `SETTLE` seconds."""
        identities = self.state.writer(IDENTITIES.name, IdentityRow)
        with self.state.transaction() as txn:
            for prefix, identity in change.added.items():
                txn.upsert(
                    identities, IdentityRow(number=identity.number, labels=identity.labels, references=1)
                )
                entry = IpcacheEntry(prefix=prefix, identity=identity.number, source=IpcacheSource.POLICY)
                self.ipcache.upsert(entry, txn=txn)
        for prefix, identity in change.added.items():
            self._count(self._current.get(prefix), identity)
            self._current[prefix] = identity
        await self._settle(change.added)

    async def leave(self, change: WorldChange) -> None:
        """Takes prefixes out of the ipcache; returns when the kernel has forgotten them, or after `SETTLE` seconds."""
        gone = {}
        for prefix in change.removed:
            identity = self._current.pop(prefix)
            self._count(identity, None)
            gone[prefix] = identity.number
        self.ipcache.delete(IpcacheSource.POLICY, *gone)
        await self._wait(lambda: [prefix for prefix, number in gone.items() if self.behind(prefix) == number])

    def _count(self, old: Identity | None, new: Identity | None) -> None:
        if new is not None:
            self._users[new] += 1
        if old is not None:
            self._users[old] -= 1
            if not self._users[old]:
                del self._users[old]

    def forget(self, change: WorldChange) -> None:
        """Ends the identities that no address has any more."""
        identities = self.state.writer(IDENTITIES.name, IdentityRow)
        identities.delete(*(identity.number for identity in change.ended))
        self.numbers.release(*(_name(identity.labels) for identity in change.ended))

    def forget_unused(self) -> None:
        """Frees the numbers of prefixes that were mentioned last time, but are not now."""
        used = {_name(identity.labels) for identity in self._current.values()}
        self.numbers.release(*(name for name in self.numbers.items() if name not in used))

    async def _settle(self, added: Mapping[Network, Identity]) -> None:
        """A prefix that a more believable source also speaks of (a workload's own address) is not waited for."""
        table = self.state.table(IPCACHE.name, IpcacheEntry)
        expected = {prefix: one.number for prefix, one in added.items()}
        rows = [row for prefix in expected if (row := table.get(prefix)) is not None]
        ours = [row.prefix for row in rows if row.source is IpcacheSource.POLICY]
        await self._wait(lambda: [prefix for prefix in ours if self.behind(prefix) != expected[prefix]])

    async def _wait(self, unsettled: Callable[[], list[Network]]) -> None:
        clock = asyncio.get_running_loop()
        deadline = clock.time() + SETTLE
        while waiting := unsettled():
            if clock.time() > deadline:
                log.warning("prefixes_not_settled", count=len(waiting), first=str(waiting[0]))
                return
            await asyncio.sleep(0.002)


def _name(labels: tuple[str, ...]) -> str:
    return " ".join(labels)
