"""Under continuous load not one request fails: backends that are replaced, an agent that is killed, services that change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs
import pytest
from lb_agents import World, world_of
from lb_scenes import service

from axoneme.core.testing.traffic import Flow, Kind, Report, Traffic, mesh

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


def behind(world: World, *names: str, leaving: Sequence[str] = ()) -> str:
    """The service with these backends, and perhaps some that terminate."""
    return SERVICE + world.behind("web", PORT, names, leaving)


def choose(world: World, *names: str, leaving: Sequence[str] = ()) -> None:
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
            choose(world, new, other, leaving=[old])
            traffic.more(10)  # what was under way has ended
            choose(world, new, other)
            world.until_forgotten(old, PORT)
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


def test_a_backend_that_dies_takes_along_what_it_was_sent_until_it_is_taken_out(world: World) -> None:
    """Nobody knew beforehand. From the moment on at which the kernel does not have it any more, nothing is lost."""
    choose(world, "web-0")
    flows = [attrs.evolve(flow, timeout=4) for flow in short(world)]  # a SYN is sent again after one
    with Traffic(servers=servers(world), flows=flows) as traffic:
        traffic.more(10)  # all datagrams go to it by now, and stay there when there is another one
        choose(world, "web-0", "web-1")
        traffic.more(10)
        assert failures(traffic.report(), "") == 0
        world.node.call("workload.remove", name="web-0")
        world.node.until(lambda: failures(traffic.report(), "datagram") >= 4, "datagrams are lost")
        choose(world, "web-1")
        world.until_forgotten("web-0", PORT)
        before = traffic.report()
        traffic.more(20)
    assert traffic.result is not None
    for name, count in traffic.result.flows.items():
        was = before.flows[name]
        assert count.failed + count.lost <= was.failed + was.lost, f"{before}\nand then\n{traffic.result}"
        assert count.answered > was.answered


def failures(report: Report, kind: str) -> int:
    """Of these flows: what nobody will answer. What is under way, one of each, is none yet."""
    counts = [count for name, count in report.flows.items() if name.startswith(kind)]
    return sum(count.failed + max(0, count.lost - 1) for count in counts)
