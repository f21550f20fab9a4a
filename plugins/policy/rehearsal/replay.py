"""Recorded connections under other policies: what would have been dropped that was allowed, and the other way round."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from axoneme.plugins.policy.model import Direction
from axoneme.plugins.policy.parties import Workload, port_text
from axoneme.plugins.policy.rehearsal.diff import brief
from axoneme.plugins.policy.rehearsal.inputs import Inputs, Rehearsed, rehearse
from axoneme.plugins.policy.rehearsal.outcomes import Outcome, outcome
from axoneme.plugins.policy.rehearsal.recorded import Actor, FlowKey, Recorded, Seen, recorded
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.subject import Subject

#: Flows that are told of; how many there are is told beside them.
MAX_ROWS = 5_000
#: Numbers for those who are not here any more.
_FIRST_IDENTITY, _FIRST_ENDPOINT = 1 << 28, 1 << 20


def replay(
    before: Inputs, after: Inputs, folder: Path, since: int | None = None, until: int | None = None
) -> dict[str, Any]:
    """The answer of `policy.replay`.

    A flow is judged with the labels that its ends had, by the policies of `after`; `now` is what `before` makes of it. What
    happened is what was recorded.
    """
    found = recorded(folder, since, until)
    trial = Trial.of(before, after, found)
    judged = [(key, seen, trial.now(key), trial.then(key)) for key, seen in found.flows.items()]
    groups = {
        "would_drop": [one for one in judged if one[0].allowed and not one[3].allow],
        "would_allow": [one for one in judged if not one[0].allowed and one[3].allow],
        "would_need": [
            one for one in judged if one[0].allowed and one[3].allow and set(one[3].needs) - set(one[2].needs)
        ],
    }
    answer: dict[str, Any] = {}
    for name, rows in groups.items():
        rows.sort(
            key=lambda one: (-one[1].connections, one[0].source.name, one[0].destination.name, one[0].port)
        )
        answer[name] = [_row(trial, *one) for one in rows[:MAX_ROWS]]
        answer[f"{name}_flows"] = len(rows)
        answer[f"{name}_connections"] = sum(one[1].connections for one in rows)
    return answer | summary_of(found)


def summary_of(found: Recorded) -> dict[str, Any]:
    """How much was looked at, and what could not be."""
    times = [(seen.first, seen.last) for seen in found.flows.values()]
    return {
        "flows": len(found.flows),
        "connections": sum(seen.connections for seen in found.flows.values()),
        "records": found.records,
        "first": moment(min((first for first, _ in times), default=0)),
        "last": moment(max((last for _, last in times), default=0)),
        "unknown": found.unknown,
        "overflow": found.overflow,
        "damaged": found.damage.frames + found.damage.segments,
    }


def moment(ns: int) -> str | None:
    if not ns:
        return None
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _row(trial: Trial, key: FlowKey, seen: Seen, now: Outcome, then: Outcome) -> dict[str, Any]:
    return {
        "source": key.source.name,
        "destination": key.destination.name,
        "port": port_text(key.protocol, key.port),
        "recorded": "allow" if key.allowed else "deny",
        "now": now.text,
        "after": then.text,
        "connections": seen.connections,
        "first": moment(seen.first),
        "last": moment(seen.last),
        "rules_recorded": list(seen.rules),
        "rules_after": [brief(trial.new, ref) for ref in then.rules],
    }


@define
class Trial:
    """Two engines that know everybody who was recorded."""

    old: Rehearsed
    new: Rehearsed
    _endpoints: dict[Actor, int]
    _identities: dict[tuple[str, ...], int]
    _named: dict[tuple[int, tuple[str, ...]], int] = field(factory=dict)

    @classmethod
    def of(cls, before: Inputs, after: Inputs, found: Recorded) -> Trial:
        actors = {actor for key in found.flows for actor in (key.source, key.destination)}
        identities = {labels: number for number, labels in before.identities.items()}
        for actor in sorted(actors, key=lambda one: (one.name, one.labels)):
            if actor.address is None:
                identities.setdefault(actor.labels, _FIRST_IDENTITY + len(identities))
        local = sorted(
            (one for one in actors if one.local), key=lambda one: (one.name, one.labels, one.ports)
        )
        endpoints = {actor: _FIRST_ENDPOINT + index for index, actor in enumerate(local)}
        workloads = [
            Workload(
                endpoint=endpoint, name=actor.name, identity=identities[actor.labels],
                subject=Subject(actor.labels, actor.ports),
            )
            for actor, endpoint in endpoints.items()
        ]  # fmt: skip
        known = {number: labels for labels, number in identities.items()} | dict(before.identities)
        both = [
            evolve(one, identities=known, workloads=(*before.workloads, *workloads))
            for one in (before, after)
        ]
        return cls(rehearse(both[0], both[1]), rehearse(both[1], both[0]), endpoints, identities)

    def now(self, key: FlowKey) -> Outcome:
        return outcome(*self._sides(self.old, key))

    def then(self, key: FlowKey) -> Outcome:
        return outcome(*self._sides(self.new, key))

    def _sides(self, rehearsed: Rehearsed, key: FlowKey) -> Iterator[Any]:
        ways = (
            (Direction.EGRESS, key.source, key.destination),
            (Direction.INGRESS, key.destination, key.source),
        )
        for direction, own, peer in ways:
            endpoint = self._endpoints.get(own)
            if endpoint is None:
                yield None
            else:
                identity = self._identity(peer)
                yield rehearsed.engine.verdict(endpoint, direction, identity, key.protocol, key.port)

    def _identity(self, actor: Actor) -> int:
        """An address outside belongs to the longest prefix that now matters, and to the DNS names that it had then."""
        if actor.address is None:
            return self._identities[actor.labels]
        number = self.new.behind(actor.address)
        names = tuple(text for text in actor.labels if text.startswith("fqdn:"))
        if not names or set(names) <= set(self.new.labels.get(number, ())):
            return number
        return self._with_names(number, names)

    def _with_names(self, number: int, names: tuple[str, ...]) -> int:
        if (number, names) not in self._named:
            made = self._named[number, names] = _FIRST_IDENTITY * 2 + len(self._named)
            for one in (self.old, self.new):
                labels = tuple(sorted({*one.labels.get(number, ()), *names}))
                one.engine.upsert_identity(Identity(made, labels))
                one.engine.commit()
        return self._named[number, names]
