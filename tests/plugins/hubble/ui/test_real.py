"""The command, the page and the metrics of a real agent, with the capabilities that it keeps, about packets of the real kernel."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from axoneme.core.testing.namespaces import Namespaces, ask, reachable
from axoneme.core.testing.node import Node

pytestmark = pytest.mark.kernel

CLOSED = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: closed
  namespace: default
spec:
  endpointSelector:
    matchLabels: {app: api}
  ingress:
    - toPorts:
        - ports: [{port: "8080", protocol: TCP}]
"""

CONFIGURATION: dict[str, Any] = {
    "plugins": {
        "enabled": ["policy", "hubble", "prometheus"],
        "prometheus": {"metrics": ["+axoneme_packets_total"]},
        "hubble": {"metrics": {"handlers": ["flow", "drop:destinationContext=pod", "tcp", "policy"]}},
    }
}


@pytest.fixture
def node() -> Iterator[Node]:
    with Node(CONFIGURATION) as node:
        node.resource("closed.yaml", CLOSED)
        node.start()
        yield node


def get(node: Node, url: str) -> str:
    """What curl gets on the agent's host."""
    command = ["ip", "netns", "exec", node.netns, "curl", "-sS", "--fail-with-body", "-m", "10", url]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_command_page_and_metrics(node: Node) -> None:
    web, api = node.workload("web", app="web"), node.workload("api", app="api")
    assert node.axoneme("ui").stdout == "http://127.0.0.1:12000/\n"
    page = json.loads(node.axoneme("ui", "-o", "json").stdout)["address"]
    assert "<title>Axoneme</title>" in get(node, page)
    with Namespaces() as servers:
        servers.serve_tcp(api.netns, 8080)
        for _ in range(3):
            assert ask(web.netns, api.ipv4, 8080) == b"hello"
        assert not reachable(web.netns, api.ipv6, 9999, timeout=0.3)

    def edges() -> Any:
        seen = json.loads(get(node, f"{page}api/window?since=0&until=9e12"))
        found = {
            (e["port"], e["forwarded"] > 0, e["dropped"] > 0): e
            for e in seen["edges"]
            if e["source"] == "workload:default/web"
        }
        return found if {(8080, True, False), (9999, False, True)} <= found.keys() else None

    dropped = node.until(edges, "both edges")[9999, False, True]
    assert dropped["destination"] == "workload:default/api"
    assert dropped["reasons"] == {"133": dropped["dropped"]}
    hubble = node.until(
        lambda: (
            text
            if 'hubble_drop_total{destination="default/api"'
            in (text := get(node, "http://127.0.0.1:9965/metrics"))
            else None
        ),
        "the drop in Hubble's metrics",
    )
    assert 'hubble_policy_verdicts_total{action="dropped",direction="ingress",match=' in hubble
    agent = get(node, "http://localhost:9962/metrics")
    assert 'cilium_drop_count_total{direction="' in agent
    assert 'reason="Policy denied"' in agent
    assert "cilium_endpoint 2.0" in agent
    assert 'cilium_policy_endpoint_enforcement_status{enforcement="ingress"} 1.0' in agent
    assert (
        float(
            next(
                line for line in agent.splitlines() if line.startswith("cilium_bpf_maps_virtual_memory")
            ).split()[1]
        )
        > 0
    )
    explained = json.loads(
        get(node, f"{page}api/explain?source=default/web&destination=default/api&port=9999/TCP")
    )
    assert explained["verdict"] == "denied"
    assert node.problems() == []
