"""What is learnt allows everything that was seen, nothing in it is too much, and it is a policy like any other."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from scenery import Met, policies, store, workloads

from axoneme.core.api.wire import NotFoundError, RequestError
from axoneme.plugins.policy.rehearsal.inputs import Inputs
from axoneme.plugins.policy.rehearsal.learn import Options, learn
from axoneme.plugins.policy.rehearsal.replay import replay
from axoneme.plugins.policy.suggest import yaml_text

WORKLOADS = """\
- {name: db, namespace: prod, labels: {app: db}}
- {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
- {name: api, namespace: prod, labels: {app: api, version: v2, helm.sh/chart: api-1.2}}
- {name: web, namespace: prod, labels: {app: web, tier: front}}
- {name: job, namespace: batch, labels: {app: job}}
"""
MET = [
    Met("web", "api", 8080), Met("web", "api", 8081), Met("job", "api", 8080), Met("api", "db", 5432),
    Met("api", "dns", 53, 17), Met("api", "dns", 53, 6), Met("web", "api", 8, 1), Met("api", "1.1.1.1", 443),
    Met("api", "1.1.1.2", 443), Met("api", "2606::1", 443), Met("api", "9.9.9.9", 123, 17), Met("host", "api", 9090),
    Met("api", "host", 22), Met("job", "api", 9999, allowed=False), Met("web", "db", 5432), Met("api", "db", 8, 1),
]  # fmt: skip


def inputs_in(folder: Path) -> Inputs:
    return workloads(folder, WORKLOADS)


def learnt(inputs: Inputs, folder: Path, **options: Any) -> dict[str, Any]:
    return learn(inputs, folder, "app=api", None, None, Options(**options))


def dropped(inputs: Inputs, text: str, folder: Path, name: str = "prod/api") -> list[tuple[str, str, str]]:
    """Connections of the workload that came through and would be dropped."""
    answer = replay(inputs, policies(inputs, text), folder)
    return [
        (r["source"], r["destination"], r["port"])
        for r in answer["would_drop"]
        if name in (r["source"], r["destination"])
    ]


def test_the_whole(tmp_path: Path) -> None:
    inputs = inputs_in(tmp_path)
    folder = store(tmp_path / "events", inputs, MET)
    answer = learnt(inputs, folder)
    (policy,) = answer["policies"]
    assert policy["metadata"] == {"name": "learned-api", "namespace": "prod"}
    assert policy["spec"]["endpointSelector"] == {"matchLabels": {"app": "api"}}
    job = {"matchLabels": {"app": "job", "k8s:io.kubernetes.pod.namespace": "batch"}}
    web = {"matchLabels": {"app": "web", "tier": "front"}}
    assert policy["spec"]["ingress"] == [
        {"fromEndpoints": [web], "toPorts": [ports("8080/TCP", "8081/TCP")]},
        {"fromEndpoints": [web], "icmps": [{"fields": [{"family": "IPv4", "type": 8}]}]},
        {"fromEndpoints": [job], "toPorts": [ports("8080/TCP")]},
    ]
    dns = {"matchLabels": {"k8s-app": "kube-dns", "k8s:io.kubernetes.pod.namespace": "kube-system"}}
    egress = policy["spec"]["egress"]
    assert {"toEndpoints": [dns], "toPorts": [ports("53/TCP", "53/UDP")]} in egress
    assert {"toCIDR": ["1.1.1.1/32", "1.1.1.2/32", "2606::1/128"], "toPorts": [ports("443/TCP")]} in egress
    assert {"toCIDR": ["9.9.9.9/32"], "toPorts": [ports("123/UDP")]} in egress
    assert {"toEntities": ["host"], "toPorts": [ports("22/TCP")]} in egress
    assert "version" not in answer["yaml"]
    assert dropped(inputs, answer["yaml"], folder) == []
    assert [r["port"] for r in replay(inputs, policies(inputs, answer["yaml"]), folder)["would_allow"]] == []


def ports(*texts: str) -> dict[str, Any]:
    return {"ports": [{"port": text.partition("/")[0], "protocol": text.partition("/")[2]} for text in texts]}


def parts(policy: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The policy with one thing less, each time another: a rule, a peer, a port."""
    for direction in ("ingress", "egress"):
        for number, rule in enumerate(policy["spec"][direction]):
            yield f"{direction}[{number}]", without(policy, direction, number)
            for field, found in rule.items():
                lists = (
                    [found]
                    if field.startswith(("from", "to")) and field != "toPorts"
                    else [one[k] for one in found for k in one]
                )
                for depth, elements in enumerate(lists):
                    for index in range(len(elements)):
                        if len(elements) > 1:
                            yield (
                                f"{direction}[{number}].{field}[{index}]",
                                less(policy, direction, number, field, depth, index),
                            )


def without(policy: dict[str, Any], direction: str, number: int) -> dict[str, Any]:
    made = copy.deepcopy(policy)
    del made["spec"][direction][number]
    made["spec"][direction] = made["spec"][direction] or [{}]
    return made


def less(
    policy: dict[str, Any], direction: str, number: int, field: str, depth: int, index: int
) -> dict[str, Any]:
    made = copy.deepcopy(policy)
    found = made["spec"][direction][number][field]
    target = (
        found
        if field.startswith(("from", "to")) and field != "toPorts"
        else [one[k] for one in found for k in one][depth]
    )
    del target[index]
    return made


def check_minimal(inputs: Inputs, folder: Path, answer: dict[str, Any]) -> int:
    (policy,) = answer["policies"]
    tried = 0
    for what, smaller in parts(policy):
        if policy["spec"][what.partition("[")[0]] != [{}]:
            assert dropped(inputs, yaml_text(smaller), folder), f"{what} could be left out"
            tried += 1
    return tried


def test_nothing_in_it_is_too_much(tmp_path: Path) -> None:
    inputs = inputs_in(tmp_path)
    folder = store(tmp_path / "events", inputs, MET)
    assert check_minimal(inputs, folder, learnt(inputs, folder)) > 15


ENDS = st.sampled_from(["web", "db", "job", "dns", "host", "1.1.1.1", "1.1.1.2", "10.0.0.9", "2001:db8::1"])
PORTS = st.sampled_from([(6, 80), (6, 443), (17, 53), (132, 7), (1, 8), (58, 128), (6, 81)])


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(ENDS, st.booleans(), PORTS), max_size=14))
def test_whatever_was_seen(
    tmp_path_factory: pytest.TempPathFactory, seen: list[tuple[str, bool, tuple[int, int]]]
) -> None:
    base = tmp_path_factory.mktemp("learn")
    inputs = inputs_in(base)
    met = [
        Met("api", peer, port, protocol) if out else Met(peer, "api", port, protocol)
        for peer, out, (protocol, port) in seen
    ]
    folder = store(base / "events", inputs, met)
    answer = learnt(inputs, folder)
    assert dropped(inputs, answer["yaml"], folder) == []
    check_minimal(inputs, folder, answer)
    assert yaml.safe_load(answer["yaml"]) == answer["policies"][0]


def test_options(tmp_path: Path) -> None:
    inputs = inputs_in(tmp_path)
    many = [Met("api", str(ip_address("10.0.0.0") + 2 * n), 443, at=n) for n in range(40)]
    folder = store(tmp_path / "events", inputs, [*many, *MET])
    egress = learnt(inputs, folder)["policies"][0]["spec"]["egress"]
    assert {"toEntities": ["world"], "toPorts": [ports("443/TCP")]} in egress
    wide = learnt(inputs, folder, ipv4_prefix=24)["policies"][0]["spec"]["egress"]
    assert {"toCIDR": ["1.1.1.0/24", "10.0.0.0/24", "2606::1/128"], "toPorts": [ports("443/TCP")]} in wide
    (policy,) = learnt(inputs, folder, noise=("tier", "version", "helm.sh/chart"))["policies"]
    assert policy["spec"]["ingress"][0]["fromEndpoints"] == [{"matchLabels": {"app": "web"}}]
    from axoneme.plugins.policy.model import Direction

    (policy,) = learnt(inputs, folder, directions=(Direction.INGRESS,))["policies"]
    assert "egress" not in policy["spec"]
    audited = learnt(inputs, folder, audit=True)["yaml"]
    assert "axoneme.io/mode: audit" in audited
    assert dropped(inputs, audited.replace("port: '8080'", "port: '1'"), folder) == [], (
        "it denies nothing, right or wrong"
    )


def test_addresses_with_names_are_allowed_by_name(tmp_path: Path) -> None:
    """By those that are known now; DNS then passes the proxy, so that they go on being learnt."""
    inputs = evolve(
        inputs_in(tmp_path),
        names={
            "example.org": (ip_address("1.1.1.1"), ip_address("1.1.1.2")),
            "b.org": (ip_address("1.1.1.2"),),
        },
    )
    folder = store(tmp_path / "events", inputs, MET)
    answer = learnt(inputs, folder)
    egress = answer["policies"][0]["spec"]["egress"]
    assert {
        "toFQDNs": [{"matchName": "example.org"}],
        "toPorts": [ports("443/TCP")],
    } in egress
    assert {"toCIDR": ["2606::1/128"], "toPorts": [ports("443/TCP")]} in egress
    (dns,) = (rule["toPorts"][0] for rule in egress if "53" in str(rule))
    assert dns == {**ports("53/TCP", "53/UDP"), "rules": {"dns": [{"matchPattern": "*"}]}}
    assert dropped(inputs, answer["yaml"], folder) == []
    check_minimal(inputs, folder, answer)
    plain = learnt(inputs, folder, names=False)["policies"][0]["spec"]["egress"]
    assert {"toCIDR": ["1.1.1.1/32", "1.1.1.2/32", "2606::1/128"], "toPorts": [ports("443/TCP")]} in plain


def test_without_anything_seen_everything_is_closed(tmp_path: Path) -> None:
    inputs = inputs_in(tmp_path)
    (policy,) = learnt(inputs, tmp_path / "nothing")["policies"]
    assert policy["spec"]["ingress"] == policy["spec"]["egress"] == [{}]
    with pytest.raises(NotFoundError, match="no workload with app=nobody"):
        learn(inputs, tmp_path / "nothing", "app=nobody", None, None, Options())
    with pytest.raises(RequestError, match="'nobody' is no label"):
        learn(inputs, tmp_path / "nothing", "nobody", None, None, Options())
