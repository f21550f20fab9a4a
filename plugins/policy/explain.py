"""Why a flow is allowed or denied: for both sides the rule that decided, and what became of every other one.

Pure: an engine and two parties in, JSON-like values out. The verdict is the engine's own; here is only told how it came about.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from typing import Any

from attrs import frozen

from axoneme.plugins.policy.blocks import PORT_BITS, blocks, covering, specificity
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.matching import selected
from axoneme.plugins.policy.model import (
    CidrSelector,
    Direction,
    Peer,
    PeerRule,
    Policy,
    Ports,
    Requirement,
    Selector,
    Spec,
)
from axoneme.plugins.policy.parties import Parties, Party, parse_port, port_text
from axoneme.plugins.policy.rules import REASONS, RuleRef
from axoneme.plugins.policy.selectors import Labels
from axoneme.plugins.policy.statements import Verdict
from axoneme.plugins.policy.subject import NamedPorts
from axoneme.plugins.policy.suggest import NoRuleError, Opening, suggest, yaml_text

#: Rules that are listed; how many there were is told beside them.
MAX_CONSIDERED = 200

#: What can become of a rule, the most interesting first.
DECIDES, BEATEN, AGREES, AUDITED, OTHER_PORTS, OTHER_PEER, EMPTY = (
    "decides", "beaten", "agrees", "audited", "other-ports", "other-peer", "empty",
)  # fmt: skip
_ORDER = (DECIDES, BEATEN, AGREES, AUDITED, OTHER_PORTS, OTHER_PEER, EMPTY)


@frozen
class _Considered:
    """A rule of a policy that selects the subject."""

    policy: Policy
    rule: PeerRule
    outcome: str
    why: str


@frozen
class Flow:
    source: Party
    destination: Party
    protocol: int
    port: int


def explain(engine: Engine, parties: Parties, source: str, destination: str, port: str) -> dict[str, Any]:
    """The answer of `policy.explain`. Raises `RequestError` and `NotFoundError` for ends and ports that are none.

    :param port: `80/TCP`, `53/udp`, `8/icmp`, `icmp`.
    """
    ends = [parties.find(text) for text in (source, destination)]
    ipv6 = any(one.address is not None and one.address.version == 6 for one in ends if not one.endpoint)
    flow = Flow(ends[0], ends[1], *parse_port(port, ipv6=ipv6))
    sides = [side for direction in Direction if (side := explain_side(engine, flow, direction)) is not None]
    return {
        "source": flow.source.plain(),
        "destination": flow.destination.plain(),
        "port": port_text(flow.protocol, flow.port),
        "verdict": "denied" if any(side["verdict"] == "denied" for side in sides) else "allowed",
        "sides": sides,
    }


def explain_side(engine: Engine, flow: Flow, direction: Direction) -> dict[str, Any] | None:
    """One side; None where the end has no policy, being no workload of this node."""
    ends = (flow.source, flow.destination)
    subject, peer = ends if direction is Direction.EGRESS else reversed(ends)
    found = engine.verdict(subject.endpoint, direction, peer.identity, flow.protocol, flow.port)
    if found is None:
        return None
    trial = _Trial(engine, subject, peer, direction, flow, found)
    considered = sorted(trial.considered(), key=lambda one: _ORDER.index(one.outcome))
    side = {
        "direction": direction.value,
        "subject": subject.plain(),
        "peer": peer.plain(),
        "verdict": "allowed" if found.allow else "denied",
        "auth": found.auth.text if found.auth else None,
        "proxy": found.l7.redirect if found.l7 else None,
        "rule": rule_row(engine, found.rule),
        "considered": [
            {"rule": rule_row(engine, _ref(one, direction)), "outcome": one.outcome, "why": one.why}
            for one in considered[:MAX_CONSIDERED]
        ],
        "considered_total": len(considered),
        "default_deny_by": [],
        "audit": None,
        "suggestion_yaml": None,
        "suggestion_none": None,
        "error": str(error) if (error := engine.errors().get(subject.endpoint)) else None,
    }
    if found.default and not found.allow:
        side["default_deny_by"] = trial.default_deny_by(found)
    if found.would is not None:
        deny_by = trial.default_deny_by(found.would) if found.would.default else []
        side["audit"] = {
            "verdict": "denied",
            "rule": rule_row(engine, found.would.rule),
            "default_deny_by": deny_by,
        }
    if not found.allow or found.would is not None:
        side |= trial.suggestion()
    return side


def _policy_row(policy: Policy) -> dict[str, Any]:
    where = policy.where
    return {
        "kind": policy.kind,
        "policy": f"{policy.namespace}/{policy.name}".strip("/"),
        "file": where.file if where else "",
        "line": (where.line or 0) if where else 0,
    }


def _ref(one: _Considered, direction: Direction) -> RuleRef:
    return RuleRef(one.policy.key, direction.value, one.rule.path)


def rule_row(engine: Engine, ref: RuleRef) -> dict[str, Any]:
    """A rule as JSON: its id (as in events), policy, place and text."""
    number = engine.rules.number(ref)
    row = engine.rules.row(number)
    kind, namespace, name = ref.policy.split("/", 2) if ref.policy else ("", "", "")
    return {
        "id": number,
        "kind": kind,
        "policy": f"{namespace}/{name}".strip("/"),
        "path": ref.path,
        "file": row.file if row else "",
        "line": row.line if row else 0,
        "text": row.text if row else REASONS.get(ref.path, ref.path),
    }


@frozen
class _Trial:
    """One side of one flow, on which rules are tried one by one."""

    engine: Engine
    subject: Party
    peer: Party
    direction: Direction
    flow: Flow
    verdict: Verdict

    def considered(self) -> Iterator[_Considered]:
        for policy, rule in self.rules:
            outcome, why = self._judge(policy, rule)
            yield _Considered(policy, rule, outcome, why)

    @cached_property
    def specs(self) -> list[tuple[Policy, Spec]]:
        """The specs that select the subject, in the order of their names."""
        subject = self.engine.subjects[self.subject.endpoint]
        labels = Labels(subject.labels)
        return [
            (policy, spec)
            for _, policy in sorted(self.engine.policies.items())
            for spec in policy.specs
            if selected(spec, subject, labels, self.engine.settings)
        ]

    @cached_property
    def rules(self) -> list[tuple[Policy, PeerRule]]:
        return [
            (policy, rule) for policy, spec in self.specs for rule in spec.direction(self.direction).rules
        ]

    @cached_property
    def labels(self) -> Labels:
        """Of the peer."""
        return self.engine.universe.labels(self.peer.identity) or Labels(self.peer.labels)

    @cached_property
    def requires(self) -> dict[tuple[bool, bool], tuple[Requirement, ...]]:
        """What all deny rules, or all allow rules, together require of endpoint peers; with and without audited ones."""
        found: dict[tuple[bool, bool], dict[Requirement, None]] = {}
        for policy, rule in self.rules:
            audited = self.engine.is_audited(policy)
            for counts in (True,) if audited else (True, False):
                found.setdefault((rule.deny, counts), {}).update(dict.fromkeys(rule.requires))
        return {key: tuple(requirements) for key, requirements in found.items()}

    def default_deny_by(self, verdict: Verdict) -> list[dict[str, Any]]:
        """The policies that turn default deny on, the one that is named in events first; audited ones where these count."""
        non_default = self.engine.settings.non_default_deny
        found = {
            policy.key: policy
            for policy, spec in self.specs
            if spec.direction(self.direction).rules
            and (spec.direction(self.direction).default_deny or not non_default)
            and (verdict is not self.verdict or not self.engine.is_audited(policy))
        }
        return [
            _policy_row(policy)
            for key, policy in sorted(found.items(), key=lambda one: (one[0] != verdict.rule.policy, one[0]))
        ]

    def suggestion(self) -> dict[str, Any]:
        """What would allow the flow, or why nothing that could be added does."""
        decisive = self.verdict.would or self.verdict
        if not decisive.default:
            return {"suggestion_none": "a deny rule says so: change or remove it, no allow rule is stronger"}
        try:
            opening = Opening(self.flow.protocol, self.flow.port)
            audit = self.verdict.would is not None
            value = suggest(self.engine, self.subject, self.peer, self.direction, opening, audit=audit)
        except NoRuleError as error:
            return {"suggestion_none": self._unmet() or str(error)}
        return {"suggestion_yaml": yaml_text(value)}

    def _unmet(self) -> str:
        """What rules require of all peers of the subject, and the peer does not have."""
        for policy, rule in self.rules:
            for one in () if rule.deny else rule.requires:
                if not self.labels.holds(one):
                    name = f"{policy.key.partition('/')[2].strip('/')} {rule.path}"
                    text = one.text.removeprefix("any:")
                    return f"{name} requires {text} of every peer, which no added rule by labels changes"
        return ""

    def _judge(self, policy: Policy, rule: PeerRule) -> tuple[str, str]:
        if rule.peers is None and rule.ports is None:
            return EMPTY, "an empty rule allows and denies nothing, it only turns default deny on"
        audited = self.engine.is_audited(policy)
        if (why := self._other_peer(rule, audited)) is not None:
            return OTHER_PEER, why
        if (why := self._other_ports(rule)) is not None:
            return OTHER_PORTS, why
        if audited:
            return AUDITED, f"it {'denies' if rule.deny else 'allows'} it, but its policy is only audited"
        if RuleRef(policy.key, self.direction.value, rule.path) == self.verdict.rule:
            return DECIDES, self._how(rule)
        return self._lost(rule)

    # Peers

    def _other_peer(self, rule: PeerRule, audited: bool) -> str | None:
        """Why the rule does not select the peer; None when it does."""
        if rule.peers is None:
            return None
        if not rule.peers:
            return "it selects nobody"
        labels, requires = self.labels, self.requires[rule.deny, audited]
        reasons = []
        for index, peer in enumerate(rule.peers):
            also = requires if index < rule.endpoint_peers else ()
            whole = peer.also(also) if isinstance(peer, Selector) else peer
            if labels.matches(whole):
                return None
            reasons.append(_mismatch(labels, whole))
        return (
            reasons[0] if len(reasons) == 1 else f"none of its {len(reasons)} peers: {'; '.join(reasons[:3])}"
        )

    # Ports

    def _other_ports(self, rule: PeerRule) -> str | None:
        """Why the rule does not speak of the port; None when it does."""
        if rule.ports is None or any(self._covers(one) for one in _ports(rule)):
            return None
        written = [str(one) for one in _ports(rule)]
        if not written:
            return "it opens no port"
        more = f" and {len(written) - 8} more" if len(written) > 8 else ""
        return f"it speaks of {', '.join(written[:8])}{more}, not of {port_text(self.flow.protocol, self.flow.port)}"

    def _covers(self, ports: Ports) -> bool:
        return self._specificity(ports) is not None

    def _specificity(self, ports: Ports) -> int | None:
        """How many bits of the port the ports fix; None when they do not cover it."""
        path = set(covering((self.flow.protocol, PORT_BITS, self.flow.port)))
        if ports.name:
            numbers = self.named.get((ports.name, ports.protocol), frozenset())
            every = [Ports(ports.protocol, number, number) for number in numbers]
        else:
            every = [ports]
        return max((specificity(b) for one in every for b in blocks(one) if b in path), default=None)

    @cached_property
    def named(self) -> NamedPorts:
        """What names of ports mean: the subject's own for ingress, for egress those of all, unless they are ambiguous."""
        if self.direction is Direction.INGRESS:
            return self.engine.subjects[self.subject.endpoint].ports
        found: dict[Any, frozenset[int]] = {}
        for subject in self.engine.subjects.values():
            for key, numbers in subject.ports.items():
                found[key] = found.get(key, frozenset()) | numbers
        return {key: numbers for key, numbers in found.items() if len(numbers) == 1}

    # Winning and losing

    def _how(self, rule: PeerRule) -> str:
        if rule.deny:
            return "a deny rule beats every allow"
        return "it selects the peer and covers the port"

    def _lost(self, rule: PeerRule) -> tuple[str, str]:
        winner = self.verdict.rule
        name = f"{winner.policy.partition('/')[2].strip('/')} {winner.path}".strip()
        if rule.deny:
            return AGREES, f"it denies as well; {name} is the one that is named"
        if not self.verdict.allow:
            return BEATEN, f"the deny rule {name} beats every allow"
        return AGREES, f"it allows as well; {self._why_not(rule, name)}"

    def _why_not(self, rule: PeerRule, name: str) -> str:
        """Why another allow is named: the stronger redirect, the more specific ports, or the order of names."""
        other = self._rule(self.verdict.rule)
        if self.verdict.l7 is not None and not any(one.l7 for one in rule.ports or ()):
            return f"{name} sends the traffic through a proxy, which counts more"
        if other is not None and self._best(rule) < self._best(other):
            return f"it is less specific than {name}"
        return f"{name} is the one that is named"

    def _best(self, rule: PeerRule) -> int:
        found = [0] if rule.ports is None else [self._specificity(one) or 0 for one in _ports(rule)]
        return max(found, default=0)

    def _rule(self, ref: RuleRef) -> PeerRule | None:
        policy = self.engine.policies.get(ref.policy)
        rules = (
            [rule for spec in policy.specs for rule in spec.direction(self.direction).rules] if policy else []
        )
        return next((rule for rule in rules if rule.path == ref.path), None)


def _ports(rule: PeerRule) -> Iterable[Ports]:
    return [ports for port_rule in rule.ports or () for ports in port_rule.ports]


def _mismatch(labels: Labels, peer: Peer) -> str:
    """Why a peer selector does not select labels."""
    if isinstance(peer, Selector):
        missing = [one.text.removeprefix("any:") for one in peer.requirements if not labels.holds(one)]
        return f"the peer does not meet {' and '.join(missing[:3])}"
    if not labels.is_world:
        return f"{_base(peer)} speaks of addresses of the world, which the peer is none of"
    within = labels.matches(CidrSelector(peer.base))
    return f"{_base(peer)} excepts it" if within else f"it lies outside of {_base(peer)}"


def _base(peer: CidrSelector) -> str:
    return peer.base.text if isinstance(peer.base, Selector) else str(peer.base)
