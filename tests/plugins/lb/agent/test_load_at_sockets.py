"""Under continuous load at sockets not one request fails: backends that are replaced, an agent that is killed, connections that
stay with a backend that leaves.

The clients are processes of the agent's cgroup, in a workload and on the node itself. They ask by IPv4, by IPv6, and by IPv4 from
IPv6 sockets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from lb_agents import World, world_of
from lb_scenes import service

from axoneme.core.testing.traffic import Flow, Kind, Report, Traffic, mesh

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("_alive")]

VIPS = ("10.96.0.10", "fd00:96::a")
PLACES = ("10.96.0.10:80", "[fd00:96::a]:80")
MAPPED = f"::ffff:{VIPS[0]}"
PORT = 80
PORTS = "ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]"
SERVICE = service("web", f'clusterIPs: [{VIPS[0]}, "{VIPS[1]}"], {PORTS}')
#: What sockets are translated for at `connect()` wherever they are: TCP.
LASTING = (Kind.STREAM, Kind.PUSH)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with world_of() as made:
        for name in ("client", "web-0", "web-1", "web-2", "web-3"):
            made.workload(name)
        yield made


def choose(world: World, *names: str, leaving: Sequence[str] = ()) -> None:
    """Only these get new connections, from now on."""
    world.resource("web.yaml", SERVICE + world.behind("web", PORT, names, leaving))
    for family, place in enumerate(PLACES):
        world.until_used(place, *(world.workloads[name].addresses[family] for name in names))


def flows(world: World, *kinds: Kind) -> list[Flow]:
    made = [
        flow
        for where, netns in (("workload", world.workloads["client"].netns), ("node", world.node.netns))
        for name, vips in ((f"{where}-", VIPS), (f"{where}-mapped-", (MAPPED,)))
        for flow in mesh(netns, vips, PORT, interval=0.02, name=name)
    ]
    return [flow for flow in made if flow.kind in kinds]


def traffic_of(world: World, flows: Sequence[Flow], *, serve: bool = True) -> Traffic:
    behind = [(one.netns, PORT) for name, one in world.workloads.items() if name.startswith("web")]
    return Traffic(servers=behind if serve else [], flows=flows, cgroup=world.node.cgroup)


def received(world: World, report: Report, name: str) -> int:
    """Connections that came to a backend."""
    return report.received.get(f"{world.workloads[name].netns}:{PORT}/tcp", 0)


def at_packets(world: World) -> list[str]:
    """TCP connections that were not translated at their socket."""
    with world.node.client() as api:
        rows = [row for part in api.stream("bpf.ct.list", protocol="tcp") for row in part]
    return [row["service"] for row in rows if row["service"]]


def test_all_backends_are_replaced_and_no_request_fails(world: World) -> None:
    """With graceful termination. Who is gone gets nothing any more."""
    choose(world, "web-0", "web-1")
    with traffic_of(world, flows(world, Kind.REQUEST)) as traffic:
        for old, new, other in (("web-0", "web-2", "web-1"), ("web-1", "web-3", "web-2")):
            choose(world, old, new, other)
            choose(world, new, other, leaving=[old])
            traffic.more(5)  # what was under way has ended
            choose(world, new, other)
            world.until_forgotten(old, PORT)
            before = received(world, traffic.report(), old)
            traffic.more(5)
            assert received(world, traffic.report(), old) == before
    report = traffic.check()
    assert all(received(world, report, name) for name in ("web-0", "web-1", "web-2", "web-3"))
    assert at_packets(world) == []


def test_the_agent_is_killed_and_comes_back_and_services_change_meanwhile(world: World) -> None:
    """`connect()` goes on to be translated while nobody is there, and so do datagrams."""
    choose(world, "web-0", "web-1")
    with traffic_of(world, flows(world, *Kind)) as traffic:
        world.node.kill9()
        dead = traffic.report()
        traffic.more(10)
        alive = traffic.report()
        assert all(received(world, alive, name) > received(world, dead, name) for name in ("web-0", "web-1"))
        world.node.start()
        traffic.more(10)
        world.node.kill9()
        world.resource("web.yaml", SERVICE + world.behind("web", PORT, ("web-0", "web-1", "web-2")))
        world.node.start()
        choose(world, "web-0", "web-1", "web-2")
        traffic.more(10)
    assert received(world, traffic.check(), "web-2")
    assert at_packets(world) == []


def test_who_leaves_keeps_its_connections_and_gets_no_new_ones(world: World) -> None:
    """Also while no agent runs, and when one is back."""
    choose(world, "web-0")
    lasting = flows(world, *LASTING)
    with traffic_of(world, lasting) as stay:
        choose(world, "web-1", leaving=["web-0"])
        with traffic_of(world, flows(world, Kind.REQUEST), serve=False) as come:
            for act in (world.node.kill9, world.node.start, lambda: None):
                act()
                stay.more(5)
                come.more(5)
        answered = come.check().answered
    report = stay.check()
    assert received(world, report, "web-0") == len(lasting)
    assert received(world, report, "web-1") == answered
    assert at_packets(world) == []
