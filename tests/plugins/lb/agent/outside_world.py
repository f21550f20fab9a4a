"""A node between a client outside and backends elsewhere, one service for it in all its ways, and traffic by all of them.

    client ── node (workloads near-0, near-1, caller) ═══ far-0, far-1

Backends are the workloads and the far hosts; `caller` calls the world. What is said of a service is in force when `choose` returns.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence

import wires
from lb_agents import World, place
from lb_scenes import service

from axoneme.core.testing.namespaces import Namespaces
from axoneme.core.testing.node import Node, Placed
from axoneme.core.testing.traffic import Flow, Kind, mesh

#: The client and far hosts, and the node's own address towards each.
HOSTS = {
    "client": (("198.51.100.1", "2001:db8:1::1"), ("198.51.100.2", "2001:db8:1::2")),
    "far-0": (("192.0.2.50", "2001:db8:2::50"), ("192.0.2.2", "2001:db8:2::2")),
    "far-1": (("192.0.3.50", "2001:db8:3::50"), ("192.0.3.2", "2001:db8:3::2")),
}
NODE = HOSTS["client"][1]
VIP = ("203.0.113.1", "2001:db8:80::1")
#: Where servers of the service listen, and the service's port at `VIP`.
PORT = 80
NODE_PORT = 30080
#: Whom workloads call in the world: far-1, at a port that is no backend's.
WORLD_PORT = 81
SHORT = (Kind.REQUEST, Kind.DATAGRAM)
FROM_OUTSIDE = "from outside"

_POOL = f"""\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {{name: outside}}
spec: {{blocks: [{{cidr: {VIP[0]}/32}}, {{cidr: "{VIP[1]}/128"}}]}}
---
"""
_SERVICE = service(
    "web",
    "type: LoadBalancer, ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6], ports: ["
    f"{{name: t, port: {PORT}, nodePort: {NODE_PORT}}},"
    f" {{name: u, port: {PORT}, protocol: UDP, nodePort: {NODE_PORT}}}]",
)


@contextlib.contextmanager
def outside_world(*, xdp: bool) -> Iterator[World]:
    values = {
        "plugins": {"enabled": ["lb"], "lb": {"xdp": xdp}},
        "datapath": {"devices": list(HOSTS)},
        "node": {"name": "here"},
    }
    with Node(values) as node, Namespaces() as netns:
        made = World(node=node, netns=netns)
        for name, (theirs, ours) in HOSTS.items():
            host = netns.make("out")
            wires.cable(node.netns, name, ours, host, "cable", theirs)
            wires.wired(host, "cable")
            made.workloads[name] = Placed(name=name, netns=host, ipv4=theirs[0], ipv6=theirs[1], row={})
        wires.route(made.workloads["client"].netns, [wires.host(vip) for vip in VIP], NODE)
        node.start()
        for name in ("near-0", "near-1", "caller"):
            made.workload(name)
        made.resource("pool.yaml", _POOL)
        yield made


def text(world: World, *names: str, leaving: Sequence[str] = ()) -> str:
    """The service with these backends, and some more that terminate."""
    return _SERVICE + world.behind("web", PORT, names, leaving)


def choose(world: World, *names: str, leaving: Sequence[str] = ()) -> None:
    """Only these get new connections, from now on."""
    world.resource("web.yaml", text(world, *names, leaving=leaving))
    for family, (addresses, port) in itertools.product(range(2), ((VIP, PORT), (NODE, NODE_PORT))):
        backends = [world.workloads[name].addresses[family] for name in names]
        world.until_used(place(addresses[family], port), *backends, traffic=FROM_OUTSIDE)


def from_outside(world: World, kinds: Sequence[Kind] = tuple(Kind), *, interval: float = 0.02) -> list[Flow]:
    """The client asks the load balancer's addresses and the node's ports, by both families."""
    client = world.workloads["client"].netns
    flows = [
        *mesh(client, VIP, PORT, interval=interval, name="vip-"),
        *mesh(client, NODE, NODE_PORT, interval=interval, name="node-port-"),
    ]
    return [flow for flow in flows if flow.kind in kinds]


def to_the_world(world: World, *, interval: float = 0.02) -> list[Flow]:
    """A workload calls a host of the world, by both families."""
    caller, called = world.workloads["caller"].netns, world.workloads["far-1"].addresses
    return mesh(caller, called, WORLD_PORT, interval=interval, name="world-")


def servers(world: World) -> list[tuple[str, int]]:
    """Of everybody who may be behind the service, and of the world."""
    behind = [(one.netns, PORT) for name, one in world.workloads.items() if name.startswith(("near", "far"))]
    return [*behind, (world.workloads["far-1"].netns, WORLD_PORT)]
