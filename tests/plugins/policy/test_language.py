"""Parsing: what is understood, and what is refused with which words and where."""

from __future__ import annotations

from typing import Any

import pytest

from axoneme.core.errors import ResourceError, Where
from axoneme.plugins.policy.kinds import PARSERS
from axoneme.plugins.policy.language import parse_policy
from axoneme.plugins.policy.model import Auth, Policy, Protocol
from axoneme.plugins.policy.peers import Scope


def policy(spec: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "namespace": "production"},
        "spec": {"endpointSelector": {}, **spec},
        **more,
    }


def rule(**fields: Any) -> dict[str, Any]:
    return policy({"ingress": [fields]})


def ports(*entries: Any, **more: Any) -> dict[str, Any]:
    return rule(toPorts=[{"ports": list(entries), **more}])


HTTP = {"rules": {"http": [{"method": "GET"}]}}
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (policy({}), "at least one rule", "spec"),
    (policy({"ingress": []}), "at least one rule", "spec"),
    (policy({"ingres": [{}]}), "unknown field 'ingres'", "spec.ingres"),
    (policy({"nodeSelector": {}, "ingress": [{}]}), "can select nodes", "spec.nodeSelector"),
    (rule(fromEndpoint=[{}]), "unknown field 'fromEndpoint'", "spec.ingress[0].fromEndpoint"),
    (rule(fromEndpoints={}), "must be a list", "spec.ingress[0].fromEndpoints"),
    (rule(fromEndpoints=[{"matchLabels": {"a": 1}}]), "must be a string", "spec.ingress[0].fromEndpoints[0].matchLabels.a"),
    (rule(fromEndpoints=[{"matchLabels": {"a": "b c"}}]), "invalid label value", "spec.ingress[0].fromEndpoints[0].matchLabels.a"),
    (rule(fromEndpoints=[{"matchExpressions": [{"key": "a", "operator": "in", "values": ["b"]}]}]), "must be one of", "spec.ingress[0].fromEndpoints[0].matchExpressions[0].operator"),
    (rule(fromEndpoints=[{"matchExpressions": [{"key": "a", "operator": "In"}]}]), "needs values", "spec.ingress[0].fromEndpoints[0].matchExpressions[0]"),
    (rule(fromEndpoints=[{}], fromCIDR=["10.0.0.0/8"]), "cannot combine", "spec.ingress[0]"),
    (rule(fromCIDR=["10.0.0.0/33"]), "is not a prefix" , "spec.ingress[0].fromCIDR[0]"),
    (rule(fromCIDRSet=[{"cidr": "10.0.0.1"}]), "not a prefix", "spec.ingress[0].fromCIDRSet[0].cidr"),
    (rule(fromCIDRSet=[{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/16"]}]), "does not lie inside", "spec.ingress[0].fromCIDRSet[0].except[0]"),
    (rule(fromEntities=["mars"]), "must be one of", "spec.ingress[0].fromEntities[0]"),
    (rule(fromNodes=[{}]), "not enabled", "spec.ingress[0].fromNodes"),
    (rule(authentication={"mode": "requierd"}), "must be one of", "spec.ingress[0].authentication.mode"),
    (rule(icmps=[{"fields": [{"type": 8}]}], toPorts=[{"ports": []}]), "both toPorts and icmps", "spec.ingress[0]"),
    (rule(icmps=[{"fields": [{"type": "Nope"}]}]), "must be one of", "spec.ingress[0].icmps[0].fields[0].type"),
    (ports({"port": 80}), "must be a string", "spec.ingress[0].toPorts[0].ports[0].port"),
    (ports({"port": "65536"}), "0 to 65535", "spec.ingress[0].toPorts[0].ports[0].port"),
    (ports({"port": ""}), "port must be given", "spec.ingress[0].toPorts[0].ports[0]"),
    (ports({"port": "80", "protocol": "ICMP"}), "must be one of TCP", "spec.ingress[0].toPorts[0].ports[0].protocol"),
    (ports(*[{"port": "80"}] * 41), "at most 40", "spec.ingress[0].toPorts[0].ports"),
    (ports({"port": "80"}, **HTTP), "need protocol TCP", "spec.ingress[0].toPorts[0].ports[0]"),
    (ports({"port": "0", "protocol": "TCP"}, **HTTP), "other than 0", "spec.ingress[0].toPorts[0].ports[0]"),
    (policy({"ingressDeny": [{"toPorts": [{"ports": [{"port": "80"}], **HTTP}]}]}), "unknown field 'rules'", "spec.ingressDeny[0].toPorts[0].rules"),
    (policy({"ingressDeny": [{"authentication": {"mode": "required"}}]}), "unknown field 'authentication'", "spec.ingressDeny[0].authentication"),
    (policy({"egress": [{"toServices": [{"k8sService": {}}]}]}), "needs 'serviceName'", "spec.egress[0].toServices[0].k8sService"),
    (policy({"egress": [{"toServices": [{}]}]}), "exactly one", "spec.egress[0].toServices[0]"),
    (policy({"egress": [{"toServices": [{"k8sServiceSelector": {}}]}]}), "needs 'selector'", "spec.egress[0].toServices[0].k8sServiceSelector"),
    (policy({"egress": [{"toServices": [{"k8sService": {"serviceName": "a"}}], "toCIDR": ["10.0.0.0/8"]}]}), "cannot combine", "spec.egress[0]"),
    (policy({"ingress": [{"fromServices": []}]}), "unknown field 'fromServices'", "spec.ingress[0].fromServices"),
    (policy({"ingress": [{"fromNodes": [{}]}]}), "not enabled", "spec.ingress[0].fromNodes"),
    (policy({"egress": [{"toFQDNs": [{"matchName": "a.io/"}]}]}), "not a DNS name", "spec.egress[0].toFQDNs[0].matchName"),
    (policy({"egress": [{"toFQDNs": [{}]}]}), "exactly one", "spec.egress[0].toFQDNs[0]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "words", "path"), REFUSED, ids=lambda one: one if isinstance(one, str) else None
)
def test_what_is_wrong_is_refused_at_its_place(value: dict[str, Any], words: str, path: str) -> None:
    with pytest.raises(ResourceError, match=words) as caught:
        parse_policy(value, lambda steps: Where("file.yaml", field=path_text(steps)))
    assert caught.value.where == Where("file.yaml", field=path)


def path_text(steps: tuple[str | int, ...]) -> str:
    from axoneme.core.state.document import dotted

    return dotted(steps)


def test_an_unknown_field_names_the_nearest_one() -> None:
    with pytest.raises(ResourceError) as caught:
        parse_policy(rule(fromEndpoint=[{}]))
    assert "fromEndpoints" in str(caught.value)


def only(parsed: Policy) -> Any:
    return parsed.specs[0].ingress.rules[0]


def test_no_protocol_is_every_transport() -> None:
    found = only(parse_policy(ports({"port": "80"}))).ports[0].ports
    assert {one.protocol for one in found} == {Protocol.TCP, Protocol.UDP, Protocol.SCTP}


def test_an_end_below_the_port_is_ignored() -> None:
    (found,) = only(parse_policy(ports({"port": "80", "endPort": 10, "protocol": "TCP"}))).ports[0].ports
    assert (found.first, found.last) == (80, 80)


def test_a_peer_selector_is_confined_to_the_policys_namespace() -> None:
    (peer,) = only(parse_policy(rule(fromEndpoints=[{"matchLabels": {"app": "a"}}]))).peers
    assert peer.text == "{any:app=a, k8s:io.kubernetes.pod.namespace=production}"


def test_present_and_empty_is_nobody_absent_is_anybody() -> None:
    assert only(parse_policy(rule(fromEndpoints=[]))).peers == ()
    assert only(parse_policy(ports({"port": "80"}))).peers is None


def test_the_reference_decoder_takes_an_unknown_mode_for_none() -> None:
    value = rule(authentication={"mode": "maybe"})
    assert only(parse_policy(value, scope=Scope(schema=False))).auth is None


def test_a_required_mode_is_understood() -> None:
    value = rule(fromEndpoints=[{}], authentication={"mode": "required"})
    assert only(parse_policy(value)).auth is Auth.REQUIRED


@pytest.mark.parametrize("kind", sorted(PARSERS))
@pytest.mark.parametrize(
    "value", [None, [], "x", {}, {"spec": None}, {"metadata": []}, {"metadata": {"name": 1}}]
)
def test_nonsense_is_refused_in_our_own_words(kind: str, value: Any) -> None:
    with pytest.raises(ResourceError):
        PARSERS[kind](value)
