"""toServices: from the services that a rule names to the peers that serve them.

As in Cilium's `pkg/policy/k8s`: a service with a selector stands for the workloads that it selects in its namespace, one
without for the addresses of its endpoints, taken as prefixes (so they are the world's, never workloads'). Services and their
endpoints are read as they were written, from the table of resources.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from attrs import evolve, field, frozen

from axoneme.core.state.resources import Resource
from axoneme.plugins.policy.model import (
    NAMESPACE_KEY,
    CidrSelector,
    DirectionRules,
    Operator,
    Peer,
    PeerRule,
    Policy,
    Requirement,
    Selector,
    ServiceRef,
)
from axoneme.plugins.policy.selectors import Labels

#: The kinds of resources that tell of services.
KINDS = ("Service", "EndpointSlice")
#: The label by which an EndpointSlice belongs to a service.
SERVICE_NAME = "kubernetes.io/service-name"


@frozen
class KnownService:
    """A service.

    :param selector: of the workloads that serve it; empty for one whose endpoints are written by somebody.
    :param addresses: those of its endpoints.
    """

    namespace: str
    name: str
    labels: Mapping[str, str] = field(factory=dict)
    selector: Mapping[str, str] = field(factory=dict)
    addresses: tuple[str, ...] = ()

    @property
    def peers(self) -> tuple[Peer, ...]:
        if self.selector:
            pairs = sorted({**self.selector, NAMESPACE_KEY: self.namespace}.items())
            return (
                Selector(tuple(Requirement("k8s", key, Operator.EQUALS, (value,)) for key, value in pairs)),
            )
        return tuple(CidrSelector(ip_network(ip_address(one))) for one in self.addresses)


def names_services(policy: Policy) -> bool:
    return any(rule.services for spec in policy.specs for rule in spec.egress.rules)


def expand(policy: Policy, services: Iterable[KnownService]) -> Policy:
    """The policy with the peers that its services stand for now."""
    if not names_services(policy):
        return policy
    services = sorted(services, key=lambda one: (one.namespace, one.name))
    specs = (
        evolve(spec, egress=evolve(spec.egress, rules=_rules(spec.egress, services))) for spec in policy.specs
    )
    return evolve(policy, specs=tuple(specs))


def _rules(direction: DirectionRules, services: list[KnownService]) -> tuple[PeerRule, ...]:
    return tuple(
        evolve(rule, peers=tuple(dict.fromkeys(_peers(rule, services)))) if rule.services else rule
        for rule in direction.rules
    )


def _peers(rule: PeerRule, services: list[KnownService]) -> Iterable[Peer]:
    for service in services:
        if any(_is(ref, service) for ref in rule.services):
            yield from service.peers


def _is(ref: ServiceRef, service: KnownService) -> bool:
    if ref.namespace and ref.namespace != service.namespace:
        return False
    if ref.selector is None:
        return ref.name == service.name
    return Labels(f"k8s:{key}={value}" for key, value in service.labels.items()).matches(ref.selector)


def known_services(rows: Iterable[Resource]) -> list[KnownService]:
    """From the resources of the kinds Service and EndpointSlice, which somebody has validated."""
    rows = [row for row in rows if row.in_effect]
    addresses: dict[tuple[str, str], dict[str, None]] = {}
    for row in rows:
        if row.kind == "EndpointSlice":
            owner = (row.namespace, row.labels.get(SERVICE_NAME, ""))
            addresses.setdefault(owner, {}).update(dict.fromkeys(_addresses(row.raw)))
    return [
        KnownService(
            row.namespace,
            row.name,
            row.labels,
            (row.raw.get("spec") or {}).get("selector") or {},
            tuple(addresses.get((row.namespace, row.name), ())),
        )
        for row in rows
        if row.kind == "Service"
    ]


def _addresses(value: Mapping[str, Any]) -> Iterator[str]:
    """An EndpointSlice of the type FQDN has names, which stand for nobody here."""
    for endpoint in value.get("endpoints") or ():
        for text in endpoint.get("addresses") or ():
            try:
                yield str(ip_address(text))
            except ValueError:
                continue
