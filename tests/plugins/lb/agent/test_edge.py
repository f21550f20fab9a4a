"""The node's edge with real packets: services for the outside, backends elsewhere, and workloads that call the world.

Each scene with XDP in front, and with the classifiers alone.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from edge_wire import as_a_wire
from lb_agents import PORT, World, place
from lb_scenes import service, slices
from taps import by_xdp, tap

from axoneme.core.testing.namespaces import Namespaces, within
from axoneme.core.testing.node import Node, Placed

pytestmark = pytest.mark.kernel

#: Two networks beyond two of the node's devices, with a client in one and a server, which is some services' backend, in the
#: other: the node's address there, and theirs.
CLIENT = ("198.51.100.1", "2001:db8:1::1")
CLIENTS_NODE = ("198.51.100.2", "2001:db8:1::2")
SERVER = ("192.0.2.50", "2001:db8:2::50")
NODE = ("192.0.2.2", "2001:db8:2::2")
#: Addresses that services get, by pool.
VIPS = ("203.0.113.0/28", "2001:db8:80::/124")

POOL = f"""\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {{name: outside}}
spec: {{blocks: [{{cidr: {VIPS[0]}}}, {{cidr: "{VIPS[1]}"}}]}}
---
"""


def connect(node: str, other: str, device: str, near: tuple[str, str], far: tuple[str, str]) -> None:
    """A cable from a device of the node to another host."""
    from pyroute2 import NetNS

    with NetNS(node) as here:
        here.link("add", ifname=device, kind="veth", peer={"ifname": "cable", "net_ns_fd": other})
    for name, end, (four, six) in ((node, device, near), (other, "cable", far)):
        with NetNS(name) as netns:
            index = netns.link_lookup(ifname=end)[0]
            netns.addr("add", index=index, address=four, prefixlen=24)
            netns.addr("add", index=index, address=six, prefixlen=64, flags=0x02)
            netns.link("set", index=index, state="up")
    within(other, lambda: as_a_wire("cable"))


@pytest.fixture(scope="module", params=[True, False], ids=["xdp", "classifier"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    values = {
        "plugins": {"enabled": ["lb"], "lb": {"algorithm": "round-robin", "xdp": request.param}},
        "datapath": {"devices": ["clients", "servers"]},
        "node": {"name": "here"},
    }
    with Node(values) as node, Namespaces() as netns:
        outside, far = netns.make("out"), netns.make("far")
        connect(node.netns, outside, "clients", CLIENTS_NODE, CLIENT)
        connect(node.netns, far, "servers", NODE, SERVER)
        _route(outside)
        node.start()
        made = World(node=node, netns=netns)
        made.workloads["outside"] = Placed(
            name="outside", netns=outside, ipv4=CLIENT[0], ipv6=CLIENT[1], row={}
        )
        made.workloads["far"] = Placed(name="far", netns=far, ipv4=SERVER[0], ipv6=SERVER[1], row={})
        made.serve("far", PORT)
        made.server("web-0", app="web")
        made.workload("client", app="client")
        made.resource("pool.yaml", POOL)
        yield made


def _route(outside: str) -> None:
    from pyroute2 import NetNS

    with NetNS(outside) as netns:
        for vip, via in zip(VIPS, CLIENTS_NODE, strict=True):
            netns.route("add", dst=vip, gateway=via)


def lb_addresses(world: World, name: str) -> list[str]:
    def given() -> list[str]:
        rows = world.node.call("service.get", service=name)
        found = {
            row["frontend"].rpartition(":")[0].strip("[]") for row in rows if row["type"] == "LoadBalancer"
        }
        return sorted(found) if len(found) == 2 else []

    addresses: list[str] = world.node.until(given, "addresses from the pool")
    return addresses


def make(world: World, name: str, *, far: bool, near: bool, more: str = "") -> None:
    backends = [[] for _ in range(2)]
    for family in range(2):
        if near:
            backends[family].append(world.workloads["web-0"].addresses[family])
        if far:
            backends[family].append(SERVER[family])
    ports = (
        "ports: [{name: t, port: 80, targetPort: 8080}, {name: u, port: 80, protocol: UDP, targetPort: 8080}]"
    )
    text = service(
        name, f"type: LoadBalancer, ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6], {ports}{more}"
    )
    for addresses in backends:
        text += slices(name, addresses, port_name="t")
        text += slices(name, addresses, port_name="u", protocol="UDP").replace(
            f"name: {name}-", f"name: {name}-u"
        )
    world.resource(f"{name}.yaml", text)


def seen(world: World, name: str, kind: str) -> str:
    return world.servers[name, kind].seen[-1]


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_a_backend_elsewhere(world: World, udp: bool) -> None:
    """It sees the node, so that its answers come back by it."""
    make(world, "elsewhere", far=True, near=False)
    for address in lb_addresses(world, "elsewhere"):
        family = ":" in address
        world.until_used(place(address, 80), SERVER[family])
        assert world.spread("outside", address, 80, 6, udp=udp) == {"far": 6}
        assert seen(world, "far", "udp" if udp else "tcp") == NODE[family]


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_xdp_takes_what_is_for_a_backend_elsewhere(world: World, udp: bool) -> None:
    """It does not come to the stack, but for what begins and ends TCP's answers and connections. Without XDP all of it does."""
    make(world, "taken", far=True, near=False)
    for address in lb_addresses(world, "taken"):
        family = ":" in address
        world.until_used(place(address, 80), SERVER[family])
        assert world.ask("outside", address, 80, udp=udp) == "far"  # both neighbours are known now
        with tap(world.node.netns, "clients") as clients, tap(world.node.netns, "servers") as servers:
            assert world.spread("outside", address, 80, 4, udp=udp) == {"far": 4}
            asked, answered = clients.seen(address), servers.seen(SERVER[family])
        if by_xdp(world):
            assert not asked.keys() & {"SYN", "data", "UDP"}
            assert not answered.keys() & {"data", "UDP"}
        elif udp:
            assert asked == answered == {"UDP": 4}
        else:
            assert asked["SYN"] == asked["data"] == answered["SYN-ACK"] == answered["data"] == 4


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_a_backend_here_sees_the_client(world: World, udp: bool) -> None:
    make(world, "here", far=False, near=True)
    for address in lb_addresses(world, "here"):
        family = ":" in address
        world.until_used(place(address, 80), world.workloads["web-0"].addresses[family])
        assert world.spread("outside", address, 80, 6, udp=udp) == {"web-0": 6}
        assert seen(world, "web-0", "udp" if udp else "tcp") == CLIENT[family]


def test_both_take_turns(world: World) -> None:
    """What XDP chose is not chosen again behind it."""
    make(world, "both", far=True, near=True)
    for address in lb_addresses(world, "both"):
        family = ":" in address
        world.until_used(place(address, 80), SERVER[family], world.workloads["web-0"].addresses[family])
        assert world.spread("outside", address, 80, 6) == {"far": 3, "web-0": 3}


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_workloads_reach_the_world_as_the_node(world: World, udp: bool) -> None:
    for family in range(2):
        assert world.ask("client", SERVER[family], PORT, udp=udp) == "far"
        assert seen(world, "far", "udp" if udp else "tcp") == NODE[family]


def test_a_workload_reaches_a_service_whose_backend_is_outside(world: World) -> None:
    make(world, "elsewhere", far=True, near=False)
    for address in lb_addresses(world, "elsewhere"):
        assert world.ask("client", address, 80) == "far"
        assert seen(world, "far", "tcp") == NODE[":" in address]


def test_a_large_transfer_survives(world: World) -> None:
    """Segments larger than the wire's are cut by the kernel, and their checksums are completed by it."""
    size = 3_000_000
    world.servers["bulk", "tcp"] = world.netns.serve_tcp(
        world.workloads["far"].netns, 9090, lambda _: b"x" * size
    )

    def fetch(address: str) -> int:
        with socket.create_connection((address, 9090), timeout=10) as connection:
            connection.sendall(b"?")
            got = 0
            while data := connection.recv(65536):
                got += len(data)
        return got

    for address in SERVER:
        assert within(world.workloads["client"].netns, lambda address=address: fetch(address)) == size  # type: ignore[misc]


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_a_client_keeps_its_backend(world: World, udp: bool) -> None:
    """Whichever of the two it is, and wherever."""
    make(world, "sticky", far=True, near=True, more=", sessionAffinity: ClientIP")
    for address in lb_addresses(world, "sticky"):
        family = ":" in address
        world.until_used(place(address, 80), SERVER[family], world.workloads["web-0"].addresses[family])
        (kept,) = world.spread("outside", address, 80, 6, udp=udp)
        assert kept in ("far", "web-0")


def test_node_ports_and_external_addresses(world: World) -> None:
    """At the node's address towards the clients, and at one that is routed to it."""
    external = ("203.0.113.9", "2001:db8:80::9")
    ports = (
        "ports: [{name: t, port: 80, targetPort: 8080, nodePort: 30080},"
        " {name: u, port: 80, protocol: UDP, targetPort: 8080, nodePort: 30080}]"
    )
    families = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]"
    text = service(
        "outer", f'type: NodePort, {families}, externalIPs: [{external[0]}, "{external[1]}"], {ports}'
    )
    for family in range(2):
        backends = [world.workloads["web-0"].addresses[family], SERVER[family]]
        text += slices("outer", backends, port_name="t")
        text += slices("outer", backends, port_name="u", protocol="UDP").replace("outer-", "outer-u")
    world.resource("outer.yaml", text)
    for family in range(2):
        backends = [world.workloads["web-0"].addresses[family], SERVER[family]]
        for address, port in ((external[family], 80), (CLIENTS_NODE[family], 30080)):
            world.until_used(place(address, port), *backends)
            for udp in (False, True):
                answers = world.spread("outside", address, port, 6, udp=udp)
                assert answers == {"far": 3, "web-0": 3}, (address, port, udp)


def test_only_local_backends_where_the_client_is_to_be_seen(world: World) -> None:
    make(world, "local", far=True, near=True, more=", externalTrafficPolicy: Local")
    for address in lb_addresses(world, "local"):
        family = ":" in address
        world.until_used(place(address, 80), SERVER[family], world.workloads["web-0"].addresses[family])
        for udp in (False, True):
            assert world.spread("outside", address, 80, 4, udp=udp) == {"web-0": 4}
            assert seen(world, "web-0", "udp" if udp else "tcp") == CLIENT[family]


def health(world: World, address: str, port: int) -> int:
    """What load balancers in front of the node are told: the HTTP status; 0 while nobody listens."""

    def get() -> int:
        connection = HTTPConnection(address, port, timeout=3)
        with contextlib.closing(connection), contextlib.suppress(ConnectionRefusedError):
            connection.request("GET", "/healthz")
            return connection.getresponse().status
        return 0

    return within(world.workloads["outside"].netns, get)


def test_nobody_local_is_nobody(world: World) -> None:
    """Who asks all the same is dropped, by reason, and the health check port has said before that nobody should."""
    port = 32100
    more = f", externalTrafficPolicy: Local, healthCheckNodePort: {port}"
    make(world, "deserted", far=True, near=True, more=more)
    places = sorted(lb_addresses(world, "deserted"), key=lambda address: ":" in address)
    for family, address in enumerate(CLIENTS_NODE):
        local = world.workloads["web-0"].addresses[family]
        world.until_used(place(places[family], 80), local, traffic="from outside")
        world.node.until(lambda: health(world, address, port) == 200, "the check says 200")  # noqa: B023
        assert [world.ask("outside", places[family], 80, udp=udp) for udp in (False, True)] == ["web-0"] * 2
    make(world, "deserted", far=True, near=False, more=more)
    for family, address in enumerate(CLIENTS_NODE):
        world.until_used(place(places[family], 80), traffic="from outside")
        world.node.until(lambda: health(world, address, port) == 503, "the check says 503")  # noqa: B023
        for udp in (False, True):
            before = dropped(world, "SERVICE_BACKEND_NOT_FOUND")
            assert world.ask("outside", places[family], 80, udp=udp, timeout=0.2) == ""
            assert dropped(world, "SERVICE_BACKEND_NOT_FOUND") > before
        assert world.ask("client", places[family], 80) == "far", "who is within is not outside"


def dropped(world: World, reason: str) -> int:
    """Packets from outside."""
    rows = world.node.call("datapath.counters")
    return sum(row["packets"] for row in rows if row["reason"] == reason and row["direction"] == "ingress")


def test_host_ports(world: World) -> None:
    four, six = world.workloads["web-0"].addresses
    world.resource(
        "pod.yaml",
        f"""\
apiVersion: v1
kind: Pod
metadata: {{name: web-0, namespace: default}}
spec:
  nodeName: here
  containers: [{{name: web, image: x, ports: [{{containerPort: 8080, hostPort: 8088}}, {{containerPort: 8080, hostPort: 8088, protocol: UDP}}]}}]
status: {{podIP: {four}, podIPs: [{{ip: {four}}}, {{ip: "{six}"}}]}}
""",
    )
    for family, address in enumerate(CLIENTS_NODE):
        world.until_used(place(address, 8088), (four, six)[family])
        for udp in (False, True):
            assert world.spread("outside", address, 8088, 3, udp=udp) == {"web-0": 3}
            assert seen(world, "web-0", "udp" if udp else "tcp") == CLIENT[family]


@pytest.mark.parametrize("near", [True, False], ids=["here", "elsewhere"])
def test_source_ranges(world: World, near: bool) -> None:
    """Who is not in them is dropped, and told so."""
    for name, ranges, answers in (
        ("inside", f'{CLIENT[0]}/32, "{CLIENT[1]}/128"', True),
        ("beyond", '10.0.0.0/8, "fd00::/8"', False),
    ):
        make(world, name, far=not near, near=near, more=f", loadBalancerSourceRanges: [{ranges}]")
        for address in lb_addresses(world, name):
            family = ":" in address
            backend = world.workloads["web-0" if near else "far"].addresses[family]
            world.until_used(place(address, 80), backend)
            for udp in (False, True):
                before = dropped(world, "DENIED_BY_LB_SRC_RANGE_CHECK")
                answer = world.ask("outside", address, 80, udp=udp, timeout=3 if answers else 0.2)
                assert bool(answer) is answers
                assert (dropped(world, "DENIED_BY_LB_SRC_RANGE_CHECK") == before) is answers
