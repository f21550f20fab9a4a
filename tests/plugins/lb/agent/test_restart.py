"""What changed while no agent ran is in force once one runs again, and what went is gone from the kernel."""

from __future__ import annotations

import errno
import json
import socket
from typing import Any

import pytest
from lb_agents import PORT, World, place, process, world_of
from lb_scenes import service, slices

pytestmark = pytest.mark.kernel

GOES = ("10.96.5.1", "fd00:96::5:1")
POOL = """\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: pool}
spec: {blocks: [{cidr: 198.51.100.0/28}, {cidr: "2001:db8:5::/64"}]}
"""
STAYS = ("10.96.5.2", "fd00:96::5:2")


def connect(address: str) -> tuple[str, str]:
    """Who answers, at the socket; or the name of the error."""
    try:
        with socket.create_connection((address, 80), 5) as one:
            one.sendall(b"who")
            return one.recv(64).decode(), ""
    except OSError as error:
        return "", errno.errorcode[error.errno or 0]


def dumped(world: World, name: str) -> list[Any]:
    rows: list[Any] = json.loads(world.node.axoneme("bpf", "map", "dump", name, "-o", "json").stdout)
    return rows


def entries(world: World) -> dict[str, int]:
    names = ("lb_services4", "lb_services6", "lb_members", "lb_sources4", "lb_sources6")
    return {name: len(dumped(world, name)) for name in names}


def test_a_service_that_was_removed_meanwhile_is_gone() -> None:
    with world_of() as world:
        for name in ("web-0", "web-1"):
            world.server(name)
        world.workload("client")
        zero, one = (world.workloads[name].addresses for name in ("web-0", "web-1"))
        world.resource("pool.yaml", POOL)
        goes = world.node.resource("stays.yaml", _text("stays", STAYS, one)).with_name("goes.yaml")
        for family in (0, 1):
            world.until_used(place(STAYS[family], 80), one[family])
        before = entries(world)
        world.resource("goes.yaml", _text("goes", GOES, zero))
        for family in (0, 1):
            world.until_used(place(GOES[family], 80), zero[family])
        after = entries(world)
        assert all(after[name] > count for name, count in before.items()), "it has rows everywhere"
        world.node.kill9()
        goes.unlink()
        with process(world, world.workloads["client"].netns) as at_socket:
            for vip in GOES:
                assert world.ask("client", vip, 80) == "web-0", "nobody has told the kernel"
                assert at_socket(connect, vip) == ("web-0", "")
            world.node.start()
            world.node.until(lambda: entries(world) == before, "its rows are gone")
            for vip in GOES:
                assert world.ask("client", vip, 80, timeout=0.3) == ""
                assert at_socket(connect, vip)[0] == ""
            for vip in STAYS:
                assert world.ask("client", vip, 80) == "web-1"
                assert at_socket(connect, vip) == ("web-1", "")
        held = world.node.axoneme("bpf", "lb", "list", "--backends").stdout
        assert place(zero[0], PORT) not in held
        assert place(one[0], PORT) in held


def _text(name: str, vips: tuple[str, str], backends: tuple[str, str]) -> str:
    """A service that has rows in each of the maps."""
    more = 'type: LoadBalancer, sessionAffinity: ClientIP, loadBalancerSourceRanges: [192.0.2.0/24, "2001:db8::/32"]'
    spec = f'clusterIPs: [{vips[0]}, "{vips[1]}"], {more}, ports: [{{port: 80}}]'
    return service(name, spec) + "".join(slices(name, [one], PORT) for one in backends)
