"""What the event store knows of flows, gathered: who talked to whom, how often, and whether it came through."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define, evolve, field, frozen

from axoneme.core.datapath.abi import EventType
from axoneme.core.events.naming import address_text
from axoneme.core.events.store.codec import Records
from axoneme.core.events.store.journal import Names
from axoneme.core.events.store.reader import KEPT, Damage, Stretch, scan
from axoneme.core.workloads.identities import FIRST_LOCAL
from axoneme.plugins.policy.model import Protocol
from axoneme.plugins.policy.parties import Address, shown
from axoneme.plugins.policy.reconciler import subject_of

#: Drops that a policy is behind: denied, denied by a rule, authentication missing, proxy missing.
POLICY_REASONS: Final = (133, 181, 189, 300)
#: Flows that are told apart; what is beyond is only counted.
MAX_FLOWS: Final = 100_000
_ICMP: Final = (Protocol.ICMP, Protocol.ICMPV6)
_WORLDS: Final = ("reserved:world", "cidr:", "fqdn:")

_KEY = np.dtype(
    [
        ("source_endpoint", "<u2"), ("destination_endpoint", "<u2"),
        ("source_identity", "<u4"), ("destination_identity", "<u4"),
        ("saddr", ">u4", 4), ("daddr", ">u4", 4), ("port", "<u2"), ("protocol", "u1"), ("allowed", "u1"),
    ]
)  # fmt: skip


@frozen
class Actor:
    """One end of recorded flows.

    :param name: of the workload, or a short one for its identity.
    :param labels: of its identity, then.
    :param local: it was a workload of this node, so policies applied to it.
    :param ports: its named ports: name, protocol, number.
    :param address: of who is outside, where prefixes may tell one from the other.
    """

    name: str
    labels: tuple[str, ...]
    local: bool = False
    address: Address | None = None
    ports: tuple[tuple[str, Protocol, int], ...] = ()


@frozen
class FlowKey:
    source: Actor
    destination: Actor
    protocol: int
    port: int
    allowed: bool


@define
class Seen:
    """:param rules: what was behind the last of them, egress first.
    :param connections: how many; those that were there before count as one."""

    connections: int = 0
    first: int = 0
    last: int = 0
    rules: tuple[str, ...] = ()

    def add(self, connections: int, first: int, last: int, rules: tuple[str, ...]) -> None:
        self.first = min(self.first or first, first)
        if last >= self.last:
            self.last, self.rules = last, rules
        self.connections += connections


@define
class Recorded:
    """Flows of a stretch of time.

    :ivar overflow: connections beyond `MAX_FLOWS` different flows.
    :ivar unknown: connections of identities that nobody knows any more.
    """

    flows: dict[FlowKey, Seen] = field(factory=dict)
    records: int = 0
    overflow: int = 0
    unknown: int = 0
    damage: Damage = field(factory=Damage)


def recorded(folder: Path, since: int | None = None, until: int | None = None) -> Recorded:
    """The flows of a store between two times (ns since 1970)."""
    found = Recorded()
    gather = _Gatherer(found)
    for stretch in scan(folder, since, until, KEPT, damage=found.damage):
        found.records += len(stretch.records)
        gather.add(stretch)
    for seen in found.flows.values():
        seen.connections = max(seen.connections, 1)
    return found


class _Gatherer:
    """Adds stretches up. What was worked out for a key holds as long as its numbers mean the same."""

    def __init__(self, found: Recorded) -> None:
        self._found = found
        self._names = Names()
        self._seen: dict[bytes, Seen | None] = {}
        self._actors: dict[tuple[int, int], Actor | None] = {}
        self._rules: dict[tuple[int, int], tuple[str, ...]] = {}

    def add(self, stretch: Stretch) -> None:
        records = _relevant(stretch.records)
        if not len(records):
            return
        if stretch.names is not self._names:
            self._names = stretch.names
            self._seen, self._actors, self._rules = {}, {}, {}
        keys = _keys(records, _outside(records, stretch.names))
        distinct, at, groups = np.unique(
            keys.view(np.dtype((np.void, _KEY.itemsize))), return_index=True, return_inverse=True
        )
        columns = _sums(records, groups.ravel(), len(at))
        rules = records[["egress_rule", "ingress_rule"]][at].tolist()
        for key, position, begun, first, last, numbers in zip(
            distinct.tolist(), at.tolist(), *columns, rules, strict=True
        ):
            seen = self._seen_of(key, keys, position)
            if seen is None:
                self._leave_out(keys[position], max(begun, 1))
            else:
                seen.add(begun, first, last, self._rules_of(numbers))

    def _seen_of(self, key: bytes, keys: np.ndarray[Any, Any], position: int) -> Seen | None:
        """Where a flow is counted; None where its ends are not known, or there are too many flows."""
        if key not in self._seen:
            flow, flows = self._flow(keys[position]), self._found.flows
            if flow is None or (flow not in flows and len(flows) >= MAX_FLOWS):
                return None
            self._seen[key] = flows.setdefault(flow, Seen())
        return self._seen[key]

    def _leave_out(self, key: Any, connections: int) -> None:
        if self._flow(key) is None:
            self._found.unknown += connections
        else:
            self._found.overflow += connections

    def _flow(self, key: Any) -> FlowKey | None:
        source, destination = self._actor(key, "source", "saddr"), self._actor(key, "destination", "daddr")
        if source is None or destination is None:
            return None
        return FlowKey(source, destination, int(key["protocol"]), int(key["port"]), bool(key["allowed"]))

    def _actor(self, key: Any, side: str, address: str) -> Actor | None:
        numbers = (int(key[f"{side}_endpoint"]), int(key[f"{side}_identity"]))
        if numbers not in self._actors:
            self._actors[numbers] = _actor_of(*numbers, self._names)
        actor = self._actors[numbers]
        if actor is None or actor.local or not key[address].any():
            return actor
        where = ip_address(address_text(key[address]))
        return evolve(actor, name=str(where), address=where)

    def _rules_of(self, numbers: tuple[int, int]) -> tuple[str, ...]:
        if numbers not in self._rules:
            rows = [self._names.rules.get(number) for number in numbers]
            self._rules[numbers] = tuple(row.describe() for row in rows if row is not None)
        return self._rules[numbers]


def _sums(
    records: Records, groups: np.ndarray[Any, Any], count: int
) -> tuple[list[int], list[int], list[int]]:
    """By group: connections that began (or were refused), time of the first record and of the last."""
    begun = np.bincount(groups[np.isin(records["type"], (EventType.NEW, EventType.DROP))], minlength=count)
    first, last = np.full(count, np.iinfo(np.uint64).max, np.uint64), np.zeros(count, np.uint64)
    np.minimum.at(first, groups, records["time"])
    np.maximum.at(last, groups, records["time"])
    return begun.tolist(), first.tolist(), last.tolist()


def _relevant(records: Records) -> Records:
    """Records that tell what policy made of a connection, from whoever began it to the other."""
    kind, icmp = records["type"], np.isin(records["protocol"], _ICMP)
    drops = (kind == EventType.DROP) & np.isin(records["reason"], POLICY_REASONS) & (records["reply"] == 0)
    # Only a first packet of ICMP is known by its type.
    passed = (kind == EventType.NEW) | (~icmp & np.isin(kind, (EventType.CLOSE, EventType.UPDATE)))
    chosen: Records = records[drops | passed].copy()
    backwards = np.isin(chosen["type"], (EventType.CLOSE, EventType.UPDATE)) & (chosen["reply"] != 0)
    for one, other in (
        ("saddr", "daddr"), ("sport", "dport"), ("source_endpoint", "destination_endpoint"),
        ("source_identity", "destination_identity"),
    ):  # fmt: skip
        there, back = chosen[one][backwards].copy(), chosen[other][backwards].copy()
        chosen[one][backwards], chosen[other][backwards] = back, there
    return chosen


def _outside(records: Records, names: Names) -> np.ndarray[Any, Any]:
    """The identities of records whose addresses matter."""
    numbers = np.unique(np.concatenate([records["source_identity"], records["destination_identity"]]))
    return np.array([n for n in numbers.tolist() if _is_outside(n, names)], np.uint32)


def _is_outside(number: int, names: Names) -> bool:
    row = names.identities.get(number)
    return number >= FIRST_LOCAL or (row is not None and any(text.startswith(_WORLDS) for text in row.labels))


def _keys(records: Records, outside: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    keys = np.zeros(len(records), _KEY)
    for name in (
        "source_endpoint",
        "destination_endpoint",
        "source_identity",
        "destination_identity",
        "protocol",
    ):
        keys[name] = records[name]
    icmp = np.isin(records["protocol"], _ICMP)
    keys["port"] = np.where(icmp, records["icmp_type"], records["dport"])
    keys["allowed"] = records["type"] != EventType.DROP
    for name, identity in (("saddr", "source_identity"), ("daddr", "destination_identity")):
        matters = np.isin(records[identity], outside)
        keys[name][matters] = records[name][matters]
    return keys


def _actor_of(endpoint: int, number: int, names: Names) -> Actor | None:
    """Who has these numbers, without an address; None for whoever is not known."""
    row, identity = names.endpoints.get(endpoint), names.identities.get(number)
    if row is not None and endpoint:
        return Actor(row.uid, row.labels, True, ports=subject_of(row).named_ports)
    if identity is None:  # of an address of the world nothing more has to be known
        return Actor(f"identity {number}", ()) if number >= FIRST_LOCAL else None
    return Actor(shown(number, identity.labels), identity.labels)
