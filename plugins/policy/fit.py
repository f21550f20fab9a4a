"""What of the decision tables fits into the kernel's maps, and what stands in the place of the rest. Pure.

Nothing opens for want of room. An identity without a row has its policy's default class. So a class that only allows more
than the default can be left out: its identities get the default, which is stricter. A class that denies or demands
something which the default allows cannot: without room for its rows its identities go to `CLOSED`, and without room for
these the policy's place is taken by `CLOSED`, whose one row denies everything. All other policies stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from attrs import define, evolve, field, frozen

from axoneme.plugins.policy.blocks import EVERYTHING, Block, covering
from axoneme.plugins.policy.model import Direction
from axoneme.plugins.policy.tables import Action, Flag, Rows, SubjectEntry, Tables, VerdictValue

#: The number of the policy, and class, that denies everything. No other one ever has it.
CLOSED = 0


@frozen
class Room:
    """How many entries the maps can have."""

    peers: int
    verdicts: int


@frozen
class Shortfall:
    """What could not be expressed.

    :param closed: endpoints with the directions in which nothing passes.
    :param narrowed: endpoints with how many identities have less than their policies give them.
    """

    closed: Mapping[int, tuple[Direction, ...]] = field(factory=dict)
    narrowed: Mapping[int, int] = field(factory=dict)

    def __bool__(self) -> bool:
        return bool(self.closed or self.narrowed)

    def __str__(self) -> str:
        parts = []
        if self.closed:
            parts.append(f"{len(self.closed)} workloads are closed")
        if self.narrowed:
            peers = sum(self.narrowed.values())
            parts.append(f"{len(self.narrowed)} workloads deny {peers} peers what their policies allow")
        return " and ".join(parts)


def needs(tables: Tables) -> Room:
    return Room(tables.peer_count, tables.verdict_count)


def fits(wanted: Room, room: Room) -> bool:
    return wanted.peers <= room.peers and wanted.verdicts <= room.verdicts


def fit(desired: Tables, room: Room, present: Tables, closed_rule: int) -> tuple[Tables, Shortfall]:
    """As much of the desired tables as there is room for, and what is missing.

    :param present: what the kernel has; policies that are in there as desired come first, so that they stay.
    :param closed_rule: the rule id of what is denied for want of room.
    """
    if fits(needs(desired), room):
        return desired, Shortfall()
    fitting = _Fitting(desired, room)
    fitting.found.verdicts[CLOSED] = {EVERYTHING: VerdictValue(Action.DENY, rule=closed_rule)}
    policies = {entry.policy(one) for entry in desired.subjects.values() for one in Direction}
    for policy in sorted(policies, key=lambda one: (not _is_present(one, desired, present), one)):
        fitting.add(policy)
    return fitting.found, fitting.finish()


def _is_present(policy: int, desired: Tables, present: Tables) -> bool:
    return (
        present.verdicts.get(policy) == desired.verdicts[policy]
        and present.peers.get(policy, {}) == desired.peers.get(policy, {})
    )  # fmt: skip


@define
class _Fitting:
    """Takes policies, one after the other, as long as there is room."""

    desired: Tables
    room: Room
    found: Tables = field(factory=Tables)
    _closed: set[int] = field(factory=set)
    _narrowed: dict[int, int] = field(factory=dict)
    _peers: int = 0
    _verdicts: int = 1

    def add(self, policy: int) -> None:
        default = self.desired.verdicts[policy]
        if not self._take_class(policy):
            self._closed.add(policy)
            return
        members: dict[int, list[int]] = {}
        for identity, class_ in self.desired.peers.get(policy, {}).items():
            members.setdefault(class_, []).append(identity)
        strict = {
            class_ for class_ in members if not _only_allows_more(self.desired.verdicts[class_], default)
        }
        if self._peers + sum(len(members[class_]) for class_ in strict) > self.room.peers:
            self._closed.add(policy)
            return
        for class_ in sorted(members, key=lambda one: (one not in strict, one)):
            self._add_members(policy, class_, members[class_], class_ in strict)

    def _add_members(self, policy: int, class_: int, identities: list[int], strict: bool) -> None:
        rows = self.found.peers.setdefault(policy, {})
        free = self.room.peers - self._peers
        if not self._take_class(class_):
            self._narrow(policy, len(identities))
            if not strict:
                return
            class_ = CLOSED
        elif len(identities) > free:
            self._narrow(policy, len(identities) - free)
        taken = identities[:free]
        self._peers += len(taken)
        rows.update(dict.fromkeys(taken, class_))

    def _take_class(self, class_: int) -> bool:
        """Whether the class is in, or was put in."""
        if class_ in self.found.verdicts:
            return True
        rows = self.desired.verdicts[class_]
        if self._verdicts + len(rows) > self.room.verdicts:
            return False
        self._verdicts += len(rows)
        self.found.verdicts[class_] = rows
        return True

    def _narrow(self, policy: int, identities: int) -> None:
        self._narrowed[policy] = self._narrowed.get(policy, 0) + identities

    def finish(self) -> Shortfall:
        """Enters the subjects."""
        closed: dict[int, tuple[Direction, ...]] = {}
        narrowed: dict[int, int] = {}
        for endpoint, entry in self.desired.subjects.items():
            without = tuple(one for one in Direction if entry.policy(one) in self._closed)
            self.found.subjects[endpoint] = _closing(entry, without)
            if without:
                closed[endpoint] = without
            if less := sum(self._narrowed.get(entry.policy(one), 0) for one in Direction):
                narrowed[endpoint] = less
        self.found.peers = {policy: rows for policy, rows in self.found.peers.items() if rows}
        return Shortfall(closed, narrowed)


def _closing(entry: SubjectEntry, directions: tuple[Direction, ...]) -> SubjectEntry:
    for direction in directions:
        if direction is Direction.EGRESS:
            entry = evolve(entry, egress=CLOSED, flags=entry.flags | Flag.EGRESS_ENFORCED)
        else:
            entry = evolve(entry, ingress=CLOSED, flags=entry.flags | Flag.INGRESS_ENFORCED)
    return entry


def _only_allows_more(rows: Rows, default: Rows) -> bool:
    """Whether the default is nowhere weaker: it denies, or says the same."""
    for block in {*rows, *default}:
        ours, fallback = _at(rows, block), _at(default, block)
        if fallback.action.allows and _effect(fallback) != _effect(ours):
            return False
    return True


def _effect(value: VerdictValue) -> VerdictValue:
    return value._replace(rule=0, audit_rule=0, audit_action=Action.DENY)


def _at(rows: Rows, block: Block) -> VerdictValue:
    return next(rows[one] for one in _outward(block) if one in rows)


def _outward(block: Block) -> Iterator[Block]:
    return reversed(list(covering(block)))
