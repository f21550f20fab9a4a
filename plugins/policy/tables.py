"""The decision tables as values: rows, the kernel's lookup, and the plan of writes that turns one state into another.

The plan's order is what makes a change safe: verdicts of new classes, peers, subjects, then the revision, and only then
the removal of what is no longer used. Policies and classes never change under their number, so at every single write
each subject is judged either by its old policy or by its new one.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from typing import TypeVar

from attrs import define, field, frozen

from axoneme.plugins.policy.blocks import Block
from axoneme.plugins.policy.model import Direction

_K = TypeVar("_K")
_V = TypeVar("_V")

CLASS_BITS = 32
FULL_BITS = 64


class Flag(enum.IntFlag):
    """Flags of a subject. Without `COMPUTED` everything is dropped (fail closed)."""

    COMPUTED = 1
    EGRESS_ENFORCED = 2
    INGRESS_ENFORCED = 4


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


@frozen(order=True)
class VerdictKey:
    """Longest-prefix key; `prefix` counts bits from the class: 32 any protocol, 48 all its ports, 48+n a port prefix."""

    prefix: int
    class_: int
    protocol: int
    port: int


@frozen
class VerdictValue:
    """What a decision says.

    :param auth: a mode of `model.Auth`; 0 is none.
    :param proxy_port: the number of the proxy that a redirect needs (`axoneme.core.datapath.proxies.Proxy`), else 0.
    :param l7: the number of the layer 7 rules that a proxy is to enforce, 0 for none.
    """

    action: Action
    auth: int
    proxy_port: int
    rule: int
    l7: int


def verdict_key(class_: int, block: Block) -> VerdictKey:
    protocol, bits, port = block
    return VerdictKey(CLASS_BITS + 16 + bits if protocol else CLASS_BITS, class_, protocol, port)


PeerKey = tuple[int, int]


@define
class Tables:
    """The content of the three maps."""

    subjects: dict[int, SubjectEntry] = field(factory=dict)
    peers: dict[PeerKey, int] = field(factory=dict)
    verdicts: dict[VerdictKey, VerdictValue] = field(factory=dict)

    def copy(self) -> Tables:
        return Tables(dict(self.subjects), dict(self.peers), dict(self.verdicts))

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
        return self.decide(self.peers.get((policy, identity), policy), protocol, port)

    def decide(self, class_: int, protocol: int, port: int) -> VerdictValue | None:
        """The longest prefix of a class that fits."""
        for bits in range(16, -1, -1):
            masked = port & (0xFFFF << (16 - bits)) & 0xFFFF
            found = self.verdicts.get(VerdictKey(CLASS_BITS + 16 + bits, class_, protocol, masked))
            if found is not None:
                return found
        return self.verdicts.get(VerdictKey(CLASS_BITS, class_, 0, 0))


class Table(enum.StrEnum):
    SUBJECTS = "subjects"
    PEERS = "peers"
    VERDICTS = "verdicts"


@frozen
class Write:
    """One write to one map; `value` None removes the key."""

    table: Table
    key: int | PeerKey | VerdictKey
    value: SubjectEntry | int | VerdictValue | None


@frozen
class Plan:
    """The difference between two states, to be written in the order of the fields."""

    add_verdicts: dict[VerdictKey, VerdictValue] = field(factory=dict)
    set_peers: dict[PeerKey, int] = field(factory=dict)
    set_subjects: dict[int, SubjectEntry] = field(factory=dict)
    #: Here the revision is raised: cached verdicts of flows are taken anew.
    remove_peers: tuple[PeerKey, ...] = ()
    remove_verdicts: tuple[VerdictKey, ...] = ()

    @property
    def is_empty(self) -> bool:
        return not self.size

    @property
    def size(self) -> int:
        """The number of writes."""
        added = len(self.add_verdicts) + len(self.set_peers) + len(self.set_subjects)
        return added + len(self.remove_peers) + len(self.remove_verdicts)

    @property
    def decides(self) -> bool:
        """Whether a decision may have changed, so that the revision must rise."""
        return bool(self.set_peers or self.set_subjects or self.remove_peers)

    def writes(self) -> Iterator[Write]:
        for verdict_key_, verdict in self.add_verdicts.items():
            yield Write(Table.VERDICTS, verdict_key_, verdict)
        for peer, class_ in self.set_peers.items():
            yield Write(Table.PEERS, peer, class_)
        for endpoint, subject in self.set_subjects.items():
            yield Write(Table.SUBJECTS, endpoint, subject)
        for peer in self.remove_peers:
            yield Write(Table.PEERS, peer, None)
        for verdict_key_ in self.remove_verdicts:
            yield Write(Table.VERDICTS, verdict_key_, None)


def apply(tables: Tables, write: Write) -> None:
    """Makes one write, as the kernel would."""
    table: dict[object, object] = getattr(tables, write.table.value)
    if write.value is None or write.value == NO_SUBJECT:
        table.pop(write.key, None)
    else:
        table[write.key] = write.value


def difference(actual: Tables, desired: Tables) -> Plan:
    """The plan from any state, e.g. what is found pinned after a restart, to the desired one."""
    gone = dict.fromkeys(actual.subjects.keys() - desired.subjects.keys(), NO_SUBJECT)
    return Plan(
        _changed(actual.verdicts, desired.verdicts),
        _changed(actual.peers, desired.peers),
        {**_changed(actual.subjects, desired.subjects), **gone},
        tuple(sorted(actual.peers.keys() - desired.peers.keys())),
        tuple(sorted(actual.verdicts.keys() - desired.verdicts.keys())),
    )


def unused(tables: Tables) -> Plan:
    """Removes what no subject leads to: what an interrupted change left behind."""
    policies = {row.policy(direction) for row in tables.subjects.values() for direction in Direction}
    classes = policies | {class_ for (policy, _), class_ in tables.peers.items() if policy in policies}
    return Plan(
        remove_peers=tuple(sorted(key for key in tables.peers if key[0] not in policies)),
        remove_verdicts=tuple(sorted(key for key in tables.verdicts if key.class_ not in classes)),
    )


def _changed(actual: dict[_K, _V], desired: dict[_K, _V]) -> dict[_K, _V]:
    return {key: value for key, value in desired.items() if actual.get(key) != value}
