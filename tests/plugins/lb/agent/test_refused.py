"""A configuration that is refused after it was in the kernel's maps for a moment: clients are led where they were led before."""

from __future__ import annotations

import socket

import pytest
from lb_agents import PORT, World, place, world_of
from lb_scenes import service, slices

from axoneme.core.testing.namespaces import within

pytestmark = pytest.mark.kernel

SERVERS = ("web-0", "web-1", "web-2", "web-3")
LISTEN = ("127.0.0.1", 9962)


def vips(number: int) -> tuple[str, str]:
    return f"10.96.6.{number}", f"fd00:96::6:{number}"


def write(world: World, behind: dict[int, str]) -> None:
    text = ""
    for number, name in behind.items():
        four, six = vips(number)
        text += service(f"s{number}", f'clusterIPs: [{four}, "{six}"], ports: [{{port: 80}}]')
        text += "".join(slices(f"s{number}", [one], PORT) for one in world.workloads[name].addresses)
    world.resource("services.yaml", text)
    for number, name in behind.items():
        for vip, address in zip(vips(number), world.workloads[name].addresses, strict=True):
            world.until_used(place(vip, 80), address)


def test_each_service_s_clients_reach_its_own_backends() -> None:
    with world_of() as world:
        for name in SERVERS:
            world.server(name)
        world.workload("client")
        behind = dict(enumerate(SERVERS))
        write(world, behind)
        plugins = {"enabled": ["lb", "prometheus"], "lb": {"algorithm": "maglev", "maglev_size": 251}}
        world.node.configure({**world.node.values, "plugins": plugins})
        with within(world.node.netns, lambda: socket.create_server(LISTEN)):
            world.node.reload()  # metrics cannot be served
        assert "reload refused" in world.node.log.read_text()
        for number in reversed(behind):  # each needs slots that were free before
            behind[number] = SERVERS[(number + 1) % len(SERVERS)]
            write(world, behind)
            for other, name in behind.items():
                for vip in vips(other):
                    assert world.spread("client", vip, 80, 3) == {name: 3}
        shown = world.node.axoneme("lb", "maglev", "list").stdout
        assert "10.96.6." not in shown, "no table of the refused configuration is left"
