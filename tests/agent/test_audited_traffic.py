"""A whole agent with a rehearsed policy: real connections pass, and monitor and metric say what would become of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from scenes import CLOSED, ENFORCED, OPEN, policy

from axoneme.core.testing.namespaces import reachable
from axoneme.core.testing.node import Node, Placed
from axoneme.core.testing.traffic import Traffic

pytestmark = pytest.mark.kernel


def text(mode: str) -> str:
    return policy(OPEN).replace("metadata: {", f"metadata: {{annotations: {{axoneme.io/mode: {mode}}}, ")


def test_a_rehearsal_and_its_end() -> None:
    with Node(ENFORCED) as node:
        node.resource("policy.yaml", text("audit"))
        node.start()
        client, server = (node.workload(name, app=name) for name in ("client", "server"))
        with Traffic(servers=[(server.netns, OPEN), (server.netns, CLOSED)], flows=[]):
            _rehearses(node, client, server)
            node.resource("policy.yaml", text("enforce"))
            node.until(
                lambda: not reachable(client.netns, server.ipv4, CLOSED, timeout=0.2), "it is enforced"
            )
            assert reachable(client.netns, server.ipv6, OPEN)
            assert not reachable(client.netns, server.ipv6, CLOSED, timeout=0.2)


def _rehearses(node: Node, client: Placed, server: Placed) -> None:
    node.until(lambda: reachable(client.netns, server.ipv4, OPEN), "the server listens")
    before = node.metric("axoneme_policy_audited_total")
    for address in server.addresses:
        assert reachable(client.netns, address, OPEN)
        assert reachable(client.netns, address, CLOSED)
    assert node.metric("axoneme_policy_audited_total") == before + 2
    told = json.loads(node.axoneme("policy", "get", "server", "-o", "json").stdout)
    assert {rule["mode"] for rule in told["rules"] if rule.get("policy")} == {"audit"}
    assert "rehearsed: deny" in node.axoneme("policy", "get", "server").stdout
    for event in (_heard(node, client, address) for address in server.addresses):
        assert (event["type"], event["verdict"], event["reason"]) == ("new", "audited", "POLICY_DENIED")
        assert event["egress_rule"]["policy"] == "default/client"
        assert event["egress_rule"]["effect"] == "default-deny"
        assert "ingress_rule" not in event


def _heard(node: Node, client: Placed, address: str) -> dict[str, Any]:
    """What the monitor says of a connection to the port that would be closed."""
    heard = node.folder / "heard"
    with open(heard, "wb") as output:
        monitor = node.spawn("monitor --type new --workload client --last 1 -o json", output)
        node.until(
            lambda: reachable(client.netns, address, CLOSED) and monitor.poll() is not None, "it is heard"
        )
    event: dict[str, Any] = json.loads(heard.read_text())
    return event
