"""Which pairs of identities and ports would change: two engines, with the same identities and workloads, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from attrs import define, field, frozen

from axoneme.plugins.policy.explain import rule_row
from axoneme.plugins.policy.model import Direction
from axoneme.plugins.policy.parties import shown
from axoneme.plugins.policy.rehearsal.inputs import Inputs, Rehearsed, rehearse
from axoneme.plugins.policy.rehearsal.outcomes import Change, Outcome, changes
from axoneme.plugins.policy.resolve import Decisions
from axoneme.plugins.policy.rules import RuleRef
from axoneme.plugins.policy.subject import Subject

#: Changes that are told of; how many pairs change is told beside them.
MAX_ROWS = 5_000


@frozen
class End:
    """One end of a pair: workloads that are alike to policy, or an identity that no workload of this node has.

    :param endpoint: of one of the workloads, 0 for an identity only.
    """

    identity: int
    endpoint: int = 0


def diff(before: Inputs, after: Inputs) -> dict[str, Any]:
    """The answer of `policy.diff`: pairs whose traffic would notice, with ports, verdicts and rules before and after."""
    old, new = rehearse(before, after), rehearse(after, before)
    comparison = _Comparison(old, new)
    rows: list[dict[str, Any]] = []
    total = 0
    for source, destination in sorted(
        comparison.pairs(), key=lambda pair: [(e.endpoint, e.identity) for e in pair]
    ):
        found = comparison.changes(source, destination)
        total += bool(found)
        room = MAX_ROWS - len(rows)
        rows += [_row(comparison, source, destination, change) for change in found[:room]]
    return {
        "changes": rows,
        "pairs": total,
        "policies": _policies(before, after),
        "errors": [
            {"workload": comparison.names[endpoint], "error": str(error)}
            for endpoint, error in sorted(new.engine.errors().items())
        ],
    }


def _policies(before: Inputs, after: Inputs) -> dict[str, list[str]]:
    old, new = before.policies, after.policies
    return {
        "added": sorted(new.keys() - old.keys()),
        "changed": sorted(key for key in new.keys() & old.keys() if new[key] != old[key]),
        "deleted": sorted(old.keys() - new.keys()),
    }


def _row(comparison: _Comparison, source: End, destination: End, change: Change) -> dict[str, Any]:
    return {
        "source": comparison.name(source),
        "destination": comparison.name(destination),
        "ports": change.ports.text,
        "before": change.before.text,
        "after": change.after.text,
        "rules_before": _rules(comparison.old, change.before),
        "rules_after": _rules(comparison.new, change.after),
    }


def _rules(rehearsed: Rehearsed, found: Outcome) -> list[dict[str, Any]]:
    return [brief(rehearsed, ref) for ref in found.rules]


def brief(rehearsed: Rehearsed, ref: RuleRef) -> dict[str, Any]:
    """A rule without its text, for long answers."""
    row = rule_row(rehearsed.engine, ref)
    del row["text"]
    return row


@define
class _Comparison:
    old: Rehearsed
    new: Rehearsed
    names: dict[int, str] = field(init=False)
    _alike: dict[Subject, list[int]] = field(init=False)
    #: By identity the ends that have it.
    _ends: dict[int, list[End]] = field(init=False)
    _decisions: dict[tuple[bool, int, Direction], tuple[dict[int, Decisions], Decisions]] = field(
        factory=dict
    )
    _known: dict[tuple[int, ...], tuple[Change, ...]] = field(factory=dict)
    _different: dict[tuple[int, int], bool] = field(factory=dict)
    _same_labels: bool = field(init=False)

    def __attrs_post_init__(self) -> None:
        workloads = self.old.inputs.workloads
        self.names = {one.endpoint: one.name for one in workloads}
        self._alike, self._ends = {}, {}
        self._same_labels = self.old.labels == self.new.labels
        for one in workloads:
            if one.subject not in self._alike:
                self._ends.setdefault(one.identity, []).append(End(one.identity, one.endpoint))
            self._alike.setdefault(one.subject, []).append(one.endpoint)
        for number in self.old.labels:
            self._ends.setdefault(number, [End(number)])

    def name(self, end: End) -> dict[str, Any]:
        """Whom an end stands for."""
        labels = self.old.labels.get(end.identity, ())
        subject = self.old.engine.subjects.get(end.endpoint)
        workloads = [self.names[one] for one in self._alike[subject]] if subject else []
        return {
            "identity": end.identity,
            "name": shown(end.identity, labels),
            "labels": list(labels),
            "workloads": workloads,
        }

    def pairs(self) -> set[tuple[End, End]]:
        """Source and destination of all pairs of which one side is decided otherwise."""
        found: set[tuple[End, End]] = set()
        for end in (end for ends in self._ends.values() for end in ends if end.endpoint):
            for direction in Direction:
                for peer in self._touched(end, direction):
                    ends = self._ends[peer]
                    found.update((end, one) if direction is Direction.EGRESS else (one, end) for one in ends)
        return found

    def _touched(self, end: End, direction: Direction) -> Iterable[int]:
        """The peers about whom the subject's policies differ."""
        policies = [one.engine.policy_of(end.endpoint, direction) for one in (self.old, self.new)]
        digests = {policy.digest if policy else b"" for policy in policies}
        if len(digests) == 1 and self._same_labels:
            return []
        (old, old_rest), (new, new_rest) = (self._of(one, end.endpoint, direction) for one in (False, True))
        return [
            number
            for number in self.old.labels
            if self._differ(old.get(number, old_rest), new.get(number, new_rest))
        ]

    def _differ(self, old: Decisions, new: Decisions) -> bool:
        """Peers of one class share their decisions: each pair is compared once."""
        key = (id(old), id(new))
        if key not in self._different:
            self._different[key] = old != new
        return self._different[key]

    def _of(self, after: bool, endpoint: int, direction: Direction) -> tuple[dict[int, Decisions], Decisions]:
        """A subject's decisions by identity, and for everybody else."""
        key = (after, endpoint, direction)
        if key not in self._decisions:
            engine = (self.new if after else self.old).engine
            every = engine.decisions(endpoint, direction)
            by_identity = {number: decisions for decisions, numbers in every.values() for number in numbers}
            self._decisions[key] = by_identity, every[()][0]
        return self._decisions[key]

    def changes(self, source: End, destination: End) -> tuple[Change, ...]:
        sides = [tuple(self._sides(after, source, destination)) for after in (False, True)]
        key = tuple(id(one) for pair in sides for one in pair)
        if key not in self._known:  # the decisions live as long as this does, so that their ids are theirs
            self._known[key] = changes((sides[0][0], sides[0][1]), (sides[1][0], sides[1][1]))
        return self._known[key]

    def _sides(self, after: bool, source: End, destination: End) -> Iterator[Decisions | None]:
        for direction, own, peer in (
            (Direction.EGRESS, source, destination),
            (Direction.INGRESS, destination, source),
        ):
            if not own.endpoint:
                yield None
                continue
            by_identity, rest = self._of(after, own.endpoint, direction)
            yield by_identity.get(peer.identity, rest)
