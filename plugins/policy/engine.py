"""The policy engine: from policies, identities and subjects to decision tables, incrementally.

Pure: no I/O, no clock, no kernel. The reconciler, the commands and the tests use the same object. Feed it changes, then
`commit()` gives the plan of writes since the last commit.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field, frozen

from axoneme.plugins.policy.filters import ConflictError, DirectionPolicy, build, unresolvable
from axoneme.plugins.policy.matching import Matched, SpecIndex, selected
from axoneme.plugins.policy.model import L7, Direction, Policy, Protocol
from axoneme.plugins.policy.numbers import Numbers
from axoneme.plugins.policy.resolve import Decisions, Resolver, Verdict, decide, digest, signatures
from axoneme.plugins.policy.rules import RuleBook, RuleRef, digest32, refs_of
from axoneme.plugins.policy.selectors import Identity, Labels, Universe
from axoneme.plugins.policy.subject import NamedPorts, Settings, Subject
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


@frozen
class Resolved:
    """What a subject's policies came to: digests of its two policies, and why they could not be brought up to date."""

    egress: bytes
    ingress: bytes
    error: ConflictError | None = None


@define
class _Pending:
    """What the next plan will hold."""

    verdicts: dict[VerdictKey, VerdictValue] = field(factory=dict)
    peers: dict[PeerKey, int] = field(factory=dict)
    subjects: dict[int, SubjectEntry] = field(factory=dict)
    drop_peers: dict[PeerKey, None] = field(factory=dict)
    drop_verdicts: dict[VerdictKey, None] = field(factory=dict)


class Engine:
    """Policies, identities and subjects in, decision tables out.

    :param settings: see `Settings`; changing them takes a new engine.
    :param hash_bits: the width of policy and class numbers; tests narrow it to see collisions.
    """

    def __init__(self, settings: Settings | None = None, *, hash_bits: int = 32) -> None:
        self.settings = settings or Settings()
        self.universe = Universe()
        self.rules = RuleBook()
        #: The layer 7 rules behind the numbers in the verdicts.
        self.l7: dict[int, L7] = {}
        self._policies: dict[str, Policy] = {}
        self._specs = SpecIndex()
        self._labels: dict[Subject, Labels] = {}
        self._subjects: dict[int, Subject] = {}
        self._endpoints: dict[Subject, set[int]] = {}
        self._resolved: dict[Subject, Resolved] = {}
        self._live: dict[bytes, _Live] = {}
        self._users_of: dict[str, set[bytes]] = {}
        self._classes: dict[bytes, _Class] = {}
        self._numbers = Numbers(hash_bits)
        self._stale: set[Subject] = set()
        self._new: set[int] = set()
        self._idle: set[bytes] = set()
        self._pending = _Pending()
        self._tables = Tables()
        self._named: dict[tuple[str, Protocol], dict[int, int]] = {}

    # Reading

    @property
    def tables(self) -> Tables:
        """The tables as of the last commit. Not to be changed."""
        return self._tables

    @property
    def policies(self) -> Mapping[str, Policy]:
        return self._policies

    @property
    def subjects(self) -> Mapping[int, Subject]:
        return self._subjects

    def resolved(self, endpoint: int) -> Resolved | None:
        subject = self._subjects.get(endpoint)
        return None if subject is None else self._resolved.get(subject)

    def policy_of(self, endpoint: int, direction: Direction) -> DirectionPolicy | None:
        """What a subject's policy says in one direction, in terms of selectors."""
        found = self.resolved(endpoint)
        if found is None:
            return None
        return self._live[found.egress if direction is Direction.EGRESS else found.ingress].policy

    def decisions(self, endpoint: int, direction: Direction) -> dict[Signature, tuple[Decisions, list[int]]]:
        """All decisions of a subject: per signature its verdicts and identities; `()` is everybody else."""
        policy = self.policy_of(endpoint, direction)
        if policy is None:
            return {}
        live = self._live[policy.digest]
        members: dict[Signature, list[int]] = {}
        for number, signature in live.signature_of.items():
            members.setdefault(signature, []).append(number)
        found: dict[Signature, tuple[Decisions, list[int]]] = {(): (live.default, [])}
        for signature, numbers in sorted(members.items()):
            found[signature] = (live.resolver.decisions(signature), sorted(numbers))
        return found

    def verdict(
        self, endpoint: int, direction: Direction, identity: int, protocol: int, port: int
    ) -> Verdict | None:
        """The decision with everything that is known of it; None for an unknown endpoint.

        Agrees with `tables.lookup`, which only has what the kernel has.
        """
        policy = self.policy_of(endpoint, direction)
        if policy is None:
            return None
        live = self._live[policy.digest]
        signature = live.signature_of.get(identity)
        decisions = live.default if signature is None else live.resolver.decisions(signature)
        return decide(decisions, protocol, port)

    def errors(self) -> dict[int, ConflictError]:
        """The endpoints whose policies contradict each other."""
        return {
            endpoint: found.error
            for subject, found in self._resolved.items()
            if found.error is not None
            for endpoint in self._endpoints.get(subject, ())
        }

    # Changes

    def upsert_policy(self, policy: Policy) -> None:
        """Adds a policy, or replaces the one with its key."""
        old = self._policies.get(policy.key)
        if old is not None:
            self._retire(old, policy)
            self._specs.remove(old)
        self._policies[policy.key] = policy
        self._specs.add(policy)
        for ref, rule in refs_of(policy):
            self.rules.enter(ref, rule, policy.where)
        self._touch(policy, old)

    def remove_policy(self, key: str) -> None:
        old = self._policies.pop(key, None)
        if old is not None:
            self._retire(old, None)
            self._specs.remove(old)
            self._touch(old, None)

    def _retire(self, old: Policy, new: Policy | None) -> None:
        kept = {ref for ref, _ in refs_of(new)} if new else set()
        for ref, _ in refs_of(old):
            if ref not in kept:
                self.rules.retire(ref)

    def _touch(self, *policies: Policy | None) -> None:
        """Marks the subjects that the policies select, or selected."""
        specs = [spec for policy in policies if policy for spec in policy.specs]
        for subject in self._endpoints:
            labels = self._labels[subject]
            if any(selected(spec, subject, labels, self.settings) for spec in specs):
                self._stale.add(subject)

    def upsert_identity(self, identity: Identity) -> None:
        known = self.universe.labels(identity.number)
        if known is not None:
            if known.texts == tuple(sorted(set(identity.labels))):
                return
            self.remove_identity(identity.number)
        self.universe.add(identity)
        self._new.add(identity.number)

    def remove_identity(self, number: int) -> None:
        if number not in self.universe:
            return
        self.universe.remove(number)
        self._new.discard(number)
        for live in self._live.values():
            self._leave(live, number)

    def upsert_subject(self, endpoint: int, subject: Subject) -> None:
        """Adds a local endpoint, or changes what is known of it."""
        old = self._subjects.get(endpoint)
        if old == subject:
            return
        if old is not None:
            self._detach(endpoint, old)
        self._subjects[endpoint] = subject
        if subject not in self._endpoints:
            self._endpoints[subject], self._labels[subject] = set(), Labels(subject.labels)
        self._endpoints[subject].add(endpoint)
        self._count_ports(subject, 1)
        self._stale.add(subject)

    def remove_subject(self, endpoint: int) -> None:
        old = self._subjects.pop(endpoint, None)
        if old is not None:
            self._detach(endpoint, old)
            self._set_subject(endpoint, NO_SUBJECT)

    def _detach(self, endpoint: int, subject: Subject) -> None:
        self._count_ports(subject, -1)
        self._endpoints[subject].discard(endpoint)
        if not self._endpoints[subject]:
            del self._endpoints[subject], self._labels[subject]
            self._stale.add(subject)

    def _count_ports(self, subject: Subject, change: int) -> None:
        """Named ports in egress rules mean what the whole cluster means by them."""
        before = self._cluster_ports() if subject.named_ports else None
        for name, protocol, port in subject.named_ports:
            numbers = self._named.setdefault((name.lower(), protocol), {})
            numbers[port] = numbers.get(port, 0) + change
            if not numbers[port]:
                del numbers[port]
        if before is not None and before != self._cluster_ports():
            self._stale |= self._endpoints.keys()

    def _cluster_ports(self) -> NamedPorts:
        return {name: frozenset(numbers) for name, numbers in self._named.items() if numbers}

    # Committing

    def commit(self) -> Plan:
        """Brings everything up to date; returns the writes since the last commit."""
        for number in self._new:
            self._join(number)
        self._new.clear()
        for subject in sorted(self._stale, key=lambda one: (one.labels, one.named_ports)):
            self._resolve(subject)
        self._stale.clear()
        for policy_digest in self._idle:
            if not self._live[policy_digest].users:
                self._drop_policy(policy_digest)
        self._idle.clear()
        self._numbers.settle()
        return self._publish()

    def _publish(self) -> Plan:
        """Turns what is pending into a plan, leaving out what changed back."""
        pending, self._pending = self._pending, _Pending()
        tables = self._tables
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
        return plan

    def _resolve(self, subject: Subject) -> None:
        old = self._resolved.pop(subject, None)
        endpoints = self._endpoints.get(subject, set())
        if endpoints:
            new = self._resolved[subject] = self._build(subject, old)
            for policy_digest in (new.egress, new.ingress):
                self._live[policy_digest].users += 1
            entry = self._entry(new)
            for endpoint in endpoints:
                self._set_subject(endpoint, entry)
        for policy_digest in (old.egress, old.ingress) if old else ():
            self._live[policy_digest].users -= 1
            self._idle.add(policy_digest)

    def _build(self, subject: Subject, old: Resolved | None) -> Resolved:
        """Where rules contradict each other the old policy stays; without one, everything is denied."""
        matched = self._specs.matching(subject, self.settings)
        try:
            egress, ingress = (self._direction(matched, one, subject) for one in Direction)
        except ConflictError as error:
            if old is not None:
                return Resolved(old.egress, old.ingress, error)
            egress, ingress = (unresolvable(one) for one in Direction)
            return Resolved(self._use(egress), self._use(ingress), error)
        return Resolved(self._use(egress), self._use(ingress))

    def _direction(self, matched: list[Matched], direction: Direction, subject: Subject) -> DirectionPolicy:
        return build(matched, direction, subject, self._cluster_ports(), self.settings)

    def _entry(self, resolved: Resolved) -> SubjectEntry:
        egress, ingress = self._live[resolved.egress], self._live[resolved.ingress]
        flags = Flag.COMPUTED
        if egress.policy.enforced:
            flags |= Flag.EGRESS_ENFORCED
        if ingress.policy.enforced:
            flags |= Flag.INGRESS_ENFORCED
        return SubjectEntry(egress.number, ingress.number, flags)

    # Policies and classes in use

    def _use(self, policy: DirectionPolicy) -> bytes:
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
            self.universe.use(peer)
            self._users_of.setdefault(peer.text, set()).add(policy.digest)
        for signature, numbers in signatures(policy, self.universe).items():
            for identity in numbers:
                self._enter(live, identity, signature)

    def _drop_policy(self, policy_digest: bytes) -> None:
        live = self._live.pop(policy_digest)
        for identity in list(live.signature_of):
            self._leave(live, identity)
        for peer in live.policy.peers:
            self.universe.release(peer)
            users = self._users_of[peer.text]
            users.discard(policy_digest)
            if not users:
                del self._users_of[peer.text]
        self._drop_rows(live.rows)
        self._numbers.release(policy_digest)

    def _join(self, identity: int) -> None:
        """Enters a new identity in every policy in use that mentions it."""
        mentioned: dict[bytes, list[str]] = {}
        for text in sorted(self.universe.selectors_of(identity)):
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
        return VerdictValue(_action(verdict), int(verdict.auth or 0), 0, self._rule(verdict.rule), l7)

    def _rule(self, ref: RuleRef) -> int:
        number = self.rules.number(ref)
        if self.rules.row(number) is None:
            self.rules.enter(ref)
        return number

    def _add_rows(self, rows: dict[VerdictKey, VerdictValue]) -> None:
        for key, value in rows.items():
            self._pending.verdicts[key] = value
            self._pending.drop_verdicts.pop(key, None)

    def _drop_rows(self, rows: dict[VerdictKey, VerdictValue]) -> None:
        for key in rows:
            self._pending.verdicts.pop(key, None)
            self._pending.drop_verdicts[key] = None

    def _set_subject(self, endpoint: int, entry: SubjectEntry) -> None:
        self._pending.subjects[endpoint] = entry


def _action(verdict: Verdict) -> Action:
    if verdict.allow:
        return Action.ALLOW if verdict.l7 is None else Action.REDIRECT
    return Action.DENY if verdict.default else Action.DENY_RULE
