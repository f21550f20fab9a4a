"""From the rules that select a subject to what they say, per peer selector and block of ports.

This is the language's first half: requirements, empty lists, named ports, merging of rules with the same selector and
port, default deny. What comes out (`DirectionPolicy`) depends on no identity: it is the content that a policy number
stands for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from attrs import astuple, define, evolve, field, frozen

from axoneme.core.errors import AxonemeError
from axoneme.plugins.policy.blocks import EVERYTHING, Block, blocks
from axoneme.plugins.policy.matching import Matched
from axoneme.plugins.policy.model import (
    ALL_PORTS,
    L7,
    WILDCARD,
    Auth,
    Direction,
    Peer,
    PeerRule,
    Policy,
    PortRule,
    Ports,
    Requirement,
    Selector,
)
from axoneme.plugins.policy.peers import reserved
from axoneme.plugins.policy.rules import RuleRef
from axoneme.plugins.policy.subject import Enforcement, NamedPorts, Settings, Subject


class ConflictError(AxonemeError):
    """Rules of a subject that cannot be merged; none of its policy can be resolved."""


@frozen
class Entry:
    """What the rules with one selector say about one block of ports.

    :param rules: the rules merged into it, in the order of their names.
    :param auth: None unless a rule names a mode.
    """

    deny: bool
    rules: tuple[RuleRef, ...]
    l7: L7 | None = None
    auth: Auth | None = None

    @property
    def strength(self) -> int:
        """How strongly the entry pulls traffic to its proxy; 0 without one."""
        return 0 if self.l7 is None else 1000 - self.l7.priority


@frozen
class DirectionPolicy:
    """Everything that one direction's policy says, in terms of selectors.

    :param entries: per selector (by text) and block what applies; the wildcard's under `WILDCARD.text`.
    :param peers: the selectors by text, without the wildcard.
    :param default: the reason for what no entry decides, allowed only if `open`.
    :param enforced: some policy (or the configuration) applies to the direction.
    """

    enforced: bool
    open: bool
    default: RuleRef
    peers: tuple[Peer, ...] = ()
    entries: Mapping[str, tuple[tuple[Block, Entry], ...]] = field(factory=dict)

    @cached_property
    def digest(self) -> bytes:
        """16 bytes that stand for the content; equal content has equal bytes in every run."""
        content = [self.enforced, self.open, self.default.key]
        content += [(text, [_plain(*one) for one in found]) for text, found in sorted(self.entries.items())]
        return hashlib.blake2b(repr(content).encode(), digest_size=16, person=b"policy").digest()


def _plain(block: Block, entry: Entry) -> tuple[object, ...]:
    l7 = None if entry.l7 is None else astuple(entry.l7)
    auth = None if entry.auth is None else int(entry.auth)
    return (block, entry.deny, [ref.key for ref in entry.rules], l7, auth)


def build(
    matched: Sequence[Matched],
    direction: Direction,
    subject: Subject,
    cluster_ports: NamedPorts,
    settings: Settings,
) -> DirectionPolicy:
    """The policy of a subject in one direction. Raises `ConflictError`.

    :param matched: the specs that select the subject; their order does not matter.
    :param cluster_ports: the named ports of all workloads, which named ports in egress rules are looked up in.
    """
    if settings.enforcement is Enforcement.NEVER:
        return _plain_policy(False, True, direction, "enforcement-never")
    present = sorted(
        (one for one in matched if one.spec.direction(direction).rules),
        key=lambda one: (one.policy.key, one.spec.path),
    )
    enforced, open_, default = _default(present, direction, subject, settings)
    if not enforced:
        return _plain_policy(False, True, direction, "no-policy")
    ports = subject.ports if direction is Direction.INGRESS else _unambiguous(cluster_ports)
    filters = _Filters(ports, direction)
    filters.take(present)
    if open_:
        filters.allow(ALL_PORTS, WILDCARD, default)
    if direction is Direction.INGRESS and settings.allow_localhost and not subject.host:
        filters.allow_implied(reserved("host"), RuleRef("", direction.value, "allow-localhost"))
    return filters.policy(enforced, open_, default)


def _plain_policy(enforced: bool, open_: bool, direction: Direction, reason: str) -> DirectionPolicy:
    return DirectionPolicy(enforced, open_, RuleRef("", direction.value, reason))


def unresolvable(direction: Direction) -> DirectionPolicy:
    """Denies everything: for a subject whose rules contradict each other and that had no policy before."""
    return _plain_policy(True, False, direction, "unresolvable")


def _default(
    present: Sequence[Matched], direction: Direction, subject: Subject, settings: Settings
) -> tuple[bool, bool, RuleRef]:
    """Whether the direction is enforced, whether it is open to what nobody denies, and who says so."""

    def ref(matched: Matched, reason: str) -> RuleRef:
        return RuleRef(matched.policy.key, direction.value, reason)

    denying = [
        one for one in present if one.spec.direction(direction).default_deny or not settings.non_default_deny
    ]
    if denying:
        return True, False, ref(denying[0], "default-deny")
    if settings.enforcement is Enforcement.ALWAYS and not subject.host:
        return True, False, RuleRef("", direction.value, "enforcement-always")
    if any(label.startswith("reserved:init") for label in subject.labels):
        return True, False, RuleRef("", direction.value, "init")
    if present:
        return True, True, ref(present[0], "default-allow")
    return False, True, RuleRef("", direction.value, "no-policy")


def _unambiguous(ports: NamedPorts) -> NamedPorts:
    return {name: numbers for name, numbers in ports.items() if len(numbers) == 1}


@define
class _Filters:
    """Collects and merges what rules say, by ports as written and by selector text."""

    _ports: NamedPorts
    _direction: Direction
    _peers: dict[str, Peer] = field(factory=dict)
    _merged: dict[tuple[Ports, str], Entry] = field(factory=dict)
    _implied: list[tuple[str, Entry]] = field(factory=list)

    def take(self, present: Sequence[Matched]) -> None:
        rules = [(one.policy, rule) for one in present for rule in one.spec.direction(self._direction).rules]
        requires = {deny: _requires((rule for _, rule in rules), deny) for deny in (False, True)}
        for policy, rule in rules:
            self._rule(policy, rule, requires[rule.deny])

    def _rule(self, policy: Policy, rule: PeerRule, requires: tuple[Requirement, ...]) -> None:
        peers = _peers_of(rule, requires)
        if peers is None and rule.ports is None:
            return
        ref = RuleRef(policy.key, self._direction.value, rule.path)
        port_rules = rule.ports if rule.ports is not None else (PortRule((ALL_PORTS,)),)
        for peer in (WILDCARD,) if peers is None else peers:
            for port_rule in port_rules:
                for ports in port_rule.ports:
                    self._merge(ports, peer, Entry(rule.deny, (ref,), port_rule.l7, rule.auth))

    def allow(self, ports: Ports, peer: Peer, ref: RuleRef) -> None:
        self._merge(ports, peer, Entry(False, (ref,)))

    def allow_implied(self, peer: Peer, ref: RuleRef) -> None:
        """An allow that is no rule: it is not merged by selector, so it adds no wildcard to layer 7 rules."""
        self._peers.setdefault(peer.text, peer)
        self._implied.append((peer.text, Entry(False, (ref,))))

    def _merge(self, ports: Ports, peer: Peer, entry: Entry) -> None:
        self._peers.setdefault(peer.text, peer)
        key = (ports, peer.text)
        old = self._merged.get(key)
        self._merged[key] = entry if old is None else merge_rules(old, entry)

    def policy(self, enforced: bool, open_: bool, default: RuleRef) -> DirectionPolicy:
        entries: dict[str, list[tuple[Block, Entry]]] = {}
        tls = {ports for (ports, _), entry in self._merged.items() if entry.l7 and entry.l7.kind == "tls"}
        for (ports, text), merged in self._merged.items():
            entry = _redirected(merged, ports in tls, open_)
            entries.setdefault(text, []).extend((block, entry) for block in self._blocks(ports))
        for text, entry in self._implied:
            entries.setdefault(text, []).append((EVERYTHING, entry))
        peers = tuple(
            self._peers[text] for text in sorted(entries) if entries[text] and text != WILDCARD.text
        )
        ordered = {text: _ordered(found) for text, found in entries.items() if found}
        return DirectionPolicy(enforced, open_, default, peers, ordered)

    def _blocks(self, ports: Ports) -> Iterable[Block]:
        if not ports.name:
            return blocks(ports)
        numbers = self._ports.get((ports.name, ports.protocol), frozenset())
        return [one for number in numbers for one in blocks(Ports(ports.protocol, number, number))]


def _ordered(found: list[tuple[Block, Entry]]) -> tuple[tuple[Block, Entry], ...]:
    """Independent of the order in which rules came."""
    return tuple(found if len(found) == 1 else sorted(found, key=lambda one: repr(_plain(*one))))


def _redirected(entry: Entry, tls: bool, open_: bool) -> Entry:
    """One port has one redirect: where one selector asks for TLS, layer 7 rules of the others pass through it too.

    Where nobody's default deny is on, layer 7 rules restrict nothing (they still go through the proxy).
    """
    if entry.l7 is None:
        return entry
    shared = "tls" if tls and entry.l7.kind in ("http", "dns") else ""
    return evolve(entry, l7=evolve(entry.l7, shared=shared, wildcard=entry.l7.wildcard or open_))


def _requires(rules: Iterable[PeerRule], deny: bool) -> tuple[Requirement, ...]:
    found = {one: None for rule in rules if rule.deny is deny for one in rule.requires}
    return tuple(sorted(found, key=lambda one: one.text))


def _peers_of(rule: PeerRule, requires: tuple[Requirement, ...]) -> tuple[Peer, ...] | None:
    if rule.peers is None:
        return None
    peers: list[Peer] = list(rule.peers)
    if requires:
        for index in range(rule.endpoint_peers):
            peer = peers[index]
            if isinstance(peer, Selector):
                peers[index] = peer.also(requires)
    if any(peer.is_wildcard for peer in peers):
        return (WILDCARD,)
    return tuple(peers)


def merge_rules(old: Entry, new: Entry) -> Entry:
    """Merges rules of the same selector and the same ports as written. Raises `ConflictError`."""
    if old.deny or new.deny:
        deniers = tuple(ref for one in (old, new) if one.deny for ref in one.rules)
        return Entry(True, _names(deniers))
    auth = old.auth if new.auth is None else new.auth
    if old.auth is not None and new.auth is not None and old.auth is not new.auth:
        raise ConflictError(
            f"{new.rules[0].policy} {new.rules[0].path} and {old.rules[0].policy} {old.rules[0].path} ask for the"
            f" authentication modes {new.auth.text} and {old.auth.text} for the same peers and ports"
        )
    return Entry(False, _names(old.rules + new.rules), _merge_l7(old, new), auth)


def _names(refs: tuple[RuleRef, ...]) -> tuple[RuleRef, ...]:
    return tuple(sorted(set(refs), key=lambda ref: ref.key))


def _merge_l7(old: Entry, new: Entry) -> L7 | None:
    first, second = old.l7, new.l7
    if first is None or second is None:
        some = first or second
        return None if some is None else evolve(some, wildcard=True)
    if first.kind == second.kind == "crd":
        if first.priority == second.priority and first.listener != second.listener:
            raise _l7_conflict(old, new, f"the listeners {first.listener} and {second.listener}")
        return first if first.priority <= second.priority else second
    for one, other in ((first, second), (second, first)):
        if one.kind == "tls" and other.kind not in ("tls", "dns", "crd"):
            first, second = evolve(other, rules=()), other
    if first.kind != second.kind:
        raise _l7_conflict(old, new, f"the parsers {first.kind} and {second.kind}")
    return evolve(
        first,
        rules=tuple(sorted({*first.rules, *second.rules})),
        wildcard=first.wildcard or second.wildcard,
        context=tuple(sorted({*first.context, *second.context})),
    )


def _l7_conflict(old: Entry, new: Entry, what: str) -> ConflictError:
    return ConflictError(
        f"{new.rules[0].policy} {new.rules[0].path} and {old.rules[0].policy} {old.rules[0].path} ask for {what} for"
        " the same peers and ports"
    )
