"""Echoes are connections; errors belong to the connection that they are about. The same for every strategy."""

from __future__ import annotations

import pytest
from packet_world import STRATEGIES, World, dropped, forwarded, ipv4_only, ipv6_only, only

from axoneme.core.datapath.abi import ConnectionFlag, EventType
from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import ACK, ICMP, SYN, TCP, UDP, ICMPv6, build, fragments

pytestmark = pytest.mark.kernel


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def unknown(world: World) -> str:
    return f"UNKNOWN_ICMPV{world.family}_CODE"


def test_an_echo_and_its_answer_are_one_connection(world: World) -> None:
    protocol = 1 if world.family == 4 else 58
    request = world.echo("a", "b")
    first = world.send(request)
    assert forwarded(request, first, source=1, destination=2)
    event = only(first.events)
    assert (event["type"], event["icmp_type"]) == (EventType.NEW, 8 if world.family == 4 else 128)
    reply = world.echo("b", "a", reply=True)
    answer = world.send(reply)
    assert forwarded(reply, answer, source=2, destination=1)
    assert not len(answer.events)
    assert world.connection("a", "b", 77, 77, protocol)["flags"] == 0
    assert world.connection("b", "a", 77, 77, protocol)["flags"] == ConnectionFlag.REPLY
    assert world.connection("b", "a", 77, 77, protocol)["packets"] == 1


def test_another_identifier_is_another_connection(world: World) -> None:
    world.send(world.echo("a", "b"))
    assert only(world.send(world.echo("a", "b", identifier=78)).events)["type"] == EventType.NEW
    assert world.entries() == 4


def test_records_have_the_code(world: World) -> None:
    layer = ICMP(13, code=7) if world.family == 4 else ICMPv6(139, code=7)
    event = only(world.send(world.frame("a", "b", layer)).events)
    assert (event["icmp_type"], event["tcp_flags"]) == (layer.type, 7)
    error = only(world.send(world.error("b", "a", world.udp("a", "b"))).events)
    assert (error["type"], error["tcp_flags"]) == (EventType.DROP, 0)


@pytest.mark.parametrize("stale", [False, True])
@pytest.mark.parametrize("protocol", ["tcp", "udp", "echo"])
def test_the_peers_error_reaches_who_caused_it(world: World, protocol: str, stale: bool) -> None:
    cause = getattr(world, protocol)("a", "b")
    world.send(cause)
    world.bench.revision += stale
    before = world.snapshot()
    error = world.error("b", "a", cause)
    outcome = world.send(error)
    assert forwarded(error, outcome, source=2, destination=1)
    assert not len(outcome.events)
    assert world.snapshot() == before, "an error is no traffic of its connection"


def test_an_error_of_a_flow_that_is_no_longer_allowed_is_dropped(world: World) -> None:
    cause = world.udp("a", "b")
    world.send(cause)
    world.bench.revision = 2
    world.gate(reason=133)
    assert dropped(world.send(world.error("b", "a", cause)), "POLICY_DENIED")


def test_the_clients_error_reaches_the_server(world: World) -> None:
    world.open("a", "b")
    world.bench.revision = 2
    error = world.error("a", "b", world.tcp("b", "a", sport=80, dport=40000))
    assert forwarded(error, world.send(error), source=1, destination=2)


@pytest.mark.parametrize("point", ["arrive", "deliver"])
@pytest.mark.parametrize("stale", [False, True])
def test_a_routers_error_reaches_the_workload(world: World, point: str, stale: bool) -> None:
    cause = world.tcp("a", "world", SYN)
    world.send(cause)
    world.bench.revision += stale
    error = world.error("router", "a", cause, kind=11 if world.family == 4 else 3)
    outcome = getattr(world, point)(error)
    assert forwarded(error, outcome, source=9, destination=1, hop=point == "arrive")


def test_path_mtu_messages_pass(world: World) -> None:
    cause = world.tcp("a", "world")
    world.send(cause)
    too_big = world.error("router", "a", cause, kind=3 if world.family == 4 else 2)
    assert world.arrive(too_big).action is Action.REDIRECT


def test_a_workload_makes_errors_about_its_own_packets_only(world: World) -> None:
    """What c says about a connection between a and b; as itself, and as b."""
    world.open("a", "b")
    cause = world.tcp("a", "b")
    before = world.snapshot()
    assert dropped(world.send(world.error("c", "a", cause), sender="c"), unknown(world))
    assert dropped(world.send(world.error("b", "a", cause), sender="c"), "INVALID_SOURCE_IP")
    assert world.snapshot() == before


def test_an_error_goes_to_whom_it_is_about(world: World) -> None:
    world.open("a", "b")
    assert dropped(world.send(world.error("b", "c", world.tcp("a", "b"))), unknown(world))


def test_errors_of_unknown_flows_are_dropped(world: World) -> None:
    assert dropped(world.send(world.error("b", "a", world.udp("a", "b"))), unknown(world))
    assert dropped(world.deliver(world.error("router", "a", world.udp("a", "world"))), unknown(world))
    assert world.entries() == 0


def test_from_the_network_they_go_to_the_stack(world: World) -> None:
    """It may be about a connection of the host. What it then sends on to a workload is dropped there."""
    assert world.arrive(world.error("router", "a", world.udp("a", "world"))).action is Action.PASS


@pytest.mark.parametrize("size", range(0, 48, 3))
def test_an_error_that_quotes_too_little_is_invalid(world: World, size: int) -> None:
    world.send(world.udp("a", "b"))
    quoted = world.udp("a", "b")[14 : 14 + size]
    frame = world.error("b", "a", bytes(14) + quoted)
    needed = (20 if world.family == 4 else 40) + 4
    outcome = world.send(frame)
    if size >= needed:
        assert outcome.action is Action.REDIRECT
    else:
        assert outcome.reason in ("INVALID_PACKET_DROPPED", unknown(world))


def test_an_answer_that_nobody_asked_for_is_a_packet_of_its_own(world: World) -> None:
    world.gate(reason=133)
    assert dropped(world.send(world.echo("b", "a", reply=True)), "POLICY_DENIED")


@ipv4_only
def test_quoted_options_are_skipped(world: World) -> None:
    world.send(world.udp("a", "b"))
    quoted = build(world.ip("a", "b", options=b"\x01" * 8), UDP(40000, 53), b"")
    assert world.send(world.error("b", "a", bytes(14) + quoted)).action is Action.REDIRECT


@ipv4_only
def test_a_quoted_later_fragment_tells_no_connection(world: World) -> None:
    quoted = build(world.ip("a", "b", offset=1480, protocol=17), bytes(16))
    assert dropped(world.send(world.error("b", "a", bytes(14) + quoted)), unknown(world))


def test_an_error_about_an_error_is_dropped(world: World) -> None:
    cause = world.udp("a", "b")
    world.send(cause)
    assert world.send(world.error("a", "b", world.error("b", "a", cause))).action is Action.SHOT


def test_a_connection_named_by_an_error_alone_is_not_made(world: World) -> None:
    quoted = build(world.ip("a", "b"), TCP(1, 2, flags=ACK), b"")
    assert world.send(world.error("b", "a", bytes(14) + quoted)).action is Action.SHOT
    assert world.entries() == 0


@ipv6_only
def test_a_quoted_first_fragment_has_ports_and_a_later_one_has_not(world: World) -> None:
    """Routers of IPv6 cut nothing: it is by these errors that who sends fragments learns how large they may be."""
    first, later = fragments(world.frame("a", "b", UDP(40000, 53), bytes(2000)), 1400)
    assert world.send(first).action is Action.REDIRECT
    about = world.error("b", "a", first, kind=2)
    assert forwarded(about, world.send(about), source=2, destination=1)
    assert dropped(world.send(world.error("b", "a", later, kind=2)), unknown(world))
