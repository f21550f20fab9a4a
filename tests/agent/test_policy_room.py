"""A whole agent whose policies do not fit into the kernel's tables: what did not fit is closed, and nothing else."""

from __future__ import annotations

import pytest
import yaml
from scenes import ENFORCED

from axoneme.core.testing.namespaces import reachable
from axoneme.core.testing.node import Node
from axoneme.core.testing.traffic import Flow, Kind, Traffic

pytestmark = pytest.mark.kernel

WEB = 80


def opens(name: str, peer: str, *ports: int) -> str:
    """A policy of the server that opens these ports to a peer."""
    rows = [{"port": str(port), "protocol": "TCP"} for port in ports]
    rules = [
        {"fromEndpoints": [{"matchLabels": {"app": peer}}], "toPorts": [{"ports": rows[at : at + 40]}]}
        for at in range(0, len(rows), 40)
    ]
    return yaml.safe_dump(
        {
            "apiVersion": "cilium.io/v2",
            "kind": "CiliumNetworkPolicy",
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": rules},
        }
    )


def test_what_does_not_fit_is_closed_until_there_is_room() -> None:
    config = {"plugins": {**ENFORCED["plugins"], "policy": {"verdicts": 1024}}}
    with Node(config) as node:
        node.resource("friend.yaml", opens("friend", "friend", WEB))
        node.start()
        friend, greedy, server = (node.workload(name, app=name) for name in ("friend", "greedy", "server"))
        steady = [
            Flow(name=f"steady{at}", kind=Kind.STREAM, netns=friend.netns, address=address, port=WEB)
            for at, address in enumerate(server.addresses)
        ]
        with Traffic(servers=[(server.netns, WEB)], flows=steady) as traffic:
            traffic.more(10)
            node.resource("greedy.yaml", opens("greedy", "greedy", WEB, *range(1001, 4001, 2)))
            node.until(lambda: node.metric("axoneme_policy_no_room") == 1, "one peer has no room")
            assert any("no room in the kernel's tables" in line for line in node.problems())
            node.wait_logged("policy_maps_full")
            for address in server.addresses:
                assert reachable(friend.netns, address, WEB)
                assert not reachable(greedy.netns, address, WEB, timeout=0.3)
            traffic.more(10)
            node.resource("greedy.yaml", opens("greedy", "greedy", WEB, 1001))
            node.until(lambda: reachable(greedy.netns, server.ipv4, WEB, timeout=0.3), "there is room again")
            assert reachable(greedy.netns, server.ipv6, WEB)
            node.until(lambda: not node.problems(), "all is well")
            traffic.more(10)
        traffic.check()
