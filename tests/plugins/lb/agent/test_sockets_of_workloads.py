"""Processes of workloads whose sockets the agent sees: what they think that they talk to, and what moves when a backend goes."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from lb_agents import PORT, World, world_of
from lb_scenes import service, slices

from axoneme.core.net.namespaces import opened

pytestmark = pytest.mark.kernel

VIPS = ("10.96.7.1", "fd00:96::7:1")
PLACES = ("10.96.7.1:80", "[fd00:96::7:1]:80")
PORTS = "ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]"
SERVICE = service("web", f'clusterIPs: [{VIPS[0]}, "{VIPS[1]}"], {PORTS}')

# In the client's process.

_held: list[socket.socket] = []


def _begin(cgroup: str, netns: str) -> None:
    Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    with opened(netns) as namespace:
        _setns(namespace.descriptor)


def _setns(descriptor: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0):
        raise OSError(ctypes.get_errno(), "setns")


def _open(address: str, kind: int) -> tuple[int, str]:
    """A connected socket: its number, and whom it is connected to."""
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    one.settimeout(1)
    one.connect((address, 80))
    _held.append(one)
    return len(_held) - 1, one.getpeername()[0]


def _ask(number: int) -> str:
    """A question and its answer; empty for none."""
    try:
        _held[number].send(b"?")
        return _held[number].recv(100).decode()
    except OSError:
        return ""


# The test's side.


@pytest.fixture
def world() -> Iterator[World]:
    with world_of() as made:
        made.server("web-0")
        made.server("web-1")
        made.workload("client")
        yield made


def choose(world: World, *names: str) -> None:
    text = SERVICE
    for family in (4, 6):
        rows = [world.workloads[name].addresses[family == 6] for name in names]
        for protocol, port in (("TCP", "t"), ("UDP", "u")):
            one = slices("web", rows, PORT, protocol=protocol, port_name=port)
            text += one.replace(f"web-{family}", f"web-{family}-{port}")
    world.resource("web.yaml", text)
    for family, place in enumerate(PLACES):
        world.until_used(place, *(world.workloads[name].addresses[family] for name in names))


def test_what_is_connected_moves_when_its_backend_goes(world: World) -> None:
    choose(world, "web-0")
    arguments = (str(world.node.cgroup), world.workloads["client"].netns)
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork"), _begin, arguments) as process:

        def call(function: Any, *given: Any) -> Any:
            return process.submit(function, *given).result(timeout=20)

        datagrams, streams = [], []
        for address in VIPS:
            for kind, found in ((socket.SOCK_DGRAM, datagrams), (socket.SOCK_STREAM, streams)):
                number, peer = call(_open, address, kind)
                assert peer == address, "the service is whom it is connected to"
                found.append(number)
        assert [call(_ask, number) for number in (*datagrams, *streams)] == ["web-0"] * 4
        choose(world, "web-1")
        world.node.until(
            lambda: [call(_ask, number) for number in datagrams] == ["web-1"] * 2, "datagrams go elsewhere"
        )
        number, _ = call(_open, VIPS[0], socket.SOCK_STREAM)
        assert call(_ask, number) == "web-1"
