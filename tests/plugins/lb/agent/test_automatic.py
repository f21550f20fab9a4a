"""The node's devices, found by the agent itself: the life of an uplink that nobody named, with real packets."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from ipaddress import ip_network
from socket import htons
from typing import Any

import pytest
from lb_agents import PORT, World
from lb_scenes import service
from pyroute2 import NetNS

from axoneme.core.datapath import asm
from axoneme.core.datapath.kernel import Program, ProgramAttributes
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.datapath.uapi import AttachType, ProgramType
from axoneme.core.testing.namespaces import Namespaces, within
from axoneme.core.testing.node import Node, Placed

pytestmark = pytest.mark.kernel

#: An address of somebody out there, who has no way back to workloads.
WORLD = ("203.0.113.5", "2001:db8:ffff::5")
#: Two uplinks: the node's address there, and its gateway's.
UPLINKS = {
    "up0": (("198.51.100.2", "2001:db8:1::2"), ("198.51.100.1", "2001:db8:1::1")),
    "up1": (("192.0.2.2", "2001:db8:2::2"), ("192.0.2.1", "2001:db8:2::1")),
}
NODE_PORT = 30080
FORWARDING = 0x02  # IFA_F_NODAD


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A node without any device, and a host of the world that is not connected yet."""
    values = {"plugins": {"enabled": ["lb", "policy"]}, "node": {"name": "here"}}
    with Node(values) as node, Namespaces() as netns:
        out = netns.make("out")
        with NetNS(out) as outside:
            for address, length in zip(WORLD, (32, 128), strict=True):
                outside.addr("add", index=1, address=address, prefixlen=length)
        node.start()
        made = World(node=node, netns=netns)
        made.workloads["outside"] = Placed(name="outside", netns=out, ipv4=WORLD[0], ipv6=WORLD[1], row={})
        made.workload("client", app="client")
        made.server("web-0", app="web")
        ports = f"ports: [{{name: t, port: 80, targetPort: {PORT}, nodePort: {NODE_PORT}}}]"
        families = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]"
        made.resource(
            "web.yaml", service("web", f"type: NodePort, selector: {{app: web}}, {families}, {ports}")
        )
        for kind, serve in (("tcp", netns.serve_tcp), ("udp", netns.serve_udp)):
            made.servers["outside", kind] = serve(out, PORT, lambda _: b"world")
        made.node.until(lambda: made.service("web"), "the service is known")
        yield made


def connect(node: str, out: str, device: str) -> None:
    """A cable out of the node; nothing is routed over it yet but its own networks."""
    own, gateways = UPLINKS[device]
    with NetNS(node) as here:
        here.link("add", ifname=device, kind="veth", peer={"ifname": f"to-{device}", "net_ns_fd": out})
    for name, end, addresses in ((node, device, own), (out, f"to-{device}", gateways)):
        with NetNS(name) as netns:
            index = netns.link_lookup(ifname=end)[0]
            for address, length in zip(addresses, (24, 64), strict=True):
                netns.addr("add", index=index, address=address, prefixlen=length, flags=FORWARDING)
            netns.link("set", index=index, state="up")
            if name == out:  # datagrams are answered from the address that was asked
                for address, prefix, metric in zip(
                    WORLD, (f"{own[0]}/24", f"{own[1]}/64"), (0, 1), strict=True
                ):
                    network = str(ip_network(prefix, strict=False))
                    netns.route(
                        "replace",
                        dst=network,
                        oif=index,
                        prefsrc=address,
                        priority=metric,
                        scope=253 * (not metric),
                    )


def default_by(node: str, device: str) -> None:
    with NetNS(node) as here:
        index = here.link_lookup(ifname=device)[0]
        for everywhere, gateway in zip(("0.0.0.0/0", "::/0"), UPLINKS[device][1], strict=True):
            here.route("replace", dst=everywhere, gateway=gateway, oif=index)


def devices(world: World) -> dict[str, Any]:
    return {row["name"]: row for row in world.node.call("datapath.devices")}


def until_used(world: World, *names: str) -> None:
    wanted = set(names)
    world.node.until(
        lambda: {name for name, row in devices(world).items() if row["used"]} == wanted, f"{names} are used"
    )


def leaves_as(world: World, device: str) -> None:
    """TCP and UDP of both families reach the world, which sees the node's address of that device."""
    for family in range(2):
        for kind in ("tcp", "udp"):
            assert world.ask("client", WORLD[family], PORT, udp=kind == "udp") == "world", (device, kind)
            assert world.seen("outside", kind) == UPLINKS[device][0][family]


def connections(world: World) -> int:
    """Entries of TCP connections with the world's IPv4 address."""
    rows = json.loads(
        world.node.axoneme(
            "bpf", "ct", "list", "--address", WORLD[0], "--protocol", "tcp", "-o", "json"
        ).stdout
    )
    return len(rows)


@contextlib.contextmanager
def tagged(netns: str, device: str, vlan: int) -> Iterator[None]:
    """All that leaves by a device meanwhile has a tag with this number."""
    push = asm.mov(2, htons(0x8100)) + asm.mov(3, vlan) + asm.call(18) + asm.mov(0, -1) + asm.leave()
    kernel = SyscallKernel()
    attributes = ProgramAttributes(type=ProgramType.SCHED_CLS, name="tag", instructions=push)
    with Program.load(kernel, attributes) as program:
        link = within(
            netns,
            lambda: kernel.link_create(program.fd, socket.if_nametoindex(device), AttachType.TCX_EGRESS),
        )
        try:
            yield
        finally:
            kernel.close(link)


def resolver(world: World, family: int) -> socket.socket:
    """A socket of the client that asks the world, and never another one."""
    kind = (socket.AF_INET, socket.AF_INET6)[family]
    made = within(world.workloads["client"].netns, lambda: socket.socket(kind, socket.SOCK_DGRAM))
    made.settimeout(3)
    made.connect((WORLD[family], PORT))
    return made


def asks(one: socket.socket) -> bytes:
    one.send(b"?")
    return one.recv(64)


def node_port_answers(world: World, device: str) -> None:
    for family, address in enumerate(UPLINKS[device][0]):
        assert world.ask("outside", address, NODE_PORT) == "web-0", (device, family)
        assert world.seen("web-0", "tcp") == WORLD[family], "the client itself is seen"


def check(world: World, name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(row for row in world.node.call("status")["checks"] if row["check"] == name)
    return found


def test_the_life_of_an_uplink(world: World) -> None:
    node, out = world.node.netns, world.workloads["outside"].netns
    # Nobody leads out of this node. That is no fault.
    assert not any(row["used"] for row in devices(world).values())
    assert devices(world)["lo"]["why"] == "loopback"
    assert not [
        each
        for point in world.node.call("datapath.show")
        for each in point["attached"]
        if "_network-" in each
    ]
    for name in ("devices", "masquerading"):
        assert check(world, name)["level"] == "ok"
        assert "no" in check(world, name)["reason"]
    assert world.node.call("status")["ok"]

    # A device with addresses leads to its neighbours, also without a default route; but it might be anything.
    connect(node, out, "up0")
    why = "veth without a default route"
    world.node.until(lambda: devices(world).get("up0", {}).get("why") == why, "up0 is seen")
    default_by(node, "up0")
    until_used(world, "up0")
    row = devices(world)["up0"]
    assert row["programs"] == ["from_network"]
    assert "no XDP" in row["note"], "the other half of a pair would lose what XDP sends"
    leaves_as(world, "up0")
    node_port_answers(world, "up0")
    assert check(world, "masquerading") == {
        "plugin": "lb", "check": "masquerading", "level": "ok", "reason": ""
    }  # fmt: skip

    # A frame of a VLAN is its own device's business, of which there is none here; one with a mere priority is like any other.
    known = connections(world)
    with tagged(out, "to-up0", 7):
        assert world.ask("outside", UPLINKS["up0"][0][0], NODE_PORT, timeout=0.3) == ""
    assert connections(world) == known
    with tagged(out, "to-up0", 0):
        assert world.ask("outside", UPLINKS["up0"][0][0], NODE_PORT) == "web-0"
    assert connections(world) > known

    resolvers = [resolver(world, family) for family in range(2)]
    assert [asks(one) for one in resolvers] == [b"world", b"world"]

    # The way out moves.
    connect(node, out, "up1")
    default_by(node, "up1")
    until_used(world, "up1")
    leaves_as(world, "up1")
    node_port_answers(world, "up1")
    # Who asks from one socket for good goes on, as somebody else to the world.
    for family, one in enumerate(resolvers):
        assert asks(one) == b"world"
        assert world.seen("outside", "udp") == UPLINKS["up1"][0][family]
        one.close()

    # It goes, and one of its name comes.
    with NetNS(node) as here:
        here.link("del", index=here.link_lookup(ifname="up1")[0])
    until_used(world)
    connect(node, out, "up1")
    default_by(node, "up1")
    until_used(world, "up1")
    leaves_as(world, "up1")
    node_port_answers(world, "up1")

    # It gets another name, and still is what it is.
    with NetNS(node) as here:
        here.link("set", index=here.link_lookup(ifname="up1")[0], ifname="wan")
    until_used(world, "wan")
    leaves_as(world, "up1")

    # The agent is killed: what it attached stays, also while the next one does not know yet, and goes with the device.
    world.node.kill9()
    leaves_as(world, "up1")
    world.node.start()
    until_used(world, "wan")
    leaves_as(world, "up1")
    node_port_answers(world, "up1")
    assert world.node.call("status")["ok"]
