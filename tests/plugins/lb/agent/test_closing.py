"""TCP connections of local sockets to backends that are gone, by whole agents: which are closed, and which are not."""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from held_sockets import connect, exchange, held
from lb_agents import PORT, World, place, process, world_of
from lb_scenes import service, slices

from axoneme.core.testing.namespaces import listen, within

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])]

SERVERS = ("web-0", "web-1")
#: What a backend's slice says from its termination on until it is gone.
LEAVING = "conditions: {ready: false, serving: true, terminating: true}"

# In the process with the sockets.


def _connect_often(number: int, address: str, port: int) -> tuple[str, int]:
    """Connects and closes until a socket is told another peer than before, and says which."""
    before = held[number].getpeername()
    for _ in range(20_000):
        socket.create_connection((address, port), 5).close()
        if (now := held[number].getpeername()) != before:
            return now[0], now[1]
    raise AssertionError("its place is still its own")


def _wait_closed(number: int) -> int:
    """The error by which a read ends."""
    try:
        held[number].recv(1)
    except OSError as error:
        return error.errno or 0
    return 0


# The test's side.


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """An agent that remembers few sockets."""
    with world_of(algorithm="round-robin", sockets=1024) as made:
        for name in SERVERS:
            made.server(name)
        made.workload("client")
        yield made


def vip_of(number: int, family: int) -> str:
    return f"fd00:96::3:{number}" if family == 6 else f"10.96.3.{number}"


def addresses(world: World, *names: str, family: int) -> list[str]:
    return [world.workloads[name].addresses[family == 6] for name in names]


def lead(world: World, vip: str, rows: Sequence[str], port: int, *used: str) -> None:
    """The service has these backends, and new connections go to those."""
    name = f"dead-{vip.replace(':', '-').replace('.', '-')}"
    spec = f'clusterIP: "{vip}", ports: [{{port: 80}}]'
    world.resource(f"{name}.yaml", service(name, spec) + (slices(name, rows, port) if rows else ""))
    world.until_used(place(vip, 80), *used)


def closed(world: World) -> tuple[float, float]:
    """How many were closed, and how many left open, so far."""
    return tuple(world.node.metric(f"axoneme_lb_{what}_sockets_total") for what in ("closed", "left"))  # type: ignore[return-value]


class Served:
    """Listens in workloads, and knows the other end of every connection."""

    def __init__(self, world: World, port: int) -> None:
        self.listening = {
            name: within(world.workloads[name].netns, lambda: listen(socket.SOCK_STREAM, port))
            for name in SERVERS
        }
        self.ends: list[socket.socket] = []

    def accept(self) -> tuple[str, socket.socket]:
        """The connection that came, and to whom."""
        ready, _, _ = select.select(self.listening.values(), [], [], 10)
        name = next(name for name, one in self.listening.items() if one in ready)
        self.ends.append(self.listening[name].accept()[0])
        return name, self.ends[-1]

    def close(self) -> None:
        for one in (*self.listening.values(), *self.ends):
            one.close()


@pytest.fixture
def served(world: World) -> Iterator[Served]:
    made = Served(world, 7)
    yield made
    made.close()


@pytest.mark.parametrize("who", ["node", "workload"])
def test_those_to_a_backend_that_is_gone_are_closed_and_others_are_not(
    world: World, served: Served, family: int, who: str
) -> None:
    vip, rows = vip_of(1 if who == "node" else 2, family), addresses(world, *SERVERS, family=family)
    lead(world, vip, rows, 7, *rows)
    with process(world, world.node.netns if who == "node" else world.workloads["client"].netns) as call:
        number_of, ends = {}, {}
        for _ in SERVERS:
            number, peer = call(connect, vip, 80)
            assert peer == (vip, 80)
            name, end = served.accept()
            number_of[name], ends[name] = number, end
        direct, _ = call(connect, rows[0], 7)
        assert served.accept()[0] == "web-0"
        elsewhere, _ = call(connect, rows[0], PORT)
        was, left = closed(world)
        lead(world, vip, [f"{rows[0]} {LEAVING}", rows[1]], 7, rows[1])
        ends["web-0"].sendall(b"going, not gone")
        assert call(exchange, number_of["web-0"], b"x") == b"going, not gone"
        assert ends["web-0"].recv(64) == b"x"
        assert closed(world) == (was, left), "it is only leaving"
        lead(world, vip, rows[1:], 7, rows[1])
        assert call(_wait_closed, number_of["web-0"]) == errno.ECONNABORTED
        world.node.until(
            lambda: closed(world) == (was + 1, left + 1),
            "one is closed, one who did not ask the service is left",
        )
        for name, number in (("web-1", number_of["web-1"]), ("direct", direct)):
            end = ends["web-1"] if name == "web-1" else served.ends[2]
            end.sendall(b"still here")
            assert call(exchange, number, b"x") == b"still here", name
        assert call(exchange, elsewhere, b"who") == b"web-0", "another port of it is somebody else"


def test_who_was_forgotten_goes_on_and_is_not_closed(world: World, served: Served, family: int) -> None:
    """More sockets came than are remembered (`sockets`), so that another one has its place."""
    vip, (backend, other) = vip_of(3, family), addresses(world, *SERVERS, family=family)
    busy = vip_of(4, family)
    lead(world, vip, [backend], 7, backend)
    lead(world, busy, [other], PORT, other)
    with process(world, world.workloads["client"].netns) as call:
        number, peer = call(connect, vip, 80)
        _, end = served.accept()
        assert peer == (vip, 80)
        assert call(_connect_often, number, busy, 80) == (backend, 7), "it is told its backend"
        end.sendall(b"still here")
        assert call(exchange, number, b"x") == b"still here"
        again, peer = call(connect, vip, 80)
        served.accept()
        assert peer == (vip, 80)
        was, left = closed(world)
        lead(world, vip, [other], 7, other)
        assert call(_wait_closed, again) == errno.ECONNABORTED
        world.node.until(lambda: closed(world) == (was + 1, left + 1), "one is known")
        end.sendall(b"still here")
        assert call(exchange, number, b"x") == b"still here"


def test_none_is_closed_where_that_is_not_wanted(family: int) -> None:
    with world_of(close_sockets=False) as world:
        for name in SERVERS:
            world.workload(name)
        world.workload("client")
        served, vip = Served(world, 7), vip_of(5, family)
        backend, other = addresses(world, *SERVERS, family=family)
        lead(world, vip, [backend], 7, backend)
        held: list[tuple[Any, int, socket.socket]] = []
        with (
            process(world, world.node.netns) as node,
            process(world, world.workloads["client"].netns) as client,
        ):
            for call in (node, client):
                held.append((call, call(connect, vip, 80)[0], served.accept()[1]))
            lead(world, vip, [other], 7, other)
            lead(world, vip, [], 7)
            world.node.until(lambda: world.used(place(vip, 80)) == set(), "nobody serves")
            for call, number, end in held:
                end.sendall(b"still here")
                assert call(exchange, number, b"x") == b"still here"
        assert closed(world) == (0, 0)
        served.close()


def test_backends_that_went_while_no_agent_ran(world: World, served: Served, family: int) -> None:
    vip, (goes, stays) = vip_of(8, family), addresses(world, *SERVERS, family=family)
    lead(world, vip, [goes, stays], 7, goes, stays)
    with process(world, world.workloads["client"].netns) as call:
        numbers, ends = {}, {}
        for _ in SERVERS:
            number, _ = call(connect, vip, 80)
            name, end = served.accept()
            ends[name] = end
            numbers[name] = number
        world.node.kill9()
        file = f"dead-{vip.replace(':', '-').replace('.', '-')}"
        text = service(file, f'clusterIP: "{vip}", ports: [{{port: 80}}]') + slices(file, [stays], 7)
        world.node.resource(f"{file}.yaml", text)
        world.node.start()
        assert call(_wait_closed, numbers["web-0"]) == errno.ECONNABORTED
        ends["web-1"].sendall(b"still here")
        assert call(exchange, numbers["web-1"], b"x") == b"still here"
