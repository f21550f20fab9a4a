"""Policies and classes in use: their numbers, their rows, and the writes that a change of them needs."""

from __future__ import annotations

from attrs import define, field

from axoneme.core.datapath.proxies import Proxy
from axoneme.plugins.policy.filters import DirectionPolicy
from axoneme.plugins.policy.model import L7
from axoneme.plugins.policy.numbers import Numbers
from axoneme.plugins.policy.resolve import Decisions, Resolver, Verdict, digest, signatures
from axoneme.plugins.policy.rules import RuleBook, RuleRef, digest32
from axoneme.plugins.policy.selectors import Universe
from axoneme.plugins.policy.tables import (
    NO_SUBJECT,
    Action,
    Flag,
    PeerKey,
    Plan,
    SubjectEntry,
    Tables,
    VerdictKey,
    VerdictValue,
    apply,
    verdict_key,
)

#: Which proxy a redirect of each kind needs; every other kind needs a parser.
_PROXIES = {
    "dns": Proxy.DNS,
    "http": Proxy.HTTP,
    "tls": Proxy.TLS,
    "kafka": Proxy.KAFKA,
    "crd": Proxy.LISTENER,
}

#: The selectors of a policy that select an identity, by text, sorted. Equal signatures share a class.
Signature = tuple[str, ...]


@define
class _Class:
    """A class in use: its number, its rows, and how many (policy, signature) pairs use it."""

    number: int
    rows: dict[VerdictKey, VerdictValue]
    users: int = 0


@define
class _Group:
    """The identities of one policy with the same signature. Class None is the policy's default class."""

    class_: bytes | None
    members: int = 0


@define
class _Live:
    """A policy in use."""

    policy: DirectionPolicy
    number: int
    resolver: Resolver
    default: Decisions
    rows: dict[VerdictKey, VerdictValue]
    groups: dict[Signature, _Group] = field(factory=dict)
    signature_of: dict[int, Signature] = field(factory=dict)
    users: int = 0


@define
class _Pending:
    """What the next plan will hold."""

    verdicts: dict[VerdictKey, VerdictValue] = field(factory=dict)
    peers: dict[PeerKey, int] = field(factory=dict)
    subjects: dict[int, SubjectEntry] = field(factory=dict)
    drop_peers: dict[PeerKey, None] = field(factory=dict)
    drop_verdicts: dict[VerdictKey, None] = field(factory=dict)


class LivePolicies:
    """The policies that subjects use, entered in the tables for every known identity.

    :param hash_bits: the width of policy and class numbers.
    """

    def __init__(self, universe: Universe, rules: RuleBook, hash_bits: int) -> None:
        self.tables = Tables()
        #: The layer 7 rules behind the numbers in the verdicts.
        self.l7: dict[int, L7] = {}
        self._universe = universe
        self._rules = rules
        self._live: dict[bytes, _Live] = {}
        self._users_of: dict[str, set[bytes]] = {}
        self._classes: dict[bytes, _Class] = {}
        self._numbers = Numbers(hash_bits)
        self._idle: set[bytes] = set()
        self._l7_kept = 1024
        self._pending = _Pending()

    def __getitem__(self, policy_digest: bytes) -> _Live:
        return self._live[policy_digest]

    def set_subject(self, endpoint: int, entry: SubjectEntry) -> None:
        self._pending.subjects[endpoint] = entry

    def hold(self, *policy_digests: bytes) -> None:
        """Somebody uses these policies, until `release`."""
        for one in policy_digests:
            self._live[one].users += 1

    def release(self, *policy_digests: bytes) -> None:
        for one in policy_digests:
            self._live[one].users -= 1
            self._idle.add(one)

    def publish(self) -> Plan:
        """Drops what nobody uses; the writes since the last time, leaving out what changed back."""
        for policy_digest in self._idle:
            if not self._live[policy_digest].users:
                self._drop_policy(policy_digest)
        self._idle.clear()
        self._numbers.settle()
        pending, self._pending = self._pending, _Pending()
        tables = self.tables
        plan = Plan(
            {key: value for key, value in pending.verdicts.items() if tables.verdicts.get(key) != value},
            {key: value for key, value in pending.peers.items() if tables.peers.get(key) != value},
            {
                key: value
                for key, value in pending.subjects.items()
                if tables.subjects.get(key, NO_SUBJECT) != value
            },
            tuple(key for key in pending.drop_peers if key in tables.peers),
            tuple(key for key in pending.drop_verdicts if key in tables.verdicts),
        )
        for write in plan.writes():
            apply(tables, write)
        if len(self.l7) > 2 * self._l7_kept:
            used = {value.l7 for value in tables.verdicts.values()}
            self.l7 = {number: rules for number, rules in self.l7.items() if number in used}
            self._l7_kept = max(1024, len(self.l7))
        return plan

    def entry(self, egress_digest: bytes, ingress_digest: bytes) -> SubjectEntry:
        egress, ingress = self._live[egress_digest], self._live[ingress_digest]
        flags = Flag.COMPUTED
        if egress.policy.enforced:
            flags |= Flag.EGRESS_ENFORCED
        if ingress.policy.enforced:
            flags |= Flag.INGRESS_ENFORCED
        return SubjectEntry(egress.number, ingress.number, flags)

    def use(self, policy: DirectionPolicy) -> bytes:
        if policy.digest not in self._live:
            self._add_policy(policy)
        return policy.digest

    def _add_policy(self, policy: DirectionPolicy) -> None:
        resolver = Resolver(policy)
        default = resolver.decisions(())
        number = self._numbers.take(policy.digest)
        rows = self._rows(number, default)
        live = self._live[policy.digest] = _Live(policy, number, resolver, default, rows)
        self._idle.add(policy.digest)
        self._add_rows(rows)
        for peer in policy.peers:
            self._universe.use(peer)
            self._users_of.setdefault(peer.text, set()).add(policy.digest)
        for signature, numbers in signatures(policy, self._universe).items():
            for identity in numbers:
                self._enter(live, identity, signature)

    def _drop_policy(self, policy_digest: bytes) -> None:
        live = self._live.pop(policy_digest)
        for identity in list(live.signature_of):
            self._leave(live, identity)
        for peer in live.policy.peers:
            self._universe.release(peer)
            users = self._users_of[peer.text]
            users.discard(policy_digest)
            if not users:
                del self._users_of[peer.text]
        self._drop_rows(live.rows)
        self._numbers.release(policy_digest)

    def join(self, identity: int) -> None:
        """Enters a new identity in every policy in use that mentions it."""
        mentioned: dict[bytes, list[str]] = {}
        for text in sorted(self._universe.selectors_of(identity)):
            for policy_digest in self._users_of.get(text, ()):
                mentioned.setdefault(policy_digest, []).append(text)
        for policy_digest, texts in mentioned.items():
            live = self._live[policy_digest]
            if identity not in live.signature_of:
                self._enter(live, identity, tuple(texts))

    def _enter(self, live: _Live, identity: int, signature: Signature) -> None:
        group = live.groups.get(signature)
        if group is None:
            group = live.groups[signature] = _Group(self._use_class(live, signature))
        group.members += 1
        live.signature_of[identity] = signature
        if group.class_ is not None:
            key = (live.number, identity)
            self._pending.peers[key] = self._classes[group.class_].number
            self._pending.drop_peers.pop(key, None)

    def leave(self, identity: int) -> None:
        """Takes an identity out of every policy in use."""
        for live in self._live.values():
            self._leave(live, identity)

    def _leave(self, live: _Live, identity: int) -> None:
        signature = live.signature_of.pop(identity, None)
        if signature is None:
            return
        group = live.groups[signature]
        group.members -= 1
        key = (live.number, identity)
        self._pending.peers.pop(key, None)
        self._pending.drop_peers[key] = None
        if not group.members:
            del live.groups[signature]
            self._release_class(group.class_)

    def _use_class(self, live: _Live, signature: Signature) -> bytes | None:
        """The class of a signature; None where its decisions are those of the default class."""
        decisions = live.resolver.decisions(signature)
        if decisions == live.default:
            return None
        name = digest(decisions)
        found = self._classes.get(name)
        if found is None:
            number = self._numbers.take(name)
            found = self._classes[name] = _Class(number, self._rows(number, decisions))
            self._add_rows(found.rows)
        found.users += 1
        return name

    def _release_class(self, name: bytes | None) -> None:
        if name is None:
            return
        found = self._classes[name]
        found.users -= 1
        if not found.users:
            del self._classes[name]
            self._numbers.release(name)
            self._drop_rows(found.rows)

    def _rows(self, number: int, decisions: Decisions) -> dict[VerdictKey, VerdictValue]:
        return {verdict_key(number, block): self._value(verdict) for block, verdict in decisions.items()}

    def _value(self, verdict: Verdict) -> VerdictValue:
        l7 = 0
        if verdict.l7 is not None:
            l7 = digest32(repr(verdict.l7))
            self.l7[l7] = verdict.l7
        proxy = 0 if verdict.l7 is None else int(_PROXIES.get(verdict.l7.redirect, Proxy.OTHER))
        return VerdictValue(_action(verdict), int(verdict.auth or 0), proxy, self._rule(verdict.rule), l7)

    def _rule(self, ref: RuleRef) -> int:
        number = self._rules.number(ref)
        if self._rules.row(number) is None:
            self._rules.enter(ref)
        return number

    def _add_rows(self, rows: dict[VerdictKey, VerdictValue]) -> None:
        for key, value in rows.items():
            self._pending.verdicts[key] = value
            self._pending.drop_verdicts.pop(key, None)

    def _drop_rows(self, rows: dict[VerdictKey, VerdictValue]) -> None:
        for key in rows:
            self._pending.verdicts.pop(key, None)
            self._pending.drop_verdicts[key] = None


def _action(verdict: Verdict) -> Action:
    if verdict.allow:
        return Action.ALLOW if verdict.l7 is None else Action.REDIRECT
    return Action.DENY if verdict.default else Action.DENY_RULE
