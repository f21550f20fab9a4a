"""Mutated policies raise nothing but our own error, and take no time."""

from __future__ import annotations

import copy
import time
from typing import Any

from generators import policy_lists
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from axoneme.core.errors import ResourceError
from axoneme.plugins.policy.kinds import PARSERS

NETWORK_POLICY: dict[str, Any] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"name": "n", "namespace": "blue"},
    "spec": {
        "podSelector": {"matchLabels": {"app": "a"}},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {
                "from": [
                    {"podSelector": {}, "namespaceSelector": {}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": []}},
                ],
                "ports": [{"port": 80, "endPort": 90, "protocol": "TCP"}, {"port": "web"}],
            }
        ],
        "egress": [{"to": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists"}]}}]}],
    },
}
GROUP = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumCIDRGroup",
    "metadata": {"name": "g", "labels": {"a": "b"}},
    "spec": {"externalCIDRs": ["10.0.0.0/8", "fd00::/8"]},
}
EVERYTHING: dict[str, Any] = {
    "apiVersion": "cilium.io/v2",
    "kind": "CiliumNetworkPolicy",
    "metadata": {"name": "e", "namespace": "blue"},
    "specs": [
        {
            "endpointSelector": {"matchLabels": {"k8s:app": "a"}},
            "egress": [
                {
                    "toFQDNs": [{"matchName": "a.io"}, {"matchPattern": "*.b.io"}],
                    "toPorts": [{"ports": [{"port": "443"}]}],
                },
                {
                    "toServices": [
                        {"k8sService": {"serviceName": "s", "namespace": "n"}},
                        {"k8sServiceSelector": {"selector": {"matchLabels": {"a": "b"}, "namespace": "n"}}},
                    ]
                },
                {
                    "toEndpoints": [{}],
                    "auth": {"type": "null"},
                    "toPorts": [
                        {
                            "ports": [{"port": "53", "protocol": "ANY"}],
                            "rules": {"dns": [{"matchPattern": "*"}]},
                        },
                        {
                            "ports": [{"port": "80", "protocol": "TCP"}],
                            "listener": {"envoyConfig": {"name": "c"}, "name": "l"},
                        },
                        {"ports": [{"port": "81", "protocol": "TCP"}], "serverNames": ["a.io"]},
                        {
                            "ports": [{"port": "82", "protocol": "TCP"}],
                            "rules": {
                                "http": [{"path": "/a.*", "headerMatches": [{"name": "x", "value": "y"}]}]
                            },
                        },
                    ],
                },
                {"icmps": [{"fields": [{"family": "IPv6", "type": "EchoRequest"}]}], "toEntities": ["world"]},
            ],
            "enableDefaultDeny": {"egress": False},
        }
    ],
}
junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["10.0.0.0/999999999999", "0x50", "-1", "[a", "(" * 500, "\ud800", "1" * 5000, "::/0%eth0", "a:b:c", "٣"]),
    st.just([]),
    st.just({}),
    st.lists(st.just({}), max_size=3),
    st.dictionaries(st.text(max_size=5) | st.integers(), st.none(), max_size=2),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path, *(one for key, inner in value.items() for one in places(inner, (*path, key)))]
    if isinstance(value, list):
        return [path, *(one for at, inner in enumerate(value) for one in places(inner, (*path, at)))]
    return [path]


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(policy_lists, st.data())
def test_mutations_are_refused_in_our_own_words(objects: list[dict[str, Any]], data: st.DataObject) -> None:
    value = copy.deepcopy(
        data.draw(st.sampled_from([*objects, NETWORK_POLICY, GROUP, EVERYTHING, EVERYTHING]))
    )
    kind = value["kind"]
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(places(value)[1:]))
        holder = value
        for step in place[:-1]:
            holder = holder[step]
        if isinstance(holder, dict) and data.draw(st.booleans()):
            holder[data.draw(st.text(max_size=8))] = data.draw(junk)
        else:
            holder[place[-1]] = data.draw(junk)
        if not isinstance(value, dict) or len(places(value)) < 2:
            break
    started = time.perf_counter()
    try:
        PARSERS[kind](value)
    except ResourceError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
    assert time.perf_counter() - started < 1
