"""Clients that keep their backend (sessionAffinity), and connections whose backend is about to leave."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence

import pytest
from lb_agents import PORT, World, place, world_of
from lb_scenes import service, slices

from axoneme.core.testing.namespaces import within

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])]

SERVERS = ("web-0", "web-1", "web-2")
BOTH = pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
#: What a backend's slice says from its termination on until it is gone.
LEAVING = "conditions: {ready: false, serving: true, terminating: true}"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Each test has a service of its own; in turns, the next client has the next backend."""
    with world_of(algorithm="round-robin") as made:
        for name in SERVERS:
            made.server(name, app="web")
        made.workload("client", app="client")
        made.workload("other", app="client")
        yield made


def addresses(world: World, names: Sequence[str], family: int) -> list[str]:
    return [world.workloads[name].addresses[family == 6] for name in names]


def vip_of(number: int, family: int) -> str:
    return f"fd00:96::1:{number}" if family == 6 else f"10.96.1.{number}"


def kept_by(name: str, vip: str, more: str = "") -> str:
    """A service with affinity, without its slices."""
    ports = "ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]"
    return service(name, f'clusterIP: "{vip}", sessionAffinity: ClientIP, {ports}{more}')


def behind(name: str, backends: Sequence[str]) -> str:
    tcp, udp = (
        slices(name, backends, PORT, port_name=port, protocol=protocol)
        for port, protocol in (("t", "TCP"), ("u", "UDP"))
    )
    return tcp + udp.replace(f"name: {name}-", f"name: {name}-u")


@BOTH
def test_a_client_keeps_its_backend_as_long_as_it_is_one(world: World, family: int, udp: bool) -> None:
    number, name = (2, "sticky-u") if udp else (1, "sticky-t")
    vip = vip_of(number, family)
    world.resource("sticky.yaml", kept_by(name, vip) + behind(name, addresses(world, SERVERS, family)))
    world.until_used(place(vip, 80), *addresses(world, SERVERS, family))
    (kept,) = world.spread("client", vip, 80, 8, udp=udp)
    (others,) = world.spread("other", vip, 80, 8, udp=udp)
    assert kept != others, "the next client has the next backend"
    left = addresses(world, [name for name in SERVERS if name != kept], family)
    world.resource("sticky.yaml", kept_by(name, vip) + behind(name, left))
    world.until_used(place(vip, 80), *left)
    (now,) = world.spread("client", vip, 80, 8, udp=udp)
    assert now != kept
    assert set(world.spread("other", vip, 80, 8, udp=udp)) == {others}, (
        "whose backend is still there keeps it"
    )


@BOTH
def test_and_for_as_long_as_the_service_says(world: World, family: int, udp: bool) -> None:
    number, name = (4, "brief-u") if udp else (3, "brief-t")
    vip, servers = vip_of(number, family), addresses(world, SERVERS, family)
    timeout = ", sessionAffinityConfig: {clientIP: {timeoutSeconds: 2}}"
    world.resource("brief.yaml", kept_by(name, vip, timeout) + behind(name, servers))
    world.until_used(place(vip, 80), *servers)
    first = world.ask("client", vip, 80, udp=udp)
    asked = time.monotonic()
    assert world.ask("client", vip, 80, udp=udp) == first or time.monotonic() - asked > 1.9
    time.sleep(2.2)  # not to wait for somebody: that it passes is what counts
    assert world.ask("client", vip, 80, udp=udp) not in ("", first)


def test_a_connection_outlives_its_backend_s_termination_and_new_ones_go_elsewhere(
    world: World, family: int
) -> None:
    vip, (leaves, stays) = vip_of(7, family), addresses(world, SERVERS[:2], family)
    listening = {name: listen(world.workloads[name].netns, family) for name in SERVERS[:2]}

    def led_to(rows: Sequence[str], *used: str) -> None:
        spec = f'clusterIP: "{vip}", ports: [{{port: 80, targetPort: 7}}]'
        world.resource("grace.yaml", service("grace", spec) + slices("grace", rows, 7))
        world.until_used(place(vip, 80), *used)

    def connect() -> socket.socket:
        netns = world.workloads["client"].netns
        return within(netns, lambda: socket.create_connection((vip, 80), 5))

    led_to([leaves], leaves)
    client = connect()
    served, peer = listening["web-0"].accept()
    assert peer[0] == addresses(world, ["client"], family)[0]
    led_to([f"{leaves} {LEAVING}", stays], stays)
    new = connect()
    listening["web-1"].accept()[0].close()
    client.sendall(b"still here")
    assert served.recv(64) == b"still here"
    served.sendall(b"yes")
    assert client.recv(64) == b"yes"
    led_to([f"{leaves} {LEAVING}"], leaves)
    last = connect()
    assert listening["web-0"].accept()[1][0] == peer[0], "nobody else is left: it serves"
    for one in (client, served, new, last, *listening.values()):
        one.close()


def listen(netns: str, family: int) -> socket.socket:
    version = socket.AF_INET6 if family == 6 else socket.AF_INET
    made = within(netns, lambda: socket.create_server(("", 7), family=version))
    made.settimeout(5)
    return made


def test_datagrams_go_on_to_a_backend_that_terminates_and_new_ones_elsewhere(
    world: World, family: int
) -> None:
    """A client that goes on sending from its port is a connection as well. No other service has these backends."""
    port = 8081
    for name in SERVERS[:2]:
        world.netns.serve_udp(world.workloads[name].netns, port, lambda _, name=name: name.encode())
    vip, (leaves, stays) = vip_of(8, family), addresses(world, SERVERS[:2], family)

    def led_to(rows: Sequence[str], *used: str) -> None:
        spec = f'clusterIP: "{vip}", ports: [{{port: 80, protocol: UDP}}]'
        world.resource("grace.yaml", service("grace", spec) + slices("grace", rows, port, protocol="UDP"))
        world.until_used(place(vip, 80), *used)

    led_to([leaves], leaves)
    version = socket.AF_INET6 if family == 6 else socket.AF_INET
    netns = world.workloads["client"].netns
    with within(netns, lambda: socket.socket(version, socket.SOCK_DGRAM)) as client:
        client.settimeout(5)

        def answer() -> bytes:
            client.sendto(b"hello", (vip, 80))
            data, sender = client.recvfrom(64)
            assert sender[:2] == (vip, 80)
            return data

        assert answer() == b"web-0"
        led_to([f"{leaves} {LEAVING}", stays], stays)
        assert answer() == b"web-0"
        assert world.ask("client", vip, 80, udp=True) == "web-1"
        led_to([stays], stays)
        world.node.until(lambda: answer() == b"web-1", "who is gone is asked no more")
