"""Identities for the prefixes that policies speak of: numbers of this node, and their places in the ipcache.

The order of a change keeps traffic undisturbed. A new prefix is first known to the policies that hold (they judge it as
they judged it before), then its addresses get the new identity, and only then the policy that mentions it takes effect.
A prefix that is no longer mentioned goes the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from attrs import define, field, frozen

from axoneme.core import logs
from axoneme.core.state.persist import Numbers
from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import IDENTITIES, IPCACHE, IpcacheEntry, IpcacheSource
from axoneme.core.workloads.endpoints import Identity as IdentityRow
from axoneme.core.workloads.identities import FIRST_LOCAL
from axoneme.core.workloads.ipcache import Ipcache
from axoneme.plugins.policy.model import CidrGroup, CidrSelector, Network, Policy
from axoneme.plugins.policy.prefixes import peers_of, world_labels
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
    return policy is not None and any(isinstance(peer, CidrSelector) for peer in peers_of([policy]))


@define
class World:
    """The prefixes that policies speak of, as they stand in the tables.

    :param behind: asks the kernel; to know when a change has arrived there.
    """

    state: State
    ipcache: Ipcache
    numbers: Numbers
    behind: Behind
    _current: dict[Network, Identity] = field(factory=dict)

    @classmethod
    def open(cls, state: State, ipcache: Ipcache, folder: Path, behind: Behind) -> World:
        """Raises `PersistError` when the numbers cannot be read."""
        numbers = Numbers(folder / "prefix-identities.json", FIRST_LOCAL, LAST_LOCAL, what="prefix identity")
        return cls(state, ipcache, numbers, behind)

    def change(self, policies: Iterable[Policy], groups: Iterable[CidrGroup]) -> WorldChange:
        """What these policies need that is not there yet, and what is there that they do not. Changes nothing."""
        wanted = world_labels(policies, groups, dual_stack=True)
        new = {prefix: labels for prefix, labels in wanted.items() if self._labels(prefix) != labels}
        given = self.numbers.allocate_many(_name(labels) for labels in new.values())
        added = {prefix: Identity(given[_name(new[prefix])], new[prefix]) for prefix in new}
        removed = tuple(prefix for prefix in self._current if prefix not in wanted)
        ended = tuple(
            self._current[prefix] for prefix in self._current if prefix in new or prefix not in wanted
        )
        return WorldChange(added, removed, ended)

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
        self._current.update(change.added)
        await self._settle(change.added)

    async def leave(self, change: WorldChange) -> None:
        """Takes prefixes out of the ipcache; returns when the kernel has forgotten them, or after `SETTLE` seconds."""
        gone = {prefix: self._current.pop(prefix).number for prefix in change.removed}
        self.ipcache.delete(IpcacheSource.POLICY, *gone)
        await self._wait(lambda: [prefix for prefix, number in gone.items() if self.behind(prefix) == number])

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
