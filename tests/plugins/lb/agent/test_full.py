"""What is limited is full: new connections fail with a reason that people are told, and those that are there go on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from attrs import field, frozen
from lb_agents import World
from lb_scenes import service, slices
from wires import Pair, cable, connected, route, wired

from axoneme.core.testing.namespaces import Namespaces, flood, listen, within
from axoneme.core.testing.node import Node, Placed

pytestmark = pytest.mark.kernel

CLIENT, CLIENTS_NODE = ("198.51.100.1", "2001:db8:1::1"), ("198.51.100.2", "2001:db8:1::2")
SERVER, SERVERS_NODE = ("192.0.2.50", "2001:db8:2::50"), ("192.0.2.2", "2001:db8:2::2")
VIPS: dict[str, Pair] = {
    "near": ("10.96.0.10", "fd00:96::a"),
    "far": ("203.0.113.9", "2001:db8:80::9"),
}
PORT, FLOODED, ENTRIES = 8080, 9999, 1024
FULL, NO_PORT = "CT: Map insertion failed", "No mapping for NAT masquerade"
#: Those that the node gives out (bpf/translation.h).
FIRST_PORT, LAST_PORT = 1024, 29999


@frozen
class Pipe:
    """A TCP connection, with both its ends here."""

    name: str
    asking: socket.socket = field(repr=False)
    answering: socket.socket = field(repr=False)

    def passes(self) -> None:
        """Something goes there and comes back, at once: nothing of it had to be sent again."""
        for sender, receiver in ((self.asking, self.answering), (self.answering, self.asking)):
            sender.sendall(self.name.encode())
            assert receiver.recv(100) == self.name.encode(), self.name


@frozen
class Place:
    world: World
    listening: dict[str, socket.socket]

    def opened(self, client: str, server: str, address: str, port: int, *, timeout: float = 5) -> Pipe:
        asking = connected(self.world.workloads[client].netns, address, port, timeout=timeout)
        answering, _ = self.listening[server].accept()
        answering.settimeout(5)
        asking.settimeout(5)
        return Pipe(f"{client} to {address}", asking, answering)

    def refuses(self, client: str, server: str, address: str) -> bool:
        try:
            pipe = self.opened(client, server, address, 80, timeout=0.2)
        except TimeoutError:
            return True
        pipe.asking.close()
        pipe.answering.close()
        return False

    def dropped(self, reason: str) -> float:
        rows = self.world.node.call("metrics")
        found = [row for row in rows if row["name"] == "cilium_drop_count_total"]
        return float(sum(row["value"] for row in found if row["labels"]["reason"] == reason))


@contextlib.contextmanager
def place_of(entries: int) -> Iterator[Place]:
    values = {
        "plugins": {"enabled": ["lb"], "lb": {"at_sockets": False, "backends": 1024}},
        "datapath": {
            "devices": ["clients", "servers"],
            "conntrack_entries": entries,
            "timeouts": {"gc_interval": 0.2},
        },
        "node": {"name": "here"},
    }
    with Node(values) as node, Namespaces() as netns, contextlib.ExitStack() as sockets:
        outside, far = netns.make("out"), netns.make("far")
        cable(node.netns, "clients", CLIENTS_NODE, outside, "cable", CLIENT)
        cable(node.netns, "servers", SERVERS_NODE, far, "cable", SERVER)
        wired(outside, "cable")
        wired(far, "cable")
        for family, prefix in enumerate(("203.0.113.0/24", "2001:db8:80::/64")):
            via = (CLIENTS_NODE[family], CLIENTS_NODE[family])
            route(outside, [prefix], via)
        node.start()
        world = World(node=node, netns=netns)
        world.workloads["outside"] = Placed(name="outside", netns=outside, ipv4="", ipv6="", row={})
        world.workloads["far"] = Placed(name="far", netns=far, ipv4=SERVER[0], ipv6=SERVER[1], row={})
        for name in ("client", "near"):
            world.workload(name)
        listening = {
            name: sockets.enter_context(
                within(world.workloads[name].netns, lambda: listen(socket.SOCK_STREAM, PORT))
            )
            for name in ("near", "far")
        }
        for each in listening.values():
            each.settimeout(5)
        _services(world)
        yield Place(world, listening)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with place_of(ENTRIES) as made:
        yield made


def _services(world: World) -> None:
    both = "ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv4, IPv6], ports: [{name: t, port: 80, targetPort: 8080}]"
    near, far = VIPS["near"], VIPS["far"]
    text = service("near", f'clusterIPs: ["{near[0]}", "{near[1]}"], {both}')
    text += service("far", f'externalIPs: ["{far[0]}", "{far[1]}"], {both}')
    for name in VIPS:
        for address in world.workloads[name].addresses:
            text += slices(name, [address], PORT, port_name="t")
    world.resource("services.yaml", text)
    for name, vips in VIPS.items():
        for family, vip in enumerate(vips):
            world.until_used(
                f"[{vip}]:80" if family else f"{vip}:80", world.workloads[name].addresses[family]
            )


def pipes(place: Place) -> Iterator[Pipe]:
    """Straight to a workload, by a service to a workload, and by XDP from outside to a backend elsewhere."""
    for family in range(2):
        yield place.opened("client", "near", place.world.workloads["near"].addresses[family], PORT)
        yield place.opened("client", "near", VIPS["near"][family], 80)
        yield place.opened("outside", "far", VIPS["far"][family], 80)


def test_the_connection_table(place: Place) -> None:
    node, lasting = place.world.node, [*pipes(place)]
    client, near = place.world.workloads["client"], place.world.workloads["near"]

    def flooding() -> None:
        for address in near.addresses:
            flood(client.netns, address, FLOODED, 8_000)

    with ThreadPoolExecutor() as pool:
        done = pool.submit(flooding)
        refused = []
        for family, name in enumerate(("IPv4", "IPv6")):  # the tables are flooded one after the other
            node.until(
                lambda n=name: any(f"{n} is full" in told for told in node.problems()), "the status says so"
            )  # type: ignore[misc]
            refused.append([place.refuses("outside", "far", VIPS["far"][family]) for _ in range(5)])
            refused.append([place.refuses("client", "near", VIPS["near"][family]) for _ in range(5)])
        while not done.done():
            for pipe in lasting:
                pipe.passes()
        done.result()
    assert all(any(each) for each in refused), "from outside and from a workload, by both families"
    assert node.metric("axoneme_connections_evicted_total") == 0
    node.until(lambda: not node.problems(), "all is well again")
    assert place.dropped(FULL) == node.metric("axoneme_connections_refused_total") > 1_000
    for name, client_name in (("far", "outside"), ("near", "client")):
        for vip in VIPS[name]:
            node.until(lambda n=name, c=client_name, v=vip: not place.refuses(c, n, v), "new ones, too")  # type: ignore[misc]
    for pipe in lasting:
        pipe.passes()
        pipe.asking.close()
        pipe.answering.close()


def test_the_map_of_backends(place: Place) -> None:
    """A service that does not fit has none, and says which setting it is; the others have what they had."""
    node, lasting = place.world.node, [*pipes(place)]
    vip = "10.96.0.77"
    many = [f"198.18.{number // 250}.{number % 250 + 1}" for number in range(1100)]
    spec = f"clusterIPs: [{vip}], ports: [{{name: t, port: 80, targetPort: 8080}}]"
    text = service("many", spec) + slices("many", many[:600], PORT, port_name="t")
    text += slices("many", many[600:], PORT, port_name="t").replace("name: many-4", "name: many-4-more")
    place.world.resource("many.yaml", text)
    (told,) = node.until(node.problems, "the status says so")
    assert "default/many" in told
    assert "lb.backends" in told
    refused = [row for row in node.call("metrics") if row["name"] == "axoneme_lb_refused_services"]
    assert [(row["labels"]["limit"], row["value"]) for row in refused] == [("backends", 1)]
    before = place.dropped("Service backend not found")
    with pytest.raises(TimeoutError):
        place.opened("client", "near", vip, 80, timeout=0.3)
    assert place.dropped("Service backend not found") > before
    for pipe in [*lasting, *pipes(place)]:
        pipe.passes()
        pipe.asking.close()
        pipe.answering.close()
    (node.resources / "many.yaml").unlink()
    node.until(lambda: not node.problems(), "all is well again")


def asks(udp: socket.socket) -> bool:
    udp.send(b"?")
    with contextlib.suppress(TimeoutError):
        return bool(udp.recv(100))
    return False


def test_the_ports_towards_one_server() -> None:
    """Each port that the node gives out has a flow to one place; there is none for another, and that is counted to the packet."""
    with place_of(131_072) as place:
        node, client = place.world.node, place.world.workloads["client"]
        place.world.netns.serve_udp(place.world.workloads["far"].netns, FLOODED)
        for family, server in enumerate(SERVER):
            lasting = place.opened("client", "far", server, PORT)
            with connected(client.netns, server, FLOODED, udp=True) as known:
                assert asks(known)
                flood(
                    client.netns,
                    server,
                    FLOODED,
                    LAST_PORT - FIRST_PORT + 1,
                    per_second=1_000_000,
                    first=FIRST_PORT,
                )
                before = place.dropped(NO_PORT)
                for _ in range(10):
                    with connected(client.netns, server, FLOODED, udp=True, timeout=0.05) as late:
                        assert not asks(late), ("IPv4", "IPv6")[family]
                assert place.dropped(NO_PORT) == before + 10
                (told,) = node.until(node.problems, "the status says so")
                assert "found no free port" in told
                known.settimeout(5)
                assert asks(known)
                lasting.passes()
            place.opened("client", "far", server, PORT).passes()  # another place has its own ports
