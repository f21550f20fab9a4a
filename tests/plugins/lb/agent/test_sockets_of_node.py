"""Connected UDP sockets of the node's own processes: no packet of theirs passes the agent, and still they leave a dead backend."""

from __future__ import annotations

import array
import errno
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from lb_agents import PORT, World, process, world_of
from lb_scenes import service, slices

pytestmark = pytest.mark.kernel

VIPS = ("10.96.8.1", "fd00:96::8:1")
PLACES = ("10.96.8.1:80", "[fd00:96::8:1]:80")
SERVICE = service(
    "names", f'clusterIPs: [{VIPS[0]}, "{VIPS[1]}"], ports: [{{name: u, port: 80, protocol: UDP}}]'
)
#: What the clients connect to; the last one is the first as IPv6 sockets know it.
CALLED = (*VIPS, f"::ffff:{VIPS[0]}")

# In the client's process.

_held: list[socket.socket] = []
_parked: list[socket.socket] = []


def _open(address: str, port: int) -> int:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    one.settimeout(1)
    one.connect((address, port))
    _held.append(one)
    return len(_held) - 1


def _ends(number: int) -> tuple[Any, Any]:
    return _held[number].getsockname()[:2], _held[number].getpeername()[:2]


def _ask(number: int) -> str:
    """A question and its answer; the name of the error if there is none."""
    try:
        _held[number].send(b"?")
        return _held[number].recv(100).decode()
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _error_of(number: int, what: str) -> str:
    try:
        _held[number].recv(1) if what == "recv" else _held[number].send(b"?")
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "none"


def _connect_again(number: int, address: str) -> None:
    _held[number].connect((address, 80))


def _send(number: int) -> None:
    _held[number].send(b"?")


def _receive(number: int) -> str:
    return _held[number].recv(100).decode()


def _park(number: int) -> None:
    """No process has it open: it is on its way from one to another (unix(7), SCM_RIGHTS)."""
    _parked.extend(socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
    descriptors = array.array("i", [_held[number].fileno()])
    _parked[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
    _held[number].close()


def _unpark(number: int) -> None:
    _, descriptors, _, _ = socket.recv_fds(_parked[1], 1, 1)
    _held[number] = socket.socket(fileno=descriptors[0])
    _held[number].settimeout(1)


# The test's side.


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with world_of() as made:
        for number in range(3):
            made.server(f"dns-{number}")
        yield made


@pytest.fixture
def call(world: World) -> Iterator[Any]:
    """Calls functions in a process of the node."""
    with process(world, world.node.netns) as calls:
        yield calls


def choose(world: World, *names: str, wait: bool = True) -> None:
    text = SERVICE
    for family in (4, 6):
        rows = [world.workloads[name].addresses[family == 6] for name in names]
        text += slices("names", rows, PORT, protocol="UDP", port_name="u") if rows else ""
    world.resource("names.yaml", text)
    for family, place in enumerate(PLACES if wait else ()):
        world.until_used(place, *(world.workloads[name].addresses[family] for name in names))


def moved(world: World) -> float:
    return world.node.metric("axoneme_lb_moved_sockets_total")


def test_they_go_on_with_another_backend(world: World, call: Any) -> None:
    choose(world, "dns-0")
    sockets = [call(_open, address, 80) for address in CALLED]
    direct = call(_open, world.workloads["dns-0"].ipv4, PORT)
    assert [call(_ask, number) for number in (*sockets, direct)] == ["dns-0"] * 4
    before = [call(_ends, number) for number in sockets]
    assert [peer for _, peer in before] == [(address, 80) for address in CALLED]
    waiting = call(_open, VIPS[0], 80)
    call(_send, waiting)
    world.node.until(lambda: len(world.servers["dns-0", "udp"].seen) >= 5, "the question is answered")
    begin = moved(world)
    choose(world, "dns-1")
    world.node.until(lambda: moved(world) == begin + 4, "all are connected again")
    assert [call(_ask, number) for number in sockets] == ["dns-1"] * 3
    assert [call(_ends, number) for number in sockets] == before, (
        "neither its own address nor the service's is another one"
    )
    assert call(_receive, waiting) == "dns-0", "what was in the queue stays there"
    assert call(_ask, waiting) == "dns-1"
    assert call(_ask, direct) == "dns-0", "who did not ask the service is left alone"
    assert [row for row in world.node.call("metrics") if "error" in row] == []
    assert "cannot be read" in world.node.axoneme("bpf", "map", "dump", "lb_peers", code=1).stderr


def test_without_any_backend_they_wait_for_the_next_one(world: World, call: Any) -> None:
    choose(world, "dns-0")
    numbers = [call(_open, address, 80) for address in CALLED]
    assert [call(_ask, number) for number in numbers] == ["dns-0"] * 3
    begin = moved(world)
    choose(world)
    assert [call(_ask, number) for number in numbers] == ["dns-0"] * 3, "there is nowhere to go"
    choose(world, "dns-2")
    world.node.until(lambda: moved(world) == begin + 3, "they are connected again")
    assert [call(_ask, number) for number in numbers] == ["dns-2"] * 3


def test_whose_backend_went_while_no_agent_ran(world: World, call: Any) -> None:
    choose(world, "dns-0")
    numbers = [call(_open, address, 80) for address in CALLED]
    world.node.kill9()
    choose(world, "dns-1", wait=False)
    world.node.start()
    world.node.until(lambda: moved(world) == 3, "they are connected again")
    assert [call(_ask, number) for number in numbers] == ["dns-1"] * 3


def test_who_cannot_be_reached_learns_to_connect_again(world: World, call: Any) -> None:
    choose(world, "dns-0")
    number = call(_open, VIPS[0], 80)
    assert call(_ask, number) == "dns-0"
    call(_park, number)
    begin = world.node.metric("axoneme_lb_closed_sockets_total")
    choose(world, "dns-1")
    world.node.until(
        lambda: world.node.metric("axoneme_lb_closed_sockets_total") == begin + 1, "it is closed"
    )
    call(_unpark, number)
    assert [call(_error_of, number, what) for what in ("recv", "send")] == ["ECONNABORTED", "EDESTADDRREQ"]
    call(_connect_again, number, VIPS[0])
    assert call(_ask, number) == "dns-1"
