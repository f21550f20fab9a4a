"""The decision tables as values: rows, the kernel's lookup, and the plan of writes that turns one state into another.

The plan's order is what makes a change safe: verdicts of new classes, peers, subjects, then the revision, and only then
the removal of what is no longer used. Policies and classes never change under their number, so at every single write
each subject is judged either by its old policy or by its new one.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple, TypeVar

from attrs import define, field, frozen

from axoneme.plugins.policy.blocks import EVERYTHING, PORT_BITS, Block
from axoneme.plugins.policy.model import Direction

_K = TypeVar("_K")
_V = TypeVar("_V")


class Flag(enum.IntFlag):
    """Flags of a subject. Without `COMPUTED` everything is dropped (fail closed)."""

    COMPUTED = 1
    EGRESS_ENFORCED = 2
    INGRESS_ENFORCED = 4
    #: Asked although not enforced, because some policy is rehearsed.
    EGRESS_AUDITED = 8
    INGRESS_AUDITED = 16


class Action(enum.IntEnum):
    """What becomes of the traffic. `REDIRECT` means: only through the proxy, else drop."""

    DENY = 0
    ALLOW = 1
    REDIRECT = 2
    #: A deny rule says so, not the default.
    DENY_RULE = 3

    @property
    def allows(self) -> bool:
        return self in (Action.ALLOW, Action.REDIRECT)


@frozen
class SubjectEntry:
    """A subject's policies. A direction that is not enforced has a policy that allows everything."""

    egress: int
    ingress: int
    flags: Flag

    def policy(self, direction: Direction) -> int:
        return self.egress if direction is Direction.EGRESS else self.ingress

    def enforced(self, direction: Direction) -> bool:
        bit = Flag.EGRESS_ENFORCED if direction is Direction.EGRESS else Flag.INGRESS_ENFORCED
        return bool(self.flags & bit)


#: The entry of an endpoint that has none yet.
NO_SUBJECT = SubjectEntry(0, 0, Flag(0))


class VerdictValue(NamedTuple):
    """What a decision says. A plain tuple, because there are many.

    :ivar auth: a mode of `model.Auth`; 0 is none.
    :ivar proxy_port: the number of the proxy that a redirect needs (`axoneme.core.datapath.proxies.Proxy`), else 0.
    :ivar l7: the number of the layer 7 rules that a proxy is to enforce, 0 for none.
    :ivar audit_rule: the rule that would deny what passes, if the rehearsed policies were enforced; 0 for none. Which of the
        two denials it would be is the `audit_action`.
    """

    action: Action
    auth: int = 0
    proxy_port: int = 0
    rule: int = 0
    l7: int = 0
    audit_rule: int = 0
    audit_action: Action = Action.DENY


#: The verdicts of a class. Never changed once it is in a table; the longest block that holds a port decides.
Rows = Mapping[Block, VerdictValue]


@define
class Tables:
    """The content of the three maps.

    :param peers: per policy the classes of identities.
    :param verdicts: per class its rows.
    """

    subjects: dict[int, SubjectEntry] = field(factory=dict)
    peers: dict[int, dict[int, int]] = field(factory=dict)
    verdicts: dict[int, Rows] = field(factory=dict)

    def copy(self) -> Tables:
        return Tables(
            dict(self.subjects),
            {policy: dict(rows) for policy, rows in self.peers.items()},
            {class_: dict(rows) for class_, rows in self.verdicts.items()},
        )

    @property
    def peer_count(self) -> int:
        return sum(map(len, self.peers.values()))

    @property
    def verdict_count(self) -> int:
        return sum(map(len, self.verdicts.values()))

    def lookup(
        self, endpoint: int, direction: Direction, identity: int, protocol: int, port: int
    ) -> VerdictValue | None:
        """The three lookups that the kernel makes. None where it drops for want of a policy.

        :param protocol: the IP protocol's number; 0 for none is not a packet's.
        :param port: destination port, or ICMP type.
        """
        subject = self.subjects.get(endpoint, NO_SUBJECT)
        if not subject.flags & Flag.COMPUTED:
            return None
        policy = subject.policy(direction)
        return self.decide(self.peers.get(policy, {}).get(identity, policy), protocol, port)

    def decide(self, class_: int, protocol: int, port: int) -> VerdictValue | None:
        """The longest prefix of a class that fits."""
        rows = self.verdicts.get(class_, {})
        for bits in range(PORT_BITS, -1, -1):
            found = rows.get((protocol, bits, port & (0xFFFF << (PORT_BITS - bits)) & 0xFFFF))
            if found is not None:
                return found
        return rows.get(EVERYTHING)


class Table(enum.StrEnum):
    SUBJECTS = "subjects"
    PEERS = "peers"
    VERDICTS = "verdicts"


@frozen
class Write:
    """One write to one map; `value` None removes the key.

    :param key: an endpoint; a policy with an identity; a class with a block.
    """

    table: Table
    key: int | tuple[int, int] | tuple[int, Block]
    value: SubjectEntry | int | VerdictValue | None


@frozen
class Plan:
    """The difference between two states, to be written in the order of the fields."""

    add_verdicts: Mapping[int, Rows] = field(factory=dict)
    set_peers: Mapping[int, Mapping[int, int]] = field(factory=dict)
    set_subjects: Mapping[int, SubjectEntry] = field(factory=dict)
    #: Here the revision is raised: cached verdicts of flows are taken anew.
    remove_peers: Mapping[int, Collection[int]] = field(factory=dict)
    remove_verdicts: Mapping[int, Collection[Block]] = field(factory=dict)

    @property
    def is_empty(self) -> bool:
        return not (
            self.add_verdicts
            or self.set_peers
            or self.set_subjects
            or self.remove_peers
            or self.remove_verdicts
        )

    @property
    def size(self) -> int:
        """The number of writes."""
        nested = (self.add_verdicts, self.set_peers, self.remove_peers, self.remove_verdicts)
        return len(self.set_subjects) + sum(len(rows) for table in nested for rows in table.values())

    @property
    def decides(self) -> bool:
        """Whether a decision may have changed, so that the revision must rise."""
        return bool(self.set_peers or self.set_subjects or self.remove_peers)

    def writes(self) -> Iterator[Write]:
        """One by one, in their order."""
        for class_, rows in self.add_verdicts.items():
            for block, verdict in rows.items():
                yield Write(Table.VERDICTS, (class_, block), verdict)
        for policy, classes in self.set_peers.items():
            for identity, class_ in classes.items():
                yield Write(Table.PEERS, (policy, identity), class_)
        for endpoint, subject in self.set_subjects.items():
            yield Write(Table.SUBJECTS, endpoint, subject)
        for policy, identities in self.remove_peers.items():
            for identity in identities:
                yield Write(Table.PEERS, (policy, identity), None)
        for class_, blocks in self.remove_verdicts.items():
            for block in blocks:
                yield Write(Table.VERDICTS, (class_, block), None)


def apply(tables: Tables, write: Write) -> None:
    """Makes one write, as the kernel would."""
    if isinstance(write.key, int):
        _put(tables.subjects, write.key, None if write.value == NO_SUBJECT else write.value)
        return
    table: dict[int, dict[object, object]] = getattr(tables, write.table.value)
    outer, inner = write.key
    rows = table.setdefault(outer, {})
    _put(rows, inner, write.value)
    if not rows:
        del table[outer]


def _put(table: dict[_K, _V], key: _K, value: object) -> None:
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value  # type: ignore[assignment]


def difference(actual: Tables, desired: Tables) -> Plan:
    """The plan from any state, e.g. what is found pinned after a restart, to the desired one."""
    gone = dict.fromkeys(actual.subjects.keys() - desired.subjects.keys(), NO_SUBJECT)
    return Plan(
        _nested_changes(actual.verdicts, desired.verdicts),
        _nested_changes(actual.peers, desired.peers),
        {**_changed(actual.subjects, desired.subjects), **gone},
        _nested_surplus(actual.peers, desired.peers),
        _nested_surplus(actual.verdicts, desired.verdicts),
    )


def unused(tables: Tables) -> Plan:
    """Removes what no subject leads to: what an interrupted change left behind."""
    policies = {row.policy(direction) for row in tables.subjects.values() for direction in Direction}
    used = (rows for policy, rows in tables.peers.items() if policy in policies)
    classes = policies.union(*(rows.values() for rows in used))
    return Plan(
        remove_peers={policy: tuple(rows) for policy, rows in tables.peers.items() if policy not in policies},
        remove_verdicts={
            class_: tuple(rows) for class_, rows in tables.verdicts.items() if class_ not in classes
        },
    )


def _changed(actual: Mapping[_K, _V], desired: Mapping[_K, _V]) -> dict[_K, _V]:
    return {key: value for key, value in desired.items() if actual.get(key) != value}


def _nested_changes(
    actual: Mapping[int, Mapping[_K, _V]], desired: Mapping[int, Mapping[_K, _V]]
) -> dict[int, dict[_K, _V]]:
    empty: dict[_K, _V] = {}
    changes = {outer: _changed(actual.get(outer, empty), rows) for outer, rows in desired.items()}
    return {outer: rows for outer, rows in changes.items() if rows}


def _nested_surplus(
    actual: Mapping[int, Mapping[_K, _V]], desired: Mapping[int, Mapping[_K, _V]]
) -> dict[int, tuple[_K, ...]]:
    empty: dict[_K, _V] = {}
    surplus = {outer: tuple(rows.keys() - desired.get(outer, empty).keys()) for outer, rows in actual.items()}
    return {outer: keys for outer, keys in surplus.items() if keys}
