"""ICMP errors and fragments of translated flows, with real packets: a router with narrow ways on, and closed ports.

    client ── router ── node (workloads) ── router ── server

Whatever is translated: a workload's packets to a service, a client's to a NodePort, a workload's to the world. Each scene
with XDP in front, and with the classifiers alone.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator

import pytest
import wires
from attrs import frozen
from lb_agents import World
from lb_scenes import service, slices
from taps import by_xdp, tap

from axoneme.core.testing.namespaces import Namespaces, listen, within
from axoneme.core.testing.node import Node

pytestmark = pytest.mark.kernel

CLIENT = ("192.0.2.10", "2001:db8:2::10")
CLIENTS_ROUTER = ("192.0.2.1", "2001:db8:2::1")
SERVER = ("203.0.113.50", "2001:db8:9::10")
SERVERS_ROUTER = ("203.0.113.1", "2001:db8:9::1")
#: The node's addresses and the router's, on the way to clients and to servers.
TO_CLIENTS = ("198.51.100.2", "2001:db8:1::2")
FROM_CLIENTS = ("198.51.100.1", "2001:db8:1::1")
TO_SERVERS = ("198.51.101.2", "2001:db8:3::2")
FROM_SERVERS = ("198.51.101.1", "2001:db8:3::1")
CLUSTER_IP = ("10.96.0.10", "fd00:96::10")

#: Where servers of the tests listen, and where nobody does.
OPEN, CLOSED = 9000, 9001

#: A datagram that is sent in three fragments.
LARGE = bytes(range(250)) * 16


@frozen
class Way:
    """From whom a packet is, whom it asks, and who is behind that."""

    client: str
    address: str
    port: int
    backend: str
    seen: str  # by the backend, as its client
    closed: int  # the port that leads to nobody


@pytest.fixture(scope="module", params=[True, False], ids=["xdp", "classifier"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    values = {
        "plugins": {"enabled": ["lb"], "lb": {"xdp": request.param, "at_sockets": False}},
        "datapath": {"devices": ["clients", "servers"]},
        "node": {"name": "here"},
    }
    with Node(values) as node, Namespaces() as netns:
        made = World(node=node, netns=netns)
        connect(made)
        node.start()
        for name in ("near", "caller"):
            made.workload(name)
        offer(made)
        yield made


def connect(world: World) -> None:
    for name, device, host, routers, inner, nodes in (
        ("client", "clients", CLIENT, CLIENTS_ROUTER, FROM_CLIENTS, TO_CLIENTS),
        ("far", "servers", SERVER, SERVERS_ROUTER, FROM_SERVERS, TO_SERVERS),
    ):
        router, end, node = world.netns.make("router"), world.netns.make(name), world.node.netns
        world.hosts.update({name: end, device: router})
        wires.cable(router, "narrow", routers, end, "cable", host)
        wires.cable(router, "node", inner, node, device, nodes)
        wires.wired(router, "node")
        wires.forwarding(router)
        wires.narrow(router, "narrow", host)
        wires.route(router, ["default", "::/0"], nodes)
        wires.route(end, ["default", "::/0"], routers, advmss=1460)  # or else who learns tells the other one
        wires.route(node, [wires.network(each) for each in host], inner)


#: Services by name: backend, port, node port. An even port has somebody behind it.
SERVICES = {"near": (80, 30080), "far": (90, 30090)}


def offer(world: World) -> None:
    text = ""
    for name, (port, node_port) in SERVICES.items():
        behind = SERVER if name == "far" else world.workloads["near"].addresses
        ports = [
            f"{{name: {kind}{more}, port: {port + more}, protocol: {protocol}, targetPort: {OPEN + more},"
            f" nodePort: {node_port + more}}}"
            for kind, protocol in (("t", "TCP"), ("u", "UDP"))
            for more in (0, 1)
        ]
        text += service(
            name,
            f'type: NodePort, clusterIPs: [{CLUSTER_IP[0]}, "{CLUSTER_IP[1]}"], ports: [{", ".join(ports)}],'
            " ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]",
        )
        for address in behind:
            for kind, protocol in (("t", "TCP"), ("u", "UDP")):
                for more in (0, 1):
                    made = slices(name, [address], OPEN + more, port_name=f"{kind}{more}", protocol=protocol)
                    text += made.replace(f"name: {name}-", f"name: {name}-{kind}{more}")
    world.resource("services.yaml", text)
    for name, (port, node_port) in SERVICES.items():
        behind = SERVER if name == "far" else world.workloads["near"].addresses
        for family in range(2):
            for address, number in ((CLUSTER_IP[family], port), (TO_CLIENTS[family], node_port + 1)):
                world.until_used(f"[{address}]:{number}" if family else f"{address}:{number}", behind[family])


WAYS = [
    "service near", "service far", "node port near", "node port far", "the world",
]  # fmt: skip
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])


def way(world: World, which: str, family: int) -> Way:
    caller = world.workloads["caller"]
    if which == "the world":
        return Way(caller.netns, SERVER[family], OPEN, world.hosts["far"], TO_SERVERS[family], CLOSED)
    far = which.endswith("far")
    port, node_port = SERVICES["far" if far else "near"]
    backend = world.hosts["far"] if far else world.workloads["near"].netns
    if which.startswith("service"):
        seen = TO_SERVERS[family] if far else caller.addresses[family]
        return Way(caller.netns, CLUSTER_IP[family], port, backend, seen, port + 1)
    seen = TO_SERVERS[family] if far else CLIENT[family]
    return Way(world.hosts["client"], TO_CLIENTS[family], node_port, backend, seen, node_port + 1)


def opened(at: Way, kind: socket.SocketKind) -> socket.socket:
    """The server's socket."""
    made = within(at.backend, lambda: listen(kind, OPEN))
    made.settimeout(5)
    return made


def told(of: socket.socket) -> wires.SocketError:
    """The error that a socket is told of."""
    waiting = select.poll()
    waiting.register(of, 0)
    assert waiting.poll(5000), "nobody told of an error"
    return wires.next_error(of)


@FAMILIES
@pytest.mark.parametrize("which", WAYS)
def test_large_transfers_find_the_narrow_path(world: World, which: str, family: int) -> None:
    """Both ways. Who has the narrow path before him learns of it by an error about what he sent, as he sent it."""
    at = way(world, which, family)
    with (
        opened(at, socket.SOCK_STREAM) as listening,
        wires.connected(at.client, at.address, at.port) as client,
    ):
        server, peer = listening.accept()
        with server:
            assert wires.plain(peer[0]) == at.seen
            wires.transfer(client, server, 300_000)
            wires.transfer(server, client, 300_000)
            assert wires.path_mtu(client) == (1500 if which.endswith("near") else wires.NARROW)
            if which.startswith("node port"):
                assert wires.path_mtu(server) == wires.NARROW


@FAMILIES
@pytest.mark.parametrize("which", ["service far", "node port far", "the world"])
def test_a_datagram_too_large_is_told_of(world: World, which: str, family: int) -> None:
    """By the router, about the address that was asked."""
    at = way(world, which, family)
    with wires.connected(at.client, at.address, at.closed, udp=True) as client:
        wires.errors(client)
        wires.whole(client)
        if wires.path_mtu(client) == 1500:  # nobody of this namespace was told of it before
            client.send(bytes(1440))
            error = told(client)
            assert (error.number, error.info) == (errno.EMSGSIZE, wires.NARROW)
            assert (error.offender, error.address, error.port) == (
                FROM_SERVERS[family],
                at.address,
                at.closed,
            )
        assert wires.path_mtu(client) == wires.NARROW


@FAMILIES
@pytest.mark.parametrize("which", WAYS)
def test_a_closed_port_refuses_in_the_name_of_who_was_asked(world: World, which: str, family: int) -> None:
    at = way(world, which, family)
    with wires.connected(at.client, at.address, at.closed, udp=True) as client:
        wires.errors(client)
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
        error = wires.next_error(client)
        assert (error.offender, error.address, error.port) == (at.address, at.address, at.closed)


@FAMILIES
@pytest.mark.parametrize("which", WAYS)
def test_large_datagrams_go_in_fragments(world: World, which: str, family: int) -> None:
    """There and back, every fragment by the ports that the first one had. The last one may be as short as a byte."""
    at = way(world, which, family)
    for size in (4000, 2 * (1480 if family == 0 else 1448) - 8 + 1):
        there_and_back(at, LARGE[:size])


def there_and_back(at: Way, data: bytes) -> None:
    with (
        opened(at, socket.SOCK_DGRAM) as server,
        wires.connected(at.client, at.address, at.port, udp=True) as client,
    ):
        got, peer = wires.sent(lambda: client.send(data), server)
        assert (got, wires.plain(peer[0])) == (data, at.seen)
        got, _ = wires.sent(lambda: server.sendto(data[::-1], peer), client)
        assert got == data[::-1]


@FAMILIES
def test_xdp_takes_datagrams_and_leaves_fragments(world: World, family: int) -> None:
    """Those of one flow: what the classifiers translate goes on as what XDP does. Without XDP all is theirs."""
    at = way(world, "node port far", family)
    there_and_back(at, b"small")  # all neighbours are known now
    with tap(world.node.netns, "clients") as clients, tap(world.node.netns, "servers") as servers:
        there_and_back(at, b"small")
        small = [clients.seen(CLIENT[family])["UDP"], servers.seen(SERVER[family])["UDP"]]
        assert small == ([0, 0] if by_xdp(world) else [1, 1])
        there_and_back(at, LARGE)
        assert clients.seen(CLIENT[family])["fragment"] >= 3
        assert servers.seen(SERVER[family])["fragment"] >= 3


@FAMILIES
@pytest.mark.parametrize("which", WAYS)
def test_the_first_fragment_must_be_the_first(world: World, which: str, family: int) -> None:
    """It alone has the ports. One that comes before it is lost, and its datagram with it; the order behind it is free."""
    at = way(world, which, family)
    with opened(at, socket.SOCK_DGRAM) as server, wires.raw(at.client, at.address) as client:
        for number, order in enumerate(([1, 0, 2], [2, 1, 0], [0, 2, 1], [0, 1, 2])):
            data = bytes([number]) * 1200
            pieces = wires.datagram_in_fragments(client, at.address, at.port, data, identifier=number + 1)
            for place in order:
                client.send(pieces[place])
        for number in (2, 3):
            assert server.recv(8192) == bytes([number]) * 1200
    if which.startswith(("service", "the world")):
        counters = world.node.axoneme("datapath", "counters").stdout
        assert "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND" in counters


@FAMILIES
@pytest.mark.parametrize("which", ["node port near", "node port far"])
def test_what_is_of_another_network_or_claims_to_be_the_node_is_not_served(
    world: World, which: str, family: int
) -> None:
    """A frame of a VLAN, and one from the node's own address; the same from the client is."""
    at = way(world, which, family)
    near, node, client = world.workloads["near"].addresses[family], TO_CLIENTS[family], CLIENT[family]
    to = wires.mac(world.node.netns, "clients")
    with opened(at, socket.SOCK_DGRAM) as server, wires.frames(world.hosts["clients"], "node") as cable:
        cable.send(wires.frame(to, client, at.address, at.port, b"of a VLAN", vlan=7))
        cable.send(wires.frame(to, node, at.address, at.port, b"forged"))
        cable.send(wires.frame(to, near, at.address, at.port, b"forged"))
        cable.send(wires.frame(to, client, at.address, at.port, b"plain"))
        data, peer = server.recvfrom(100)
        assert (data, wires.plain(peer[0])) == (b"plain", at.seen)
