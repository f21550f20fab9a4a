"""Where packets go: the node's workloads, the host, other nodes and the world; and what each attach point leaves alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from packet_world import (
    ADDRESSES,
    IDENTITIES,
    World,
    discarded,
    dropped,
    forwarded,
    only,
    populate,
)

from axoneme.core.datapath.abi import AttachPoint, EventType, NextHop
from axoneme.core.datapath.composer import Constants
from axoneme.core.testing.datapath import Action, DatapathBench
from axoneme.core.testing.packets import SYN, UDP, Ethernet, Vlan, build, intact, parse

pytestmark = pytest.mark.kernel

EVERYWHERE = ["from_workload", "to_workload", "from_network", "to_network"]


@pytest.mark.parametrize("to", ["host", "world", "remote"])
def test_who_is_no_workload_of_the_node_is_the_stacks(world: World, to: str) -> None:
    frame = world.tcp("a", to, SYN)
    outcome = world.send(frame)
    assert (outcome.action, outcome.frame) == (Action.PASS, frame)
    event = only(outcome.events)
    assert (event["destination_identity"], event["destination_endpoint"]) == (IDENTITIES[to], 0)
    assert event["next_hop"] == NextHop.STACK
    again = world.send(frame)
    assert (again.action, again.frame) == (Action.PASS, frame)
    back = world.connection(to, "a", 80, 40000)
    assert (back["next_hop"], back["ifindex"]) == (NextHop.LOCAL, world.bench.link("a"))


@pytest.mark.parametrize("ttl", [0, 1])
@pytest.mark.parametrize("established", [False, True])
def test_a_packet_whose_time_is_up_goes_to_the_stack(world: World, ttl: int, established: bool) -> None:
    """The stack says so to its sender."""
    if established:
        world.open("a", "b")
    frame = world.tcp("a", "b", ttl=ttl)
    outcome = world.send(frame)
    assert (outcome.action, outcome.frame) == (Action.PASS, frame)


def test_the_last_hop_but_one_is_delivered(world: World) -> None:
    frame = world.tcp("a", "b", ttl=2)
    assert forwarded(frame, world.send(frame), source=1, destination=2)


def _near_the_carry(world: World) -> bytes:
    """A packet whose checksum overflows somewhere on its way, where sums of ones' complement have their carry."""
    if world.family == 6:
        return world.tcp("a", "b", ttl=255)
    frames = (world.tcp("a", "b", ttl=255, id=number) for number in range(65536))
    return next(frame for frame in frames if 0xFF10 < int.from_bytes(frame[24:26], "little") < 0xFFE0)


def test_many_hops_keep_the_checksum(world: World) -> None:
    """A packet that goes round and round: every TTL."""
    frame = _near_the_carry(world)
    for _ in range(254):
        outcome = world.send(frame)
        assert outcome.action is Action.REDIRECT
        assert intact(outcome.frame)
        frame = outcome.frame
    assert world.send(frame).action is Action.PASS


# From the host and the world, through the stack.


@pytest.mark.parametrize("source", ["host", "world", "remote"])
def test_the_stack_delivers_through_the_hub(world: World, source: str) -> None:
    frame = world.tcp(source, "b", SYN)
    outcome = world.deliver(frame)
    assert forwarded(frame, outcome, source=9, destination=2, hop=0), "the stack has counted the hop"
    event = only(outcome.events)
    assert event["type"] == EventType.NEW
    assert event["attach_point"] == AttachPoint.to_workload
    assert (event["source_identity"], event["destination_identity"]) == (IDENTITIES[source], 257)
    assert (event["source_endpoint"], event["destination_endpoint"]) == (0, 2)
    reply = world.tcp("b", source, sport=80, dport=40000)
    answer = world.send(reply)
    assert (answer.action, answer.frame) == (Action.PASS, reply)
    assert not len(answer.events)


def test_replies_of_the_world_are_replies(world: World) -> None:
    world.send(world.udp("a", "world"))
    world.gate(reason=133)
    frame = world.udp("world", "a", sport=53, dport=40000)
    outcome = world.deliver(frame)
    assert forwarded(frame, outcome, source=9, destination=1, hop=0)
    assert not len(outcome.events)


def test_an_address_that_nobody_has_is_told(world: World) -> None:
    before = world.counted("STALE_OR_UNROUTABLE_IP", 0)
    assert dropped(world.deliver(world.tcp("host", "unused", SYN)), "STALE_OR_UNROUTABLE_IP")
    assert world.counted("STALE_OR_UNROUTABLE_IP", 0) == before + 1


def test_multicast_of_the_host_is_noise(world: World) -> None:
    group = "224.0.0.251" if world.family == 4 else "ff02::fb"
    assert discarded(world.deliver(world.udp("host", group)))


# The node's own devices.


def test_the_network_reaches_a_workload_past_the_stack(world: World) -> None:
    frame = world.tcp("world", "b", SYN)
    outcome = world.arrive(frame)
    assert forwarded(frame, outcome, source=9, destination=2)
    event = only(outcome.events)
    assert event["attach_point"] == AttachPoint.from_network
    assert (event["source_identity"], event["destination_identity"]) == (IDENTITIES["world"], 257)


def test_the_network_meets_decisions(world: World) -> None:
    world.gate(reason=133)
    assert dropped(world.arrive(world.tcp("world", "b", SYN)), "POLICY_DENIED")
    assert world.counted("POLICY_DENIED", 0)


def strangers(world: World) -> list[bytes]:
    """Traffic of the host and of others, whole and broken, understood or not."""
    frames = [
        world.tcp("world", "host", SYN),
        world.udp("host", "world"),
        world.echo("world", "host"),
        world.error("router", "host", world.udp("host", "world")),
        world.frame("world", "host", bytes(20), protocol=47),
        world.frame("host", "world", bytes(20), protocol=89),
        world.frame("world", "host", UDP(1, 2))[:-5],
        world.udp("world", "224.0.0.1" if world.family == 4 else "ff02::1"),
    ]
    if world.family == 4:
        frames += [world.frame("host", "world", bytes(24), protocol=17, offset=1480, id=9)]
    return frames


@pytest.mark.parametrize("point", ["from_network", "to_network"])
def test_strangers_are_never_dropped(world: World, point: str) -> None:
    world.gate(reason=133)
    for frame in strangers(world):
        outcome = world.bench.run(point, frame, sender=world.bench.link("uplink"))
        assert (outcome.action, outcome.frame) == (Action.PASS, frame)
        assert not len(outcome.events)
    assert world.entries() == 0


def test_what_leaves_the_node_leaves_it(world: World) -> None:
    world.open("a", "b")
    frame = world.tcp("a", "world")
    outcome = world.bench.run("to_network", frame, sender=world.bench.link("uplink"))
    assert (outcome.action, outcome.frame) == (Action.PASS, frame)


@pytest.mark.parametrize("point", EVERYWHERE)
def test_other_link_layers(world: World, point: str) -> None:
    """A workload speaks IP; what else the host's devices carry is not ours."""
    network = point.endswith("_network")
    for frame in (
        build(Ethernet(type=0x88CC), bytes(46)),
        build(Ethernet(), Vlan(5), world.ip("a", "b"), UDP(1, 2), b"tagged"),
    ):
        outcome = world.bench.run(point, frame, sender="a")
        assert outcome.action is (Action.PASS if network else Action.SHOT)
        assert not len(outcome.events)


# Straight out of a device.


@pytest.fixture(scope="module")
def routed() -> Iterator[DatapathBench]:
    """A bench with a route to the world by a device, and one to other nodes by a device that is not ours."""
    with DatapathBench(constants=Constants(direct_routing=True)) as bench:
        populate(bench)
        ours, other = bench.link("uplink"), bench.link("other")
        bench.inside(lambda: _routes(ours, other))
        bench.map("devices").update(ours, ours)
        yield bench


def _routes(ours: int, other: int) -> None:
    from pyroute2 import IPRoute

    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # of this namespace only
    Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")
    with IPRoute() as route:
        for family, index, near, length, gateway, network in (
            (4, ours, "198.51.100.2", 24, "198.51.100.1", "192.0.2.0/24"),
            (4, other, "203.0.113.2", 24, "203.0.113.1", "10.1.0.0/16"),
            (6, ours, "2001:db8:1::2", 64, "2001:db8:1::1", "2001:db8::/64"),
            (6, other, "2001:db8:2::2", 64, "2001:db8:2::1", "fd01::/64"),
        ):
            route.addr("add", index=index, address=near, prefixlen=length, flags=0x02 if family == 6 else 0)
            route.neigh("add", dst=gateway, lladdr="02:00:00:00:01:01", ifindex=index, state=0x80)
            route.route("add", dst=network, gateway=gateway, oif=index)


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def direct(request: pytest.FixtureRequest, routed: DatapathBench) -> World:
    return World(routed, request.param).reset()


def test_the_world_by_a_device(direct: World) -> None:
    frame = direct.tcp("a", "world", SYN, ttl=64)
    for _ in range(2):
        outcome = direct.send(frame)
        assert outcome.action is Action.REDIRECT
        assert intact(outcome.frame)
        assert parse(outcome.frame).layers[0] == parse(frame).layers[0], "the neighbour's address comes later"
        assert _ttl(outcome.frame) == 63
    entry = direct.connection("a", "world")
    assert (entry["next_hop"], entry["ifindex"]) == (NextHop.DEVICE, direct.bench.link("uplink"))


def _ttl(frame: bytes) -> int:
    ip = parse(frame).layers[1]
    return int(getattr(ip, "ttl", None) or ip.hop_limit)  # type: ignore[attr-defined]


def test_a_device_that_is_not_ours_is_the_stacks(direct: World) -> None:
    frame = direct.tcp("a", "remote", SYN)
    outcome = direct.send(frame)
    assert (outcome.action, outcome.frame) == (Action.PASS, frame)


def test_the_host_is_never_behind_a_device(direct: World) -> None:
    assert direct.send(direct.tcp("a", "host", SYN)).action is Action.PASS


def test_no_route_is_the_stacks_business(direct: World) -> None:
    nowhere = "172.16.0.1" if direct.family == 4 else "2001:db8:ffff::1"
    assert direct.send(direct.udp("a", nowhere)).action is Action.PASS


def test_time_is_up_before_a_device_too(direct: World) -> None:
    frame = direct.tcp("a", "world", ttl=1)
    outcome = direct.send(frame)
    assert (outcome.action, outcome.frame) == (Action.PASS, frame)


def test_answers_to_the_world_find_the_device_themselves(direct: World) -> None:
    """The world opened the connection, so its way out was not known then."""
    assert direct.arrive(direct.tcp("world", "b", SYN)).action is Action.REDIRECT
    outcome = direct.send(direct.tcp("b", "world", sport=80, dport=40000))
    assert outcome.action is Action.REDIRECT
    assert not len(outcome.events)
    back = direct.connection("b", "world", 80, 40000)
    assert (back["next_hop"], back["revision"], back["flags"]) == (NextHop.DEVICE, 1, 1)
    assert direct.connection("world", "b")["packets"] == 1
    again = direct.arrive(direct.tcp("world", "b"))
    assert again.action is Action.REDIRECT
    assert direct.connection("b", "world", 80, 40000)["revision"] == 1


def test_local_workloads_stay_local(direct: World) -> None:
    frame = direct.tcp("a", "b", SYN)
    assert forwarded(frame, direct.send(frame), source=1, destination=2)


def test_addresses_are_of_two_families() -> None:
    assert ADDRESSES[4].keys() == ADDRESSES[6].keys()
