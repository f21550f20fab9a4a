"""The policy engine: from policies, identities and subjects to decision tables, incrementally.

Pure: no I/O, no clock, no kernel. The reconciler, the commands and the tests use the same object. Feed it changes, then
`commit()` gives the plan of writes since the last commit.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import frozen

from axoneme.plugins.policy.audit import paired
from axoneme.plugins.policy.classes import Signature, positions
from axoneme.plugins.policy.filters import ConflictError, DirectionPolicy, build, rehearsing, unresolvable
from axoneme.plugins.policy.live import LivePolicies
from axoneme.plugins.policy.matching import Matched, SpecIndex, selected
from axoneme.plugins.policy.model import L7, Direction, Policy, Protocol
from axoneme.plugins.policy.resolve import Decisions, decide
from axoneme.plugins.policy.rules import RuleBook, RuleRef, refs_of
from axoneme.plugins.policy.selectors import Identity, Labels, Universe
from axoneme.plugins.policy.statements import Verdict
from axoneme.plugins.policy.subject import NamedPorts, Settings, Subject
from axoneme.plugins.policy.tables import (
    NO_SUBJECT,
    Plan,
    Tables,
)


@frozen
class Resolved:
    """What a subject's policies came to: digests of its two policies, and why they could not be brought up to date."""

    egress: bytes
    ingress: bytes
    error: ConflictError | None = None


class Engine:
    """Policies, identities and subjects in, decision tables out.

    :param settings: see `Settings`; changing them takes a new engine.
    :param hash_bits: the width of policy and class numbers; tests narrow it to see collisions.
    """

    def __init__(self, settings: Settings | None = None, *, hash_bits: int = 32) -> None:
        self.settings = settings or Settings()
        self.universe = Universe()
        self.rules = RuleBook()
        self._policies: dict[str, Policy] = {}
        self._audited: set[str] = set()
        self._specs = SpecIndex()
        self._labels: dict[Subject, Labels] = {}
        self._subjects: dict[int, Subject] = {}
        self._endpoints: dict[Subject, set[int]] = {}
        self._resolved: dict[Subject, Resolved] = {}
        self._live = LivePolicies(self.universe, self.rules, hash_bits)
        self._stale: set[Subject] = set()
        self._new: set[int] = set()
        self._gone: dict[int, int] = {}
        self._named: dict[tuple[str, Protocol], dict[int, int]] = {}

    # Reading

    @property
    def tables(self) -> Tables:
        """The tables as of the last commit. Not to be changed."""
        return self._live.tables

    @property
    def l7(self) -> Mapping[int, L7]:
        """The layer 7 rules behind the numbers in the verdicts."""
        return self._live.l7

    @property
    def no_room(self) -> int:
        """The rule id of what is denied because the tables have no room for it."""
        return self.rules.enter(RuleRef("", "", "no-room")).id

    @property
    def policies(self) -> Mapping[str, Policy]:
        return self._policies

    def is_audited(self, policy: Policy) -> bool:
        """Whether a policy is only rehearsed."""
        settings = self.settings
        return policy.audit or settings.audit or policy.namespace in settings.audit_namespaces

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
        found: dict[Signature, tuple[Decisions, list[int]]] = {(): (live.resolver.default, [])}
        for signature, group in sorted(live.groups.items()):
            numbers = sorted(map(self.universe.number_at, positions(group.bits)))
            found[signature] = (live.resolver.decisions(signature), numbers)
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
        known = identity in self.universe and identity not in self._new
        signature = live.signature(self.universe.bit_of(identity)) if known else ()
        return decide(live.resolver.decisions(signature), protocol, port)

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
        (self._audited.add if self.is_audited(policy) else self._audited.discard)(policy.key)
        self._specs.add(policy)
        for ref, rule in refs_of(policy):
            self.rules.enter(ref, rule, policy.where)
        self._touch(policy, old)

    def remove_policy(self, key: str) -> None:
        old = self._policies.pop(key, None)
        self._audited.discard(key)
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
        if number in self._new:
            self._new.discard(number)
        else:
            self._gone[number] = self.universe.bit_of(number)
        self.universe.remove(number)

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
            self._live.set_subject(endpoint, NO_SUBJECT)

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
        for number, bit in self._gone.items():
            self._live.leave(number, bit)
        self._gone.clear()
        for number in self._new:
            self._live.join(number)
        self._new.clear()
        for subject in sorted(self._stale, key=lambda one: (one.labels, one.named_ports)):
            self._resolve(subject)
        self._stale.clear()
        return self._live.publish()

    def _resolve(self, subject: Subject) -> None:
        old = self._resolved.pop(subject, None)
        endpoints = self._endpoints.get(subject, set())
        if endpoints:
            new = self._resolved[subject] = self._build(subject, old)
            self._live.hold(new.egress, new.ingress)
            entry = self._live.entry(new.egress, new.ingress)
            for endpoint in endpoints:
                self._live.set_subject(endpoint, entry)
        if old:
            self._live.release(old.egress, old.ingress)

    def _build(self, subject: Subject, old: Resolved | None) -> Resolved:
        """Where rules contradict each other the old policy stays; without one, everything is denied."""
        matched = self._specs.matching(subject, self._labels[subject], self.settings)
        likes = (old.egress, old.ingress) if old else (None, None)
        try:
            (egress, fault), (ingress, other) = (self._direction(matched, one, subject) for one in Direction)
        except ConflictError as error:
            if old is not None:
                return Resolved(old.egress, old.ingress, error)
            egress, ingress = (unresolvable(one) for one in Direction)
            return Resolved(self._live.use(egress), self._live.use(ingress), error)
        return Resolved(self._live.use(egress, likes[0]), self._live.use(ingress, likes[1]), fault or other)

    def _direction(
        self, matched: list[Matched], direction: Direction, subject: Subject
    ) -> tuple[DirectionPolicy, ConflictError | None]:
        """The policy, and why what is rehearsed could not be. Raises `ConflictError` where what is enforced cannot be."""
        everything, audited = self.settings.audit, self._audited
        concerned = everything or (audited and any(_is_about(one, audited, direction) for one in matched))
        if not concerned:
            return self._of(matched, direction, subject), None
        if everything:
            enforced = rehearsing(direction)
        else:
            others = [one for one in matched if one.policy.key not in audited]
            enforced = self._of(others, direction, subject)
        try:
            rehearsed = self._of(matched, direction, subject)
        except ConflictError as error:
            return enforced, error
        return (paired(enforced, rehearsed) if rehearsed.enforced else enforced), None

    def _of(self, matched: list[Matched], direction: Direction, subject: Subject) -> DirectionPolicy:
        return build(matched, direction, subject, self._cluster_ports(), self.settings)


def _is_about(matched: Matched, policies: set[str], direction: Direction) -> bool:
    """Whether the spec is one of these policies', and has a rule in the direction."""
    return matched.policy.key in policies and bool(matched.spec.direction(direction).rules)
