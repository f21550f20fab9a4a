"""Under continuous load not one request fails: backends that are replaced, an agent that is killed, services that change."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from lb_agents import World, world_of
from lb_scenes import service, slices

from axoneme.core.testing.traffic import Flow, Kind, Traffic, mesh

pytestmark = pytest.mark.kernel

VIPS = ("10.96.0.10", "fd00:96::a")
PLACES = ("10.96.0.10:80", "[fd00:96::a]:80")
#: The servers of `Traffic` listen at this port.
PORT = 80
PORTS = "ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]"
SERVICE = service("web", f'clusterIPs: [10.96.0.10, "fd00:96::a"], {PORTS}')


@pytest.fixture
def world() -> Iterator[World]:
    with world_of() as made:
        made.workload("client")
        for number in range(4):
            made.workload(f"web-{number}", app="web")
        yield made


def behind(world: World, *names: str, leaving: str = "") -> str:
    """The service with these backends, and perhaps one that terminates."""
    text = SERVICE
    for family in (4, 6):
        rows = [world.workloads[name].addresses[family == 6] for name in names]
        if leaving:
            address = world.workloads[leaving].addresses[family == 6]
            rows.append(f"{address} conditions: {{ready: false, serving: true, terminating: true}}")
        for protocol, port in (("TCP", "t"), ("UDP", "u")):
            one = slices("web", rows, PORT, protocol=protocol, port_name=port)
            text += one.replace(f"web-{family}", f"web-{family}-{port}")
    return text


def choose(world: World, *names: str, leaving: str = "") -> None:
    """Only these get new connections, from now on."""
    world.resource("web.yaml", behind(world, *names, leaving=leaving))
    for family, place in enumerate(PLACES):
        world.until_used(place, *(world.workloads[name].addresses[family] for name in names))


def short(world: World, *, interval: float = 0.004) -> list[Flow]:
    """New connections, and datagrams of one socket that lives all the time."""
    flows = mesh(world.workloads["client"].netns, VIPS, PORT, interval=interval)
    return [flow for flow in flows if flow.kind in (Kind.REQUEST, Kind.DATAGRAM)]


def servers(world: World) -> list[tuple[str, int]]:
    return [(one.netns, PORT) for name, one in world.workloads.items() if name.startswith("web")]


def test_all_backends_are_replaced_and_no_request_fails(world: World) -> None:
    choose(world, "web-0", "web-1")
    with Traffic(servers=servers(world), flows=short(world)) as traffic:
        for old, new, other in (("web-0", "web-2", "web-1"), ("web-1", "web-3", "web-2")):
            choose(world, old, new, other)
            choose(world, new, other, leaving=old)
            traffic.more(10)  # what was under way has ended
            choose(world, new, other)
            gone = world.node.call("endpoint.get", name=old)
            world.node.until(
                lambda gone=gone: (
                    not any(
                        gone["ipv4"] in one["address"] or gone["ipv6"] in one["address"]
                        for one in world.node.call("lb.map", view="backends")
                    )
                ),
                "the old one is gone from the kernel",
            )
            traffic.more(10)
            world.node.call("workload.remove", name=old)
            traffic.more(10)
    report = traffic.check()
    reached = {name.partition(":")[0] for name, count in report.received.items() if count}
    assert len(reached) == 4, "every one of them had its time"


def test_the_agent_is_killed_and_comes_back_and_services_change_meanwhile(world: World) -> None:
    choose(world, "web-0", "web-1")
    flows = mesh(world.workloads["client"].netns, VIPS, PORT)
    with Traffic(servers=servers(world), flows=flows) as traffic:
        before = world.node.call("lb.map", view="services")
        world.node.kill9()
        traffic.more(20)
        world.node.start()
        assert world.node.call("lb.map", view="services") == before, "numbers and slots stay"
        traffic.more(20)
        world.node.kill9()
        world.resource("web.yaml", behind(world, "web-0", "web-1", "web-2"))
        world.node.start()
        for family, place in enumerate(PLACES):
            names = ("web-0", "web-1", "web-2")
            world.until_used(place, *(world.workloads[name].addresses[family] for name in names))
        traffic.more(20)
    traffic.check()


def test_many_updates_a_second(world: World) -> None:
    """At the rate of 1,000 in 30 s or more, for as long as 100 take: by command, and by file."""
    choose(world, "web-0", "web-1", "web-2")
    turns = itertools.cycle([("web-0", "web-1"), ("web-1", "web-2"), ("web-2", "web-0", "web-1")])
    address = {name: one.ipv4 for name, one in world.workloads.items()}
    extra = {"name": "extra", "vips": ["10.96.0.11"], "port": PORT}
    netns = world.workloads["client"].netns
    flow = Flow(name="extra", kind=Kind.REQUEST, netns=netns, address="10.96.0.11", port=PORT, interval=0.004)
    backends = [{"address": address["web-0"], "port": PORT}]
    world.node.call("service.add", **extra, backends=backends)
    world.until_used(f"10.96.0.11:{PORT}", address["web-0"])
    stay = [one for one in mesh(netns, VIPS, PORT) if one.kind in (Kind.REQUEST, Kind.DATAGRAM)]
    begin = world.node.metric("axoneme_lb_updates_total")
    with Traffic(servers=servers(world), flows=[*stay, flow]) as traffic, world.node.client() as client:
        for number, names in zip(range(100), turns, strict=False):
            backends = [{"address": address[name], "port": PORT} for name in names]
            client.call("service.add", **extra, backends=backends, affinity=number % 2)
            if number % 5 == 0:
                world.resource("web.yaml", behind(world, *names))
        traffic.more(20)
        # Each was written by itself, or together with the one after it.
        assert world.node.metric("axoneme_lb_updates_total") - begin >= 50
    assert traffic.result is not None
    for name, count in traffic.result.flows.items():
        assert count.failed == 0, traffic.result
        # Datagrams of one socket follow their backends, 20 of which are taken away without grace meanwhile.
        assert count.lost <= (20 if name.startswith("datagram") else 0), traffic.result
    assert world.node.problems() == []
