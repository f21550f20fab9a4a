"""Services at the socket, in a whole agent: clients in the agent's cgroup, on the node itself and in a workload."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from held_sockets import connect, exchange
from lb_agents import World, place, process, world_of
from lb_scenes import service

pytestmark = pytest.mark.kernel

VIPS = ("10.96.0.10", "fd00:96::a")

# In the process with the sockets.


def _datagram(address: str, port: int) -> tuple[bytes, str, int]:
    """An answer to a socket that is not connected, and whom it seems to come from."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.sendto(b"?", (address, port))
        data, peer = one.recvfrom(64)
        return data, peer[0], peer[1]


def _connected_and_named(peer: str, address: str, port: int) -> set[tuple[bytes, str]]:
    """A datagram socket that is connected to one, and sends to the other with and without naming it: who answers, and from where."""
    with socket.socket(socket.AF_INET6 if ":" in peer else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.settimeout(5)
        one.connect((peer, port))
        answers = set()
        for _ in range(4):
            one.sendto(b"?", (address, port))
            answers.add(one.recvfrom(64))
            one.send(b"?")
            answers.add(one.recvfrom(64))
        return {(data, source[0]) for data, source in answers}


def _tell(peer: str, address: str, port: int) -> None:
    """Sends to somebody else than the socket is connected to, whose answer it will not hear."""
    with socket.socket(socket.AF_INET6 if ":" in peer else socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.connect((peer, port))
        one.sendto(b"told", (address, port))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with world_of(algorithm="round-robin") as made:
        for name in ("web-0", "web-1"):
            made.server(name, app="web")
        made.workload("client")
        yield made


def addresses(world: World, *names: str, family: int = 4) -> list[str]:
    return [world.workloads[name].addresses[family == 6] for name in names]


def test_the_node_and_its_workloads_reach_services(world: World) -> None:
    ports = (
        "ports: [{name: t, port: 80, targetPort: 8080}, {name: u, port: 80, protocol: UDP, targetPort: 8080}]"
    )
    world.resource(
        "web.yaml", service("web", f'clusterIPs: [10.96.0.10, "fd00:96::a"], selector: {{app: web}}, {ports}')
    )
    for at, vip in enumerate(VIPS):
        world.until_used(place(vip, 80), *addresses(world, "web-0", "web-1", family=6 if at else 4))
    for netns in (world.node.netns, world.workloads["client"].netns):
        with process(world, netns) as call:
            for vip in VIPS:
                seen = set()
                for _ in range(2):
                    number, (host, port) = call(connect, vip, 80)
                    assert (host, port) == (vip, 80), "the application sees the service"
                    seen.add(call(exchange, number, b"who"))
                    data, host, port = call(_datagram, vip, 80)
                    assert (host, port) == (vip, 80), "and so it does in answers"
                    seen.add(data)
                assert seen == {b"web-0", b"web-1"}


def test_a_connected_socket_that_names_the_service_again_keeps_its_backend(world: World) -> None:
    """It would not hear another one. IPv6 sockets that speak IPv4 name it each time, as far as hooks can see."""
    ports = "ports: [{port: 80, protocol: UDP, targetPort: 8080}]"
    text = service("again", f'clusterIPs: [10.96.0.12, "fd00:96::c"], selector: {{app: web}}, {ports}')
    world.resource("again.yaml", text)
    for at, vip in enumerate(("10.96.0.12", "fd00:96::c")):
        world.until_used(place(vip, 80), *addresses(world, "web-0", "web-1", family=6 if at else 4))
    for netns in (world.node.netns, world.workloads["client"].netns):
        with process(world, netns) as call:
            for vip in ("10.96.0.12", "fd00:96::c", "::ffff:10.96.0.12"):
                answers = call(_connected_and_named, vip, vip, 80)
                assert len(answers) == 1, "one backend"
                assert {source for _, source in answers} == {vip}
            before = told(world)
            for peer, vip in zip(
                world.workloads["client"].addresses, ("10.96.0.12", "fd00:96::c"), strict=True
            ):
                call(_tell, peer, vip, 80)
            world.node.until(lambda: told(world) == before + 2, "who is connected elsewhere is heard")  # noqa: B023


def told(world: World) -> int:
    return sum(len(world.servers[name, "udp"].seen) for name in ("web-0", "web-1"))
