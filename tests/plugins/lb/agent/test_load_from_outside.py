"""Under continuous load from outside, and of workloads that call the world, not one request fails: backends that are replaced,
an agent that is killed, services that change, connections that stay with a backend that leaves.

Each scene with XDP in front, and with the classifiers alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from lb_agents import World, place
from outside_world import (
    FROM_OUTSIDE,
    NODE,
    NODE_PORT,
    PORT,
    SHORT,
    VIP,
    choose,
    from_outside,
    outside_world,
    servers,
    text,
    to_the_world,
)

from axoneme.core.testing.namespaces import reachable
from axoneme.core.testing.traffic import Kind, Report, Traffic

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("_alive")]

FRONTS = [(address, port) for addresses, port in ((VIP, PORT), (NODE, NODE_PORT)) for address in addresses]
EVERYBODY = ("near-0", "near-1", "far-0", "far-1")
#: Backends of one update after another: each comes and goes.
SETS = (("near-0", "far-0"), ("far-0", "far-1"), ("near-1",), ("far-1", "near-0", "near-1"), ("far-1",))
UPDATES = 200
TIME = 20.0


@pytest.fixture(scope="module", params=[True, False], ids=["xdp", "classifier"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with outside_world(xdp=request.param) as made:
        yield made


def received(world: World, report: Report, name: str, protocol: str = "") -> int:
    """What came to a backend: connections and datagrams."""
    begin = f"{world.workloads[name].netns}:{PORT}/{protocol}"
    return sum(count for server, count in report.received.items() if server.startswith(begin))


def new_datagram(world: World, address: str, port: int) -> bool:
    """Whether the first datagram of a socket is answered."""
    return reachable(world.workloads["client"].netns, address, port, udp=True, timeout=3)


def test_all_backends_are_replaced_and_no_request_fails(world: World) -> None:
    """One after the other, with graceful termination. Who is gone gets nothing any more."""
    choose(world, "near-0", "far-0")
    with Traffic(
        servers=servers(world), flows=[*from_outside(world, SHORT), *to_the_world(world)]
    ) as traffic:
        for old, new, other in (("near-0", "near-1", "far-0"), ("far-0", "far-1", "near-1")):
            choose(world, old, new, other)
            choose(world, new, other, leaving=[old])
            traffic.more(5)  # what was under way has ended
            choose(world, new, other)
            world.until_forgotten(old, PORT)
            traffic.more(1)
            before = received(world, traffic.report(), old)
            traffic.more(5)
            assert received(world, traffic.report(), old) == before
    report = traffic.check()
    assert all(received(world, report, name) for name in EVERYBODY), "every one of them had its time"


def test_the_agent_is_killed_and_comes_back_and_services_change_meanwhile(world: World) -> None:
    """What is pinned serves all that time, new connections included."""
    choose(world, "near-0", "far-0")
    with Traffic(servers=servers(world), flows=[*from_outside(world), *to_the_world(world)]) as traffic:
        before = world.node.call("lb.map", view="services")
        world.node.kill9()
        dead = traffic.report()
        traffic.more(10)
        alive = traffic.report()
        for name in ("near-0", "far-0"):
            assert received(world, alive, name, "tcp") > received(world, dead, name, "tcp")
        assert all(new_datagram(world, *front) for front in FRONTS for _ in range(4))
        world.node.start()
        assert world.node.call("lb.map", view="services") == before, "numbers and slots stay"
        traffic.more(10)
        for number in range(20):
            change(world, number)
        world.node.kill9()  # in the middle of that
        change(world, 0)
        world.node.start(wait=False)
        traffic.more(5)
        world.node.kill9()  # in the middle of its start
        traffic.more(5)
        world.node.start()
        choose(world, *EVERYBODY)
        traffic.more(10)
    report = traffic.check()
    assert all(received(world, report, name) for name in EVERYBODY)


def change(world: World, number: int) -> tuple[str, ...]:
    """The next backends take over; who has none of the new connections terminates."""
    names = SETS[number % len(SETS)]
    leaving = [name for name in EVERYBODY if name not in names]
    world.resource("web.yaml", text(world, *names, leaving=leaving))
    return names


def test_hundreds_of_updates(world: World) -> None:
    """Backends take turns, near and far."""
    choose(world, *EVERYBODY)
    flows = [*from_outside(world, SHORT), *to_the_world(world)]
    frontend = place(NODE[1], NODE_PORT)
    with Traffic(servers=servers(world), flows=flows) as traffic:
        for number in range(UPDATES):
            names = change(world, number)
            wanted, deadline = {f"[{world.workloads[name].ipv6}]" for name in names}, time.monotonic() + TIME
            while world.used(frontend, FROM_OUTSIDE) != wanted:
                assert time.monotonic() < deadline, f"update {number} does not arrive"
                time.sleep(0.001)
        traffic.more(5)
    report = traffic.check()
    assert all(received(world, report, name) for name in EVERYBODY)
    assert world.node.problems() == []


@pytest.mark.parametrize("near", [True, False], ids=["near", "far"])
def test_who_leaves_keeps_its_connections_and_gets_no_new_ones(world: World, near: bool) -> None:
    """Also while no agent runs, and when one is back."""
    old, new = ("near-0", "far-1") if near else ("far-0", "near-1")
    choose(world, old)
    lasting = (Kind.STREAM, Kind.PUSH, Kind.DATAGRAM)
    with Traffic(servers=servers(world), flows=from_outside(world, lasting)) as stay:
        choose(world, new, leaving=[old])
        before = received(world, stay.report(), old, "tcp")
        with Traffic(servers=[], flows=from_outside(world, (Kind.REQUEST,))) as come:
            for act in (world.node.kill9, world.node.start, lambda: None):
                act()
                stay.more(5)
                come.more(5)
        answered = come.check().answered
    report = stay.check()
    assert received(world, report, new, "tcp") == answered
    assert received(world, report, old, "tcp") == before == 8
    assert received(world, report, old, "udp") == sum(
        count.answered for name, count in report.flows.items() if "datagram" in name
    )
