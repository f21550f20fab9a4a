"""Parsing of Kubernetes' NetworkPolicy into the same values as the Cilium kinds.

Follows Cilium's `pkg/k8s/network_policy.go`, deviations from Kubernetes included: rules of a direction that policyTypes
does not name still apply.
"""

from __future__ import annotations

import json
from typing import Any

from axoneme.plugins.policy import peers
from axoneme.plugins.policy.fields import Field, Locate, nowhere
from axoneme.plugins.policy.language import envelope, is_audited
from axoneme.plugins.policy.model import (
    NAMESPACE_KEY,
    NAMESPACE_LABELS_PREFIX,
    TRANSPORTS,
    WILDCARD,
    Direction,
    DirectionRules,
    Operator,
    Peer,
    PeerRule,
    Policy,
    PortRule,
    Ports,
    Requirement,
    Selector,
    Spec,
)
from axoneme.plugins.policy.peers import Scope
from axoneme.plugins.policy.ports import service_name

NETWORKING_API = "networking.k8s.io/v1"
_PROTOCOLS = {protocol.name: protocol for protocol in TRANSPORTS}


def parse_network_policy(value: Any, locate: Locate = nowhere, scope: Scope | None = None) -> Policy:
    """A NetworkPolicy. Raises `ResourceError` with the field's place."""
    root, namespace, name = envelope(value, locate)
    namespace = namespace or "default"
    parts = root.mapping()
    if "spec" not in parts:
        root.fail("needs 'spec'")
    fields = parts["spec"].mapping(("podSelector", "policyTypes", "ingress", "egress"))
    types = _policy_types(fields)
    chosen = peers.selector(fields["podSelector"], "k8s") if "podSelector" in fields else Selector()
    spec = Spec(
        "spec",
        peers.with_namespace(chosen, namespace),
        _direction(fields, Direction.EGRESS, namespace, "Egress" in types),
        _direction(fields, Direction.INGRESS, namespace, "Ingress" in types or "Egress" not in types),
    )
    return Policy("NetworkPolicy", namespace, name, (spec,), locate(()), audit=is_audited(root))


def _policy_types(fields: dict[str, Field]) -> set[str]:
    if "policyTypes" not in fields:
        return set()
    return {one.one_of(("Ingress", "Egress")) for one in fields["policyTypes"].sequence()}


def _direction(
    fields: dict[str, Field], direction: Direction, namespace: str, isolates: bool
) -> DirectionRules:
    elements = fields[direction.value].sequence() if direction.value in fields else []
    rules = tuple(rule for item in elements for rule in _rules(item, direction, namespace))
    if not rules and isolates:
        nothing = PeerRule(f"spec.{direction.value}", deny=False, peers=None, ports=None)
        return DirectionRules((nothing,))
    return DirectionRules(rules)


def _rules(item: Field, direction: Direction, namespace: str) -> list[PeerRule]:
    """One rule per peer: each has the same ports."""
    side = "from" if direction is Direction.INGRESS else "to"
    parts = item.mapping((side, "ports"))
    elements = parts[side].sequence() if side in parts else []
    ports = tuple(_port(one) for one in parts["ports"].sequence()) if "ports" in parts else ()
    spoken = [(one, _peer(one, namespace)) for one in elements]
    everybody: list[tuple[Field, tuple[Peer, ...] | None]] = [(item, (WILDCARD,))]
    return [
        PeerRule(
            path=field.path,
            deny=False,
            peers=found,
            ports=ports or None,
            endpoint_peers=sum(isinstance(peer, Selector) for peer in found or ()),
            where=field.where(),
            text=json.dumps(item.value, sort_keys=True, default=str),
        )
        for field, found in (spoken or everybody)
    ]


def _peer(item: Field, namespace: str) -> tuple[Peer, ...] | None:
    """None for a peer with no field: nobody, or with ports everybody."""
    parts = item.mapping(("podSelector", "namespaceSelector", "ipBlock"))
    if "ipBlock" in parts:
        if len(parts) > 1:
            item.fail("ipBlock excludes podSelector and namespaceSelector")
        return (peers.ip_block(parts["ipBlock"]),)
    if not parts:
        return None
    pods = peers.selector(parts["podSelector"], "k8s") if "podSelector" in parts else Selector()
    if "namespaceSelector" not in parts:
        return (peers.with_namespace(pods, namespace),)
    spaces = peers.selector(parts["namespaceSelector"], "k8s", NAMESPACE_LABELS_PREFIX)
    if spaces.is_wildcard:
        spaces = Selector((Requirement("k8s", NAMESPACE_KEY, Operator.EXISTS),))
    return (pods.also(spaces.requirements),)


def _port(item: Field) -> PortRule:
    parts = item.mapping(("port", "endPort", "protocol"))
    protocol = _PROTOCOLS[parts["protocol"].one_of(_PROTOCOLS)] if "protocol" in parts else _PROTOCOLS["TCP"]
    if "port" not in parts:
        if "endPort" in parts:
            item.fail("endPort needs port")
        return PortRule((Ports(protocol),))
    if isinstance(parts["port"].value, str):
        return PortRule((Ports(protocol, name=service_name(parts["port"])),))
    first = parts["port"].integer(0, 65535)
    end = parts["endPort"].integer(0, 65535) if "endPort" in parts else 0
    return PortRule((Ports(protocol, first, end if end > first else first),))
