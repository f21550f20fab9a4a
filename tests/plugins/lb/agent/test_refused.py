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


def write(world: World, behind: dict[int, tuple[str, ...]]) -> None:
    text = ""
    for number, names in behind.items():
        four, six = vips(number)
        text += service(f"s{number}", f'clusterIPs: [{four}, "{six}"], ports: [{{port: 80}}]')
        text += "".join(slices(f"s{number}", addresses, PORT) for addresses in addresses_of(world, names))
    world.resource("services.yaml", text)
    for number, names in behind.items():
        for vip, addresses in zip(vips(number), addresses_of(world, names), strict=True):
            world.until_used(place(vip, 80), *addresses)


def addresses_of(world: World, names: tuple[str, ...]) -> list[list[str]]:
    """Of each family."""
    return [[world.workloads[name].addresses[family] for name in names] for family in (0, 1)]


def chosen_from(world: World) -> dict[str, set[str]]:
    """By frontend, whom its slots in the kernel lead to, every one of them."""
    rows = world.node.call("lb.map", view="services")
    return {
        row["frontend"].partition("/")[0]: {one["address"].partition("/")[0] for one in row["backends"]}
        for row in rows
        if row["backends"]
    }


def wanted(world: World, behind: dict[int, tuple[str, ...]]) -> dict[str, set[str]]:
    return {
        place(vip, 80): {place(address, PORT) for address in addresses}
        for number, names in behind.items()
        for vip, addresses in zip(vips(number), addresses_of(world, names), strict=True)
    }


def test_each_service_s_clients_reach_its_own_backends() -> None:
    with world_of() as world:
        for name in SERVERS:
            world.server(name)
        world.workload("client")
        behind: dict[int, tuple[str, ...]] = {number: (name,) for number, name in enumerate(SERVERS)}
        write(world, behind)
        plugins = {"enabled": ["lb", "prometheus"], "lb": {"algorithm": "maglev", "maglev_size": 251}}
        world.node.configure({**world.node.values, "plugins": plugins})
        with within(world.node.netns, lambda: socket.create_server(LISTEN)):
            world.node.reload()  # metrics cannot be served
        assert "reload refused" in world.node.log.read_text()
        for number in reversed(behind):  # each needs slots that were free before
            behind[number] = (SERVERS[number], SERVERS[number - 1])
            write(world, behind)
            assert chosen_from(world) == wanted(world, behind)
            for other, names in behind.items():
                for vip in vips(other):
                    assert set(world.spread("client", vip, 80, 3)) <= set(names)
        shown = world.node.axoneme("lb", "maglev", "list").stdout
        assert "10.96.6." not in shown, "no table of the refused configuration is left"
