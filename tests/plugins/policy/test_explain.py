"""Explanations agree with verdicts, and what is proposed works: over flows of the corpus, and on a case of its own."""

from __future__ import annotations

import random
from collections import Counter
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml

from axoneme.core.api.wire import NotFoundError, RequestError
from axoneme.plugins.policy.corpus import CaseWorld, read
from axoneme.plugins.policy.explain import AGREES, BEATEN, DECIDES, Flow, explain_side
from axoneme.plugins.policy.model import Direction, Protocol
from axoneme.plugins.policy.parties import Party, parse_port

CORPUS = Path(__file__).parents[2] / "conformance" / "policy"


def party(world: CaseWorld, name: str) -> Party:
    number, labels = world.identity(name), world.labels(name)
    if name.startswith("world:"):
        return Party(
            name="world", identity=number, labels=labels, address=ip_address(name.removeprefix("world:"))
        )
    endpoint = world._endpoints.get(name, 0)
    return Party(name=name, identity=number, labels=labels, endpoint=endpoint)


def check_side(case: dict[str, Any], world: CaseWorld, flow: dict[str, Any], direction: Direction) -> str:
    """Everything that must hold for one side; returns what kind of side it was."""
    want = world.side(direction, flow)
    protocol = int(Protocol[flow["protocol"].upper()])
    seen = Flow(party(world, flow["src"]), party(world, flow["dst"]), protocol, flow["port"])
    got = explain_side(world.engine, seen, direction)
    if want is None or got is None:
        assert (want, got) == (None, None)
        return "none"
    if want.verdict == "error":
        assert got["error"]
        return "error"
    assert got["verdict"] == {"allow": "allowed", "deny": "denied"}[want.verdict]
    outcomes = Counter(one["outcome"] for one in got["considered"])
    matching = outcomes[DECIDES] + outcomes[BEATEN] + outcomes[AGREES]
    written = "[" in got["rule"]["path"]
    assert outcomes[DECIDES] == written, got
    assert all(one["why"] for one in got["considered"])
    if got["rule"]["path"] == "default-deny":
        assert matching == 0, got
        assert got["default_deny_by"][0]["policy"] == got["rule"]["policy"]
    if want.verdict == "allow":
        assert outcomes[BEATEN] == 0
        return "allowed"
    if written:
        assert got["suggestion_none"]
        return "denied by a rule"
    if got["suggestion_yaml"] is None:
        return f"denied, {got['suggestion_none']}"
    suggested = yaml.safe_load(got["suggestion_yaml"])
    again = CaseWorld({**case, "policies": [*case["policies"], suggested]})
    assert not set(again.rejected) - set(world.rejected), again.rejected
    after = again.side(direction, flow)
    assert after is not None
    assert after.verdict == "allow", (case["name"], flow, direction, got["suggestion_yaml"])
    return "denied, and what is proposed allows it"


def test_every_explanation_fits_and_every_proposal_works() -> None:
    chosen = random.Random(7)
    kinds: Counter[str] = Counter()
    cases = [case for name in ("handwritten", "random") for case in read(CORPUS / f"{name}.jsonl.gz")]
    for case in chosen.sample(cases, 50):
        world = CaseWorld(case)
        for flow in chosen.sample(case["flows"], min(12, len(case["flows"]))):
            for direction in Direction:
                kinds[check_side(case, world, flow, direction)] += 1
    assert kinds["denied, and what is proposed allows it"] > 100
    assert kinds["denied by a rule"] > 5
    assert kinds["allowed"] > 100
    without = {kind for kind in kinds if kind.startswith("denied, ")} - {
        "denied, and what is proposed allows it"
    }
    assert all("requires" in kind for kind in without), kinds


POLICY = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: db, namespace: prod}
spec:
  endpointSelector: {matchLabels: {app: db}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: api}}]
      toPorts: [{ports: [{port: "5432", protocol: TCP}]}]
    - fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.9.0.0/16]}]
  ingressDeny:
    - fromEndpoints: [{matchLabels: {app: evil}}]
"""
WORKLOADS = """\
- {name: db, namespace: prod, labels: {app: db}, addresses: [10.1.0.1, "fd00::1"]}
- {name: api, namespace: prod, labels: {app: api}}
- {name: web, namespace: shop, labels: {app: web}}
- {name: evil, namespace: prod, labels: {app: evil}}
- {name: web, namespace: prod, labels: {app: web, tier: front}}
"""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    policy, workloads = tmp_path / "db.yaml", tmp_path / "workloads.yaml"
    policy.write_text(POLICY)
    workloads.write_text(WORKLOADS)
    return policy, workloads


def ask(files: tuple[Path, Path], *question: str) -> dict[str, Any]:
    from axoneme.plugins.policy.rehearsal.offline import explain_files

    return explain_files([files[0]], files[1], *question)


def test_a_default_deny_names_its_policy_and_what_would_allow_it(files: tuple[Path, Path]) -> None:
    answer = ask(files, "shop/web", "db", "5432")
    assert answer["verdict"] == "denied"
    egress, ingress = answer["sides"]
    assert (egress["verdict"], egress["rule"]["path"]) == ("allowed", "no-policy")
    assert ingress["rule"]["path"] == "default-deny"
    assert ingress["default_deny_by"] == [
        {"kind": "CiliumNetworkPolicy", "policy": "prod/db", "file": str(files[0]), "line": 1}
    ]
    found = {
        one["rule"]["path"]: (one["outcome"], one["why"], one["rule"]["line"])
        for one in ingress["considered"]
    }
    assert found["spec.ingress[0]"][::2] == ("other-peer", 7)
    assert "the peer does not meet app=api" in found["spec.ingress[0]"][1]
    assert (
        found["spec.ingress[1]"][1]
        == "10.0.0.0/8 speaks of addresses of the world, which the peer is none of"
    )
    assert yaml.safe_load(ingress["suggestion_yaml"])["spec"] == {
        "endpointSelector": {"matchLabels": {"app": "db"}},
        "ingress": [
            {
                "fromEndpoints": [{"matchLabels": {"app": "web", "k8s:io.kubernetes.pod.namespace": "shop"}}],
                "toPorts": [{"ports": [{"port": "5432", "protocol": "TCP"}]}],
            }
        ],
    }


@pytest.mark.parametrize(
    ("source", "port", "verdict", "path", "losers"),
    [
        ("api", "5432/tcp", "allowed", "spec.ingress[0]", {}),
        (
            "api",
            "5433",
            "denied",
            "default-deny",
            {"spec.ingress[0]": "it speaks of 5432/TCP, not of 5433/TCP"},
        ),
        ("app=evil", "5432", "denied", "spec.ingressDeny[0]", {}),
        ("10.2.0.1", "icmp", "allowed", "spec.ingress[1]", {}),
        ("10.9.0.1", "53/udp", "denied", "default-deny", {"spec.ingress[1]": "10.0.0.0/8 excepts it"}),
        ("8.8.8.8", "80", "denied", "default-deny", {"spec.ingress[1]": "it lies outside of 10.0.0.0/8"}),
        ("host", "80", "allowed", "allow-localhost", {}),
        ("world", "80", "denied", "default-deny", {}),
    ],
)
def test_who_decides_and_why_others_do_not(
    files: tuple[Path, Path], source: str, port: str, verdict: str, path: str, losers: dict[str, str]
) -> None:
    answer = ask(files, source, "prod/db", port)
    side = answer["sides"][-1]
    assert (answer["verdict"], side["rule"]["path"]) == (verdict, path)
    why = {one["rule"]["path"]: one["why"] for one in side["considered"]}
    assert {key: why[key] for key in losers} == losers
    assert (side["suggestion_yaml"] is None) is (path != "default-deny")
    if source == "8.8.8.8":
        assert yaml.safe_load(side["suggestion_yaml"])["spec"]["ingress"][0]["fromCIDR"] == ["8.8.8.8/32"]


@pytest.mark.parametrize(
    ("question", "error", "words"),
    [
        (
            ("web", "db", "80"),
            RequestError,
            r"not one but several: prod/web, shop/web \(say NAMESPACE/NAME\)",
        ),
        (("app=web", "db", "80"), RequestError, "not one but several"),
        (("wep", "db", "80"), NotFoundError, "nobody is known as 'wep'"),
        (("api", "db", "0"), RequestError, "'0' is no port"),
        (("api", "db", "70000"), RequestError, "is no port"),
        (("api", "db", "80/tpc"), RequestError, "'TPC' is no protocol"),
        (("api", "db", "300/icmp"), RequestError, "no ICMP type"),
        (("api", "db", ""), RequestError, "no protocol"),
        (("api", "db", "\uff11\uff12"), RequestError, "no port"),
    ],
)
def test_questions_that_make_no_sense(
    files: tuple[Path, Path], question: tuple[str, str, str], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        ask(files, *question)


def test_requirements_are_named_when_nothing_helps(files: tuple[Path, Path]) -> None:
    files[0].write_text(
        POLICY.replace("  ingressDeny:", "    - fromRequires: [{matchLabels: {zone: a}}]\n  ingressDeny:")
    )
    (side,) = ask(files, "api", "db", "5432")["sides"][1:]
    assert side["verdict"] == "denied"
    assert "requires zone=a of every peer" in side["suggestion_none"]


def test_a_port_reads_as_people_write_it() -> None:
    assert parse_port("53/udp") == (Protocol.UDP, 53)
    assert parse_port("icmp") == (Protocol.ICMP, 8)
    assert parse_port("icmp", ipv6=True) == (Protocol.ICMPV6, 128)
    assert parse_port("0/icmp") == (Protocol.ICMP, 0)
