"""What services want of the kernel's maps, and how an `Image` answers: what became of it, and which writes lead there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import define, field, frozen

from axoneme.plugins.lb.maps import Algorithm
from axoneme.plugins.lb.model import Name, Network
from axoneme.plugins.lb.rows import BackendKey, RowKey
from axoneme.plugins.lb.stretches import Member

#: What else there is of a service: entries of `lb_members`, `lb_sources` and `lb_skips`.
KINDS: Final = ("members", "sources", "skips")


@frozen
class Balance:
    """How backends are chosen from.

    :param size: of a consistent hashing table.
    """

    algorithm: Algorithm = Algorithm.RANDOM
    size: int = 0
    affinity: int = 0


@define(eq=False)
class Wanted:
    """A row that a service wants.

    :param members: its backends and their weights, sorted.
    :param rank: of those who want the same row, the lowest has it.
    """

    balance: Balance
    members: tuple[Member, ...]
    flags: int = 0
    sources: tuple[Network, ...] = ()
    skips: tuple[int, ...] = ()
    rank: int = 0


@define(eq=False)
class Demand:
    """All that one service wants.

    :param backends: those that have a row: whether they are terminating, and whether they are remote.
    :param guards: addresses whose other ports nobody may reach.
    """

    rows: dict[RowKey, Wanted] = field(factory=dict)
    backends: dict[BackendKey, tuple[bool, bool]] = field(factory=dict)
    guards: tuple[RowKey, ...] = ()


@frozen
class Applied:
    """What became of a demand.

    :param taken: rows that another service has, and which.
    :param again: services that must be applied again: they lost a row, or can have one now.
    """

    taken: Mapping[RowKey, Name] = field(factory=dict)
    again: frozenset[Name] = frozenset()


@frozen
class Writes:
    """Writes in the order in which they are to be done; backends are by number, slots by their first."""

    backends: Mapping[int, bytes]
    slots: Mapping[int, bytes]
    entries: Mapping[str, Mapping[bytes, None]]
    rows: Mapping[RowKey, bytes]
    drop_rows: Mapping[RowKey, None]
    drop_entries: Mapping[str, Mapping[bytes, None]]

    @property
    def size(self) -> int:
        parts = (*self.entries.values(), *self.drop_entries.values())
        own = len(self.backends) + len(self.slots) + len(self.rows) + len(self.drop_rows)
        return own + sum(len(part) for part in parts)


@frozen
class Found:
    """What the maps held at the start: bytes of keys and values. `slots`: `lb_slots` up to the last one in use."""

    rows: Mapping[RowKey, bytes] = field(factory=dict)
    backends: Mapping[int, bytes] = field(factory=dict)
    slots: bytes = b""
    entries: Mapping[str, Iterable[bytes]] = field(factory=dict)
