"""Which specs select a subject, without trying all of them; and what each says, worked out once for all subjects."""

from __future__ import annotations

from attrs import define, field

from axoneme.plugins.policy.model import Direction, Policy, Requirement, Selector, Spec, derived
from axoneme.plugins.policy.selectors import Labels, PeerIndex
from axoneme.plugins.policy.statements import Statement, statements
from axoneme.plugins.policy.subject import Settings, Subject


@define(eq=False)
class Matched:
    """A spec that selects a subject, with the policy it belongs to.

    :ivar order: what specs are sorted by.
    :ivar egress, ingress: what its rules say, as long as no spec of the subject has requirements.
    :ivar has_requires: some rule demands something of the endpoint peers of other rules.
    """

    policy: Policy
    spec: Spec
    order: tuple[str, str] = derived(lambda one: (one.policy.key, one.spec.path))
    about_egress: bool = derived(lambda one: bool(one.spec.egress.rules))
    about_ingress: bool = derived(lambda one: bool(one.spec.ingress.rules))
    has_requires: bool = derived(lambda one: _has_requires(one.spec))
    egress: tuple[Statement, ...] = derived(lambda one: _said(one, Direction.EGRESS))
    ingress: tuple[Statement, ...] = derived(lambda one: _said(one, Direction.INGRESS))

    def requires(self, direction: Direction, deny: bool) -> frozenset[Requirement]:
        """What the spec's rules with this verdict demand of the endpoint peers of all rules with it."""
        rules = self.spec.direction(direction).rules
        return frozenset(one for rule in rules if rule.deny is deny for one in rule.requires)

    def speaks(self, direction: Direction) -> bool:
        """Whether it has a rule of this direction, be it one that says nothing."""
        return self.about_egress if direction is Direction.EGRESS else self.about_ingress

    def statements(self, direction: Direction) -> tuple[Statement, ...]:
        """What its rules of one direction say."""
        return self.egress if direction is Direction.EGRESS else self.ingress


def _said(matched: Matched, direction: Direction) -> tuple[Statement, ...]:
    return tuple(statements(matched.policy, matched.spec, direction))


def _has_requires(spec: Spec) -> bool:
    return any(rule.requires for rule in (*spec.egress.rules, *spec.ingress.rules))


def applies(spec: Spec, subject: Subject, settings: Settings) -> bool:
    """Whether a spec is for such subjects at all: nodeSelector ones for the host alone, and only with the host firewall."""
    return spec.node is subject.host and (settings.host_firewall or not subject.host)


def selected(spec: Spec, subject: Subject, labels: Labels, settings: Settings) -> bool:
    """Whether a spec applies to a subject."""
    return applies(spec, subject, settings) and labels.matches(spec.subject)


@define
class SpecIndex:
    """The specs of all policies, filed by a label that their subjects need."""

    _index: PeerIndex = field(factory=PeerIndex)
    _selectors: dict[str, Selector] = field(factory=dict)
    _filed: dict[str, dict[tuple[str, str], Matched]] = field(factory=dict)

    def add(self, policy: Policy) -> None:
        for spec in policy.specs:
            text = spec.subject.text
            if text not in self._filed:
                self._filed[text] = {}
                self._selectors[text] = spec.subject
                self._index.add(spec.subject)
            self._filed[text][policy.key, spec.path] = Matched(policy, spec)

    def remove(self, policy: Policy) -> None:
        for spec in policy.specs:
            text = spec.subject.text
            filed = self._filed[text]
            del filed[policy.key, spec.path]
            if not filed:
                self._index.remove(self._selectors.pop(text))
                del self._filed[text]

    def matching(self, subject: Subject, labels: Labels, settings: Settings) -> list[Matched]:
        """The specs that select the subject, whose labels are `labels`, in their order."""
        found = [
            matched
            for text in self._index.candidates(labels)
            if labels.matches(self._selectors[text])
            for matched in self._filed[text].values()
            if applies(matched.spec, subject, settings)
        ]
        found.sort(key=_order)
        return found


def _order(matched: Matched) -> tuple[str, str]:
    return matched.order
