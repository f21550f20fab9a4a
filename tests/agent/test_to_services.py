"""Policies that name services follow what is known of those: endpoints that change, selectors, and services that go."""

from __future__ import annotations

import pytest

from axoneme.core.net import namespaces
from axoneme.core.testing.namespaces import Namespaces, reachable
from axoneme.core.testing.node import Node

pytestmark = pytest.mark.kernel

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: client, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toServices:
    - k8sService: {serviceName: outside}
    - k8sServiceSelector: {selector: {matchLabels: {tier: inner}}, namespace: default}
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
"""
OUTSIDE = """
apiVersion: v1
kind: Service
metadata: {name: outside, namespace: default}
spec: {clusterIP: 10.96.0.20, ports: [{port: 80, protocol: TCP}]}
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: outside-1, namespace: default, labels: {kubernetes.io/service-name: outside}}
addressType: IPv4
endpoints: [{addresses: ["203.0.113.%d"]}]
ports: [{port: 80, protocol: TCP}]
"""
INSIDE = """
apiVersion: v1
kind: Service
metadata: {name: inside, namespace: default, labels: {tier: inner}}
spec: {clusterIP: 10.96.0.21, selector: {app: server}, ports: [{port: 80, protocol: TCP}]}
"""


def join(node: Node, world: str) -> None:
    """A network outside, in which two addresses answer."""
    from axoneme.core.testing.namespaces import within

    def run(netns: str, command: str) -> None:
        import subprocess

        within(netns, lambda: subprocess.run(["ip", *command.split()], check=True))

    run(node.netns, f"link add w0 type veth peer name w1 netns {namespaces.locate(world)}")
    run(node.netns, "addr add 203.0.113.1/24 dev w0")
    run(node.netns, "link set w0 up")
    for last in (2, 3):
        run(world, f"addr add 203.0.113.{last}/24 dev w1")
    run(world, "link set w1 up")
    run(world, "route add default via 203.0.113.1")


def test_peers_are_who_serves() -> None:
    with Namespaces() as owned, Node({"plugins": {"enabled": ["policy", "lb"]}}) as node:
        node.resource("policy.yaml", POLICY)
        node.start()
        world = owned.make("world")
        join(node, world)
        client, server = (node.workload(name, app=name) for name in ("client", "server"))
        for netns in (world, server.netns):
            owned.serve_tcp(netns, 80)
        places = {"old": "203.0.113.2", "new": "203.0.113.3", "inside": server.ipv4}

        def reached() -> set[str]:
            return {
                name for name, address in places.items() if reachable(client.netns, address, 80, timeout=0.2)
            }

        assert reached() == set(), "services that nobody knows are nobody"
        node.resource("outside.yaml", OUTSIDE)
        node.resource("slice.yaml", SLICE % 2)
        node.until(lambda: reached() == {"old"}, "the endpoint")
        node.resource("slice.yaml", SLICE % 3)
        node.until(lambda: reached() == {"new"}, "the endpoint that took over")
        node.resource("inside.yaml", INSIDE)
        node.until(lambda: reached() == {"new", "inside"}, "the workloads that the service selects")
        (node.resources / "outside.yaml").unlink()
        node.until(lambda: reached() == {"inside"}, "the service is gone")
        assert node.problems() == []
        node.kill9()
        node.start()
        assert reached() == {"inside"}
