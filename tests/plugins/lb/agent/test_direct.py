"""Direct server return with real packets: two nodes of one network, a router, and a client behind it.

Each scene with XDP in front, and with the classifiers alone.
"""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
import wires
from attrs import frozen
from edge_wire import as_a_wire
from lb_agents import PORT, World, place
from lb_scenes import service, slices
from taps import by_xdp, tap

from axoneme.core.testing.namespaces import Namespaces, ask, listen, within
from axoneme.core.testing.node import Node
from axoneme.core.testing.traffic import Traffic, mesh

pytestmark = pytest.mark.kernel

CLIENT = ("192.0.2.10", "2001:db8:2::10")
CLIENTS_ROUTER = ("192.0.2.1", "2001:db8:2::1")
ROUTER = ("198.51.100.1", "2001:db8:1::1")
NODES = {"first": ("198.51.100.2", "2001:db8:1::2"), "second": ("198.51.100.3", "2001:db8:1::3")}
POOLS = {"first": ("10.244.0.0/24", "fd00:244::/64"), "second": ("10.245.0.0/24", "fd00:245::/64")}
VIP = ("203.0.113.5", "2001:db8:80::5")
#: The port of the backends of the services at ports 81 and 82.
FAR = 9000


@frozen
class Pair:
    """Both nodes, each with a server that answers with its node's name, and the namespaces of client and router.

    :param switch: where the first node is at `port1`, the second at `port2`.
    """

    worlds: dict[str, World]
    client: str
    router: str
    switch: str

    def ask(self, address: str, times: int, *, udp: bool = False) -> Counter[str]:
        def one() -> str:
            try:
                return ask(self.client, address, 80, udp=udp, timeout=3).decode()
            except OSError:
                return ""

        return Counter(one() for _ in range(times))


def plug_in(lan: str, port: str, netns: str, device: str, addresses: tuple[str, str]) -> None:
    """A cable from a host to a port of the network's switch."""
    from pyroute2 import NetNS

    with NetNS(lan) as switch:
        switch.link("add", ifname=port, kind="veth", peer={"ifname": device, "net_ns_fd": netns})
        index, bridge = switch.link_lookup(ifname=port)[0], switch.link_lookup(ifname="switch")[0]
        switch.link("set", index=index, master=bridge, state="up")
    with NetNS(netns) as host:
        index = host.link_lookup(ifname=device)[0]
        host.addr("add", index=index, address=addresses[0], prefixlen=24)
        host.addr("add", index=index, address=addresses[1], prefixlen=64, flags=0x02)
        host.link("set", index=index, state="up")
    within(lan, lambda: as_a_wire(port))


def make_node(name: str, xdp: bool) -> Node:
    pools = dict(zip(("ipv4", "ipv6"), POOLS[name], strict=True))
    native = list(POOLS["first"] + POOLS["second"])
    lb = {"forwarding": "dsr", "maglev_size": 1021, "native": native, "xdp": xdp}
    return Node(
        {"plugins": {"enabled": ["lb"], "lb": lb}, "datapath": {"devices": ["uplink"]}, "pools": pools}
    )


@pytest.fixture(scope="module", params=[True, False], ids=["xdp", "classifier"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    from pyroute2 import NetNS

    xdp = request.param
    with Namespaces() as netns, make_node("first", xdp) as first, make_node("second", xdp) as second:
        lan, client, router = netns.make("lan"), netns.make("out"), netns.make("router")
        with NetNS(lan) as switch:
            switch.link("add", ifname="switch", kind="bridge")
            switch.link("set", index=switch.link_lookup(ifname="switch")[0], state="up")
        wires.cable(router, "clients", CLIENTS_ROUTER, client, "cable", CLIENT)
        wires.forwarding(router)
        wires.narrow(router, "clients", CLIENT)
        plug_in(lan, "port0", router, "nodes", ROUTER)
        wires.wired(router, "nodes")
        worlds = {}
        for number, (name, node) in enumerate({"first": first, "second": second}.items(), 1):
            plug_in(lan, f"port{number}", node.netns, "uplink", NODES[name])
            worlds[name] = World(node=node, netns=netns)
            wires.route(node.netns, [wires.network(CLIENT[0]), wires.network(CLIENT[1])], ROUTER)
        wires.route(first.netns, POOLS["second"], NODES["second"])
        wires.route(second.netns, POOLS["first"], NODES["first"])
        wires.route(client, ["default", "::/0"], CLIENTS_ROUTER)
        wires.route(router, [wires.host(vip) for vip in VIP], NODES["first"])
        for name, world in worlds.items():
            world.node.start()
            world.workload("server", app="web")
            for serve in (netns.serve_tcp, netns.serve_udp):
                kind = "tcp" if serve == netns.serve_tcp else "udp"
                answer = name.encode()
                world.servers["server", kind] = serve(
                    world.workloads["server"].netns,
                    PORT,
                    lambda _, answer=answer: answer,  # type: ignore[misc]
                )
        offer(worlds)
        yield Pair(worlds, client, router, lan)


def offer(worlds: dict[str, World]) -> None:
    """The same services on both nodes, as a cluster would tell them: `web`, `kept` and `wide` on both, `far` on the second alone."""
    ports = (
        "ports: [{name: t, port: 80, targetPort: 8080}, {name: u, port: 80, protocol: UDP, targetPort: 8080}]"
    )
    families = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]"
    text = service("web", f'{families}, externalIPs: [{VIP[0]}, "{VIP[1]}"], {ports}')
    for family in range(2):
        addresses = [world.workloads["server"].addresses[family] for world in worlds.values()]
        text += slices("web", addresses, port_name="t")
        text += slices("web", addresses, port_name="u", protocol="UDP").replace("name: web-", "name: web-u")
    text += (
        text.replace("name: web", "name: kept")
        .replace("service-name: web", "service-name: kept")
        .replace("port: 80,", "port: 83,")
        .replace("spec: {", "spec: {sessionAffinity: ClientIP, ", 1)
    )
    far = worlds["second"].workloads["server"].addresses
    ports = (
        "ports: [{name: t, port: 81, targetPort: 9000, nodePort: 30081},"
        " {name: u, port: 81, protocol: UDP, targetPort: 9000, nodePort: 30081}]"
    )
    text += service("far", f'type: NodePort, {families}, externalIPs: [{VIP[0]}, "{VIP[1]}"], {ports}')
    for address in far:
        text += slices("far", [address], FAR, port_name="t")
        text += slices("far", [address], FAR, port_name="u", protocol="UDP").replace(
            "name: far-", "name: far-u"
        )
    ports = (
        "ports: [{name: t, port: 82, targetPort: 9000}, {name: u, port: 82, protocol: UDP, targetPort: 9000}]"
    )
    text += service("wide", f'{families}, externalIPs: [{VIP[0]}, "{VIP[1]}"], {ports}')
    for family in range(2):
        addresses = [world.workloads["server"].addresses[family] for world in worlds.values()]
        text += slices("wide", addresses, FAR, port_name="t")
        text += slices("wide", addresses, FAR, port_name="u", protocol="UDP").replace(
            "name: wide-", "name: wide-u"
        )
    for world in worlds.values():
        world.resource("web.yaml", text)
    for world in worlds.values():
        for family, vip in enumerate(VIP):
            backends = [one.workloads["server"].addresses[family] for one in worlds.values()]
            world.until_used(f"[{vip}]:80" if family else f"{vip}:80", *backends)
            world.until_used(f"[{vip}]:81" if family else f"{vip}:81", far[family])
            world.until_used(f"[{vip}]:82" if family else f"{vip}:82", *backends)
            world.until_used(f"[{vip}]:83" if family else f"{vip}:83", *backends)


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_both_nodes_answer_and_see_the_client(pair: Pair, family: int, udp: bool) -> None:
    """From the very first connection on, whether the nodes know each other as neighbours or not."""
    answers = pair.ask(VIP[family], 24, udp=udp)
    assert answers.keys() == {"first", "second"}, answers
    kind = "udp" if udp else "tcp"
    for world in pair.worlds.values():
        assert world.servers["server", kind].seen[-1] == CLIENT[family]


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_answers_do_not_come_by_the_first_node(pair: Pair, family: int) -> None:
    """What leaves each node: the first one sends on what was asked, and the second one all that is answered."""
    with (
        tap(pair.switch, "port1") as first,
        tap(pair.switch, "port2") as second,
        far_socket(pair, socket.SOCK_STREAM) as listening,
        far_socket(pair, socket.SOCK_DGRAM) as receiving,
        wires.connected(pair.client, VIP[family], 81) as client,
        wires.connected(pair.client, VIP[family], 81, udp=True) as asking,
    ):
        receiving.settimeout(5)
        server, _ = listening.accept()
        with server:
            for number in range(20):  # small ones: nobody is to learn of the path
                server.sendall(bytes([number]))
                assert client.recv(10) == bytes([number])
        asking.send(b"?")
        _, peer = receiving.recvfrom(10)
        for _ in range(9):
            receiving.sendto(b"!", peer)
        assert [asking.recv(10) for _ in range(9)] == [b"!"] * 9
        sent, answered = first.seen(VIP[family]), second.seen(VIP[family])
    assert sent["SYN"] > 0
    assert sent["ACK"] > 0
    assert sent["UDP"] == 1
    assert sent["SYN-ACK"] == sent["data"] == 0, sent
    assert answered["SYN-ACK"] > 0
    assert answered["data"] >= 20
    assert answered["UDP"] == 9
    assert answered["SYN"] == 0, answered
    known = {
        name: world.node.axoneme("bpf", "ct", "list", "global", "--address", CLIENT[family]).stdout
        for name, world in pair.worlds.items()
    }
    far = place(pair.worlds["second"].workloads["server"].addresses[family], FAR)
    assert far in known["second"]
    assert far not in known["first"], "it remembers whom it gave a connection to, and nothing else of it"
    ways = pair.worlds["first"].node.axoneme("bpf", "map", "dump", f"lb_ways{6 if family else 4}").stdout
    assert CLIENT[family] in ways


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_client_keeps_its_backend_whichever_node_it_asks(pair: Pair, family: int) -> None:
    """Session affinity follows from the client's address alone, since nodes do not tell each other of their clients."""
    clients = [f"{'2001:db8:2::2' if family else '192.0.2.2'}{number:02}" for number in range(12)]

    def answers() -> dict[tuple[str, bool], set[str]]:
        def by(own: str, udp: bool) -> set[str]:
            return {wires.asked(pair.client, VIP[family], 83, udp=udp, own=own) for _ in range(4)}

        return {(one, udp): by(one, udp) for one in clients for udp in (False, True)}

    with also(pair.client, "cable", clients):
        kept = answers()
        assert all(len(each) == 1 for each in kept.values()), kept
        assert set().union(*kept.values()) == {"first", "second"}, "each client has its own"
        reached_by(pair, family, "second")
        try:
            assert answers() == kept
        finally:
            reached_by(pair, family, "first")


@contextlib.contextmanager
def also(netns: str, device: str, addresses: Sequence[str]) -> Iterator[None]:
    """A host has these addresses as well."""
    from pyroute2 import NetNS

    with NetNS(netns) as host:
        index = host.link_lookup(ifname=device)[0]
        for address in addresses:
            prefix, flags = (64, 0x02) if ":" in address else (24, 0)
            host.addr("add", index=index, address=address, prefixlen=prefix, flags=flags)
        yield
        for address in addresses:
            host.addr("del", index=index, address=address, prefixlen=64 if ":" in address else 24)


def reached_by(pair: Pair, family: int, node: str) -> None:
    """The services' address is at this node, as far as the router knows."""
    from pyroute2 import NetNS

    with NetNS(pair.router) as router:
        router.route("replace", dst=wires.host(VIP[family]), gateway=NODES[node][family])


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_xdp_takes_all_that_is_for_the_other_node(pair: Pair, family: int, udp: bool) -> None:
    """Nothing of it comes to the first node's stack; without XDP all of it does. What is for its own backend always does."""
    first, protocol = pair.worlds["first"], "udp" if udp else "tcp"
    pair.ask(VIP[family], 24, udp=udp)  # all neighbours are known now
    with tap(first.node.netns, "uplink") as uplink:
        before = len(first.servers["server", protocol].seen)
        answers = pair.ask(VIP[family], 24, udp=udp)
        here = len(first.servers["server", protocol].seen) - before
        seen = uplink.seen(VIP[family])
    assert answers["first"] == here
    assert seen["UDP" if udp else "SYN"] == (here if by_xdp(first) else 24)


def test_either_agent_is_killed_and_comes_back_and_nobody_misses_it(pair: Pair) -> None:
    """New connections and those that live all the time, with backends on both nodes: not one request fails."""
    servers = [(world.workloads["server"].netns, FAR) for world in pair.worlds.values()]
    flows = [*mesh(pair.client, VIP, 81, interval=0.02), *mesh(pair.client, VIP, 82, interval=0.02)]
    with Traffic(servers=servers, flows=flows) as traffic:
        for world in pair.worlds.values():
            world.node.kill9()
            traffic.more(10)
            world.node.start()
            traffic.more(10)
    traffic.check()


# What routers and clients have to say of answers that they never sent to the first node's connections.


def far_socket(pair: Pair, kind: socket.SocketKind) -> socket.socket:
    return within(pair.worlds["second"].workloads["server"].netns, lambda: listen(kind, FAR))


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_large_answer_finds_the_narrow_path(pair: Pair, family: int) -> None:
    """The router's error comes to the first node and is about a packet of the second one's, which learns of it."""
    with (
        far_socket(pair, socket.SOCK_STREAM) as listening,
        wires.connected(pair.client, VIP[family], 81) as client,
    ):
        server, peer = listening.accept()
        with server:
            assert CLIENT[family] in peer[0]
            assert wires.path_mtu(server) == 1500
            wires.transfer(server, client, 300_000)
            assert wires.path_mtu(server) == wires.NARROW


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_clients_refusal_reaches_the_server(pair: Pair, family: int) -> None:
    """An answer to a socket that is gone meanwhile."""
    with far_socket(pair, socket.SOCK_DGRAM) as server:
        server.settimeout(3)
        with wires.connected(pair.client, VIP[family], 81, udp=True) as client:
            client.send(b"?")
            _, peer = server.recvfrom(100)
        server.connect(peer)
        server.send(b"!")
        with pytest.raises(ConnectionRefusedError):
            server.recv(100)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_closed_port_is_said_in_the_services_name(pair: Pair, family: int) -> None:
    """The backend's refusal goes to the client by itself, as the service's."""
    with wires.connected(pair.client, VIP[family], 81, udp=True) as client:
        wires.errors(client)
        client.send(b"?")
        with pytest.raises(ConnectionRefusedError):
            client.recv(100)
        error = wires.next_error(client)
        assert (error.offender, error.address, error.port) == (VIP[family], VIP[family], 81)


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_large_datagrams_go_in_fragments(pair: Pair, family: int) -> None:
    data = bytes(range(250)) * 16
    with (
        far_socket(pair, socket.SOCK_DGRAM) as server,
        wires.connected(pair.client, VIP[family], 81, udp=True) as client,
    ):
        got, peer = wires.sent(lambda: client.send(data), server)
        assert got == data
        assert CLIENT[family] in peer[0]
        assert wires.sent(lambda: server.sendto(data[::-1], peer), client)[0] == data[::-1]


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_nodes_own_address_goes_by_that_node(pair: Pair, family: int) -> None:
    """The backend's node knows no service there, and nobody but the node itself may answer for it."""
    with (
        far_socket(pair, socket.SOCK_STREAM) as listening,
        wires.connected(pair.client, NODES["first"][family], 30081) as client,
    ):
        server, peer = listening.accept()
        with server:
            assert NODES["first"][family] in peer[0]
            wires.transfer(server, client, 300_000)
