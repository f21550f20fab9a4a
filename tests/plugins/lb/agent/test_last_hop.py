"""What a traceroute sees of a service: this node at the first hop, asked about the service's own address; then the service."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from lb_agents import PORT, World
from lb_scenes import service, slices
from test_edge import CLIENT, CLIENTS_NODE, connect

from axoneme.core.testing.namespaces import Namespaces, within
from axoneme.core.testing.node import Node, Placed

pytestmark = pytest.mark.kernel

#: A service's addresses: from this node, and from outside. The node has a route there, as a default route would be.
VIPS = (("10.96.0.37", "fd00:96::37"), ("203.0.113.37", "2001:db8:80::37"))
TIME_EXCEEDED = {4: 11, 6: 3}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    values = {"plugins": {"enabled": ["lb"]}, "datapath": {"devices": ["clients"]}}
    with Node(values) as node, Namespaces() as netns:
        outside = netns.make("out")
        connect(node.netns, outside, "clients", CLIENTS_NODE, CLIENT)
        _default_route(node.netns, CLIENT)
        _default_route(outside, CLIENTS_NODE)
        node.start()
        made = World(node=node, netns=netns)
        made.workloads["outside"] = Placed(
            name="outside", netns=outside, ipv4=CLIENT[0], ipv6=CLIENT[1], row={}
        )
        backend = made.server("backend")
        made.workload("client")
        inner, outer = VIPS
        spec = (
            f'clusterIP: {inner[0]}, clusterIPs: [{inner[0]}, "{inner[1]}"], externalIPs: [{outer[0]}, "{outer[1]}"], '
            "ipFamilyPolicy: RequireDualStack, ports: [{port: 80, protocol: UDP, targetPort: 8080}]"
        )
        text = service("traced", spec)
        for address in backend.addresses:
            text += slices("traced", [address], PORT, protocol="UDP")
        node.resource("traced.yaml", text)
        for vip, address in zip((*inner, *outer), backend.addresses * 2, strict=True):
            made.until_used(f"[{vip}]:80/udp" if ":" in vip else f"{vip}:80/udp", address)
        yield made


def _default_route(name: str, via: tuple[str, str]) -> None:
    from pyroute2 import NetNS

    with NetNS(name) as netns:
        for family, gateway in zip((socket.AF_INET, socket.AF_INET6), via, strict=True):
            netns.route("add", dst="default", gateway=gateway, family=family)


def probe(address: str, hops: int) -> tuple[str, str]:
    """Who answers a datagram with so few hops, and about what: `answer`, or the kind of the error and whom it quotes."""
    six = ":" in address
    family = socket.AF_INET6 if six else socket.AF_INET
    errors = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_ICMPV6 if six else socket.IPPROTO_ICMP)
    with errors, socket.socket(family, socket.SOCK_DGRAM) as asking:
        option = (41, socket.IPV6_UNICAST_HOPS) if six else (0, socket.IP_TTL)
        asking.setsockopt(*option, hops)
        asking.sendto(b"probe", (address, 80))
        for _ in range(20):
            ready = select.select([errors, asking], [], [], 5)[0]
            if asking in ready:
                return "answer", asking.recv(100).decode()
            if not ready:
                break
            said = errors.recv(2000)
            said = said if six else said[20:]
            if said[0] == TIME_EXCEEDED[6 if six else 4]:
                at = slice(32, 48) if six else slice(24, 28)
                return "time exceeded", str(ip_address(said[at]))
    return "nothing", ""


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("client", ["client", "outside"])
def test_probes(world: World, client: str, family: int) -> None:
    address = VIPS[client == "outside"][family]
    netns = world.workloads[client].netns
    for _ in range(2):
        assert within(netns, lambda: probe(address, 1)) == ("time exceeded", address)
        assert within(netns, lambda: probe(address, 2)) == ("answer", "backend")
