"""toServices: which peers the services of a rule stand for."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

from axoneme.core.errors import Where
from axoneme.core.state.resources import Resource
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.model import CidrSelector, Policy
from axoneme.plugins.policy.services import expand, known_services, names_services


def resource(
    kind: str, namespace: str, name: str, labels: dict[str, str] | None = None, **raw: Any
) -> Resource:
    return Resource(
        kind=kind, namespace=namespace, name=name, api_version="v1", source="test", where=Where("-"),
        labels=labels or {}, raw=raw, parsed=object(),
    )  # fmt: skip


def slice_of(service: str, *addresses: str, namespace: str = "default") -> Resource:
    labels = {"kubernetes.io/service-name": service}
    endpoints = [{"addresses": [one]} for one in addresses]
    return resource("EndpointSlice", namespace, f"{service}-{len(addresses)}", labels, endpoints=endpoints)


def policy(*services: dict[str, Any]) -> Policy:
    spec = {"endpointSelector": {}, "egress": [{"toServices": list(services)}, {"toCIDR": ["10.0.0.0/8"]}]}
    parsed = parse_policy({"kind": "CiliumNetworkPolicy", "metadata": {"name": "p"}, "spec": spec})
    assert isinstance(parsed, Policy)
    return parsed


def peers(given: Policy, *rows: Resource) -> list[str]:
    rules = expand(given, known_services(rows)).specs[0].egress.rules
    assert rules[1].peers == (CidrSelector(ip_network("10.0.0.0/8")),), "the other rule is left alone"
    assert rules[0].peers is not None, "nobody is not everybody"
    return [str(peer.base) if isinstance(peer, CidrSelector) else peer.text for peer in rules[0].peers]


NAMED = {"k8sService": {"serviceName": "db"}}


def test_a_service_without_a_selector_stands_for_its_endpoints_addresses() -> None:
    rows = [
        resource("Service", "default", "db"),
        slice_of("db", "192.0.2.1", "2001:db8::1"),
        slice_of("db", "192.0.2.2", "192.0.2.1", "not an address"),
        slice_of("other", "192.0.2.9"),
        slice_of("db", "192.0.2.8", namespace="elsewhere"),
    ]
    assert peers(policy(NAMED), *rows) == ["192.0.2.1/32", "2001:db8::1/128", "192.0.2.2/32"]


def test_a_service_with_a_selector_stands_for_workloads_of_its_namespace() -> None:
    rows = [
        resource("Service", "default", "db", spec={"selector": {"app": "db"}}),
        slice_of("db", "10.0.0.1"),
    ]
    (text,) = peers(policy(NAMED), *rows)
    assert "k8s:app=db" in text
    assert "io.kubernetes.pod.namespace=default" in text


def test_what_is_not_known_stands_for_nobody() -> None:
    assert peers(policy(NAMED)) == []
    assert peers(policy(NAMED), slice_of("db", "192.0.2.1")) == [], "endpoints without a service"
    assert (
        peers(
            policy({"k8sService": {"serviceName": "db", "namespace": "x"}}),
            resource("Service", "default", "db"),
        )
        == []
    )


def test_services_by_labels_and_namespace() -> None:
    by_label = {"k8sServiceSelector": {"selector": {"matchLabels": {"tier": "db"}}, "namespace": "data"}}
    inside = {"k8sServiceSelector": {"selector": {"matchLabels": {"tier": "db"}, "namespace": "data"}}}
    rows = [
        resource("Service", "data", "one", {"tier": "db"}),
        resource("Service", "data", "two", {"tier": "web"}),
        resource("Service", "default", "three", {"tier": "db"}),
        *(slice_of(name, f"192.0.2.{index}", namespace=space) for index, (name, space) in enumerate(
            [("one", "data"), ("two", "data"), ("three", "default")])),
    ]  # fmt: skip
    assert peers(policy(by_label), *rows) == ["192.0.2.0/32"]
    assert peers(policy(inside), *rows) == ["192.0.2.0/32"]


def test_policies_without_services_are_what_they_were() -> None:
    plain = parse_policy(
        {
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": "p"},
            "spec": {"endpointSelector": {}, "egress": [{}]},
        }
    )
    assert not names_services(plain)
    assert expand(plain, []) is plain
