"""Direct server return with real packets: two nodes of one network, and a client that knows only the first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from attrs import frozen
from edge_wire import as_a_wire
from lb_agents import PORT, World
from lb_scenes import service, slices

from axoneme.core.testing.namespaces import Namespaces, ask, within
from axoneme.core.testing.node import Node

pytestmark = pytest.mark.kernel

CLIENT = ("198.51.100.1", "2001:db8:1::1")
NODES = {"first": ("198.51.100.2", "2001:db8:1::2"), "second": ("198.51.100.3", "2001:db8:1::3")}
POOLS = {"first": ("10.244.0.0/24", "fd00:244::/64"), "second": ("10.245.0.0/24", "fd00:245::/64")}
VIP = ("203.0.113.5", "2001:db8:80::5")


@frozen
class Pair:
    """Both nodes, each with a server that answers with its node's name, and the client's namespace."""

    worlds: dict[str, World]
    client: str

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


def route(netns: str, prefixes: tuple[str, str], via: tuple[str, str]) -> None:
    from pyroute2 import NetNS

    with NetNS(netns) as host:
        for prefix, gateway in zip(prefixes, via, strict=True):
            host.route("add", dst=prefix, gateway=gateway)


def make_node(name: str) -> Node:
    pools = dict(zip(("ipv4", "ipv6"), POOLS[name], strict=True))
    lb = {"forwarding": "dsr", "maglev_size": 1021, "native": list(POOLS["first"] + POOLS["second"])}
    return Node(
        {"plugins": {"enabled": ["lb"], "lb": lb}, "datapath": {"devices": ["uplink"]}, "pools": pools}
    )


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    from pyroute2 import NetNS

    with Namespaces() as netns, make_node("first") as first, make_node("second") as second:
        lan, client = netns.make("lan"), netns.make("out")
        with NetNS(lan) as switch:
            switch.link("add", ifname="switch", kind="bridge")
            switch.link("set", index=switch.link_lookup(ifname="switch")[0], state="up")
        plug_in(lan, "port0", client, "cable", CLIENT)
        within(client, lambda: as_a_wire("cable"))
        worlds = {}
        for number, (name, node) in enumerate({"first": first, "second": second}.items(), 1):
            plug_in(lan, f"port{number}", node.netns, "uplink", NODES[name])
            worlds[name] = World(node=node, netns=netns)
        route(first.netns, POOLS["second"], NODES["second"])
        route(client, tuple(f"{vip}/{128 if ':' in vip else 32}" for vip in VIP), NODES["first"])  # type: ignore[arg-type]
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
        yield Pair(worlds, client)


def offer(worlds: dict[str, World]) -> None:
    """The same service on both nodes, as a cluster would tell them."""
    ports = (
        "ports: [{name: t, port: 80, targetPort: 8080}, {name: u, port: 80, protocol: UDP, targetPort: 8080}]"
    )
    families = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6]"
    text = service("web", f'{families}, externalIPs: [{VIP[0]}, "{VIP[1]}"], {ports}')
    for family in range(2):
        addresses = [world.workloads["server"].addresses[family] for world in worlds.values()]
        text += slices("web", addresses, port_name="t")
        text += slices("web", addresses, port_name="u", protocol="UDP").replace("name: web-", "name: web-u")
    for world in worlds.values():
        world.resource("web.yaml", text)
    for world in worlds.values():
        for family, vip in enumerate(VIP):
            backends = [one.workloads["server"].addresses[family] for one in worlds.values()]
            world.until_used(f"[{vip}]:80" if family else f"{vip}:80", *backends)


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_both_nodes_answer_and_see_the_client(pair: Pair, family: int, udp: bool) -> None:
    """The first connection may still go by the first node's own address, until that knows its neighbour."""
    pair.ask(VIP[family], 4, udp=udp)
    answers = pair.ask(VIP[family], 24, udp=udp)
    assert answers.keys() == {"first", "second"}, answers
    kind = "udp" if udp else "tcp"
    for world in pair.worlds.values():
        assert world.servers["server", kind].seen[-1] == CLIENT[family]


def test_answers_do_not_come_by_the_first_node(pair: Pair) -> None:
    """It remembers whom it gave a connection to, and nothing else of it."""
    pair.ask(VIP[0], 24)
    ways = pair.worlds["first"].node.axoneme("bpf", "map", "dump", "lb_ways4").stdout
    assert CLIENT[0] in ways
