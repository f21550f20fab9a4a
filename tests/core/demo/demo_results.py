"""What a demo may have shown, made up."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from axoneme.core.demo.article import APPS, Flow, expected, flows
from axoneme.core.demo.running import Result
from axoneme.core.demo.verdicts import Decision, Verdict
from axoneme.core.workloads.endpoints import Endpoint, EndpointState

ACTIVE = ("l4-lb-policy.yaml",)
DENY = Decision(
    direction="ingress", id=7, policy="production/backend", path="default-deny", effect="default-deny"
)


def endpoint(number: int, name: str) -> Endpoint:
    return Endpoint(
        id=number, name=name, namespace="production", ifindex=number, ifname=f"axo{number}", mac="", node_mac="",
        ipv4=IPv4Address(f"10.201.0.{number}"), ipv6=IPv6Address(f"fd00:201::{number}"), identity=255 + number,
        labels=(), netns=f"/run/netns/axo-demo-production-{name}", state=EndpointState.READY,
    )  # fmt: skip


def verdict(flow: Flow, seen: str | None = None) -> Verdict:
    wanted = expected(flow, ACTIVE)
    dropped = wanted == "dropped"
    return Verdict(
        flow=flow,
        expected=wanted,
        seen=seen or wanted,
        reason="Policy denied" if dropped else "",
        decisions=(DENY,) if dropped else (),
    )


def result(*wrong: Flow) -> Result:
    return Result(
        endpoints={app.name: endpoint(number, app.name) for number, app in enumerate(APPS, 1)},
        active=ACTIVE,
        waiting={"l7-traffic-split.yaml": ("envoy",)},
        verdicts=tuple(verdict(flow, "no answer" if flow in wrong else None) for flow in flows()),
        seconds=1.25,
    )


WRONG = Flow("frontend", "cache", 6379, 6)
