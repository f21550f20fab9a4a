"""Which specs select a subject, without trying all of them."""

from __future__ import annotations

from attrs import define, field, frozen

from axoneme.plugins.policy.model import Policy, Selector, Spec
from axoneme.plugins.policy.selectors import Labels, PeerIndex
from axoneme.plugins.policy.subject import Settings, Subject


@frozen
class Matched:
    """A spec that selects a subject, with the policy it belongs to."""

    policy: Policy
    spec: Spec


def selected(spec: Spec, subject: Subject, labels: Labels, settings: Settings) -> bool:
    """Whether a spec applies to a subject: nodeSelector ones to the host alone, and only with the host firewall."""
    if spec.node is not subject.host or (subject.host and not settings.host_firewall):
        return False
    return labels.matches(spec.subject)


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
        """The specs that select the subject, whose labels are `labels`, in no particular order."""
        return [
            matched
            for text in self._index.candidates(labels)
            for matched in self._filed[text].values()
            if selected(matched.spec, subject, labels, settings)
        ]
