"""Workloads reach the world under the node's address, and its answers reach them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from edge_world import Edge
from packet_world import dropped, words

from axoneme.core.testing.datapath import Action, Outcome
from axoneme.core.testing.packets import (
    ACK,
    FIN,
    ICMP,
    RST,
    SYN,
    UDP,
    ICMPv6,
    IPv4,
    IPv6,
    intact,
    parse,
)

pytestmark = pytest.mark.kernel

FIRST, LAST = 1024, 29999


def ends(edge: Edge, outcome: Outcome) -> tuple[str, int, str, int]:
    """Source and destination of a TCP or UDP frame that was handed on, its checksums being right."""
    assert outcome.action is Action.REDIRECT, outcome
    assert intact(outcome.frame)
    packet = parse(outcome.frame)
    ip = packet[IPv4] if edge.family == 4 else packet[IPv6]
    ports = packet.layers[2]
    return ip.src, ports.sport, ip.dst, ports.dport  # type: ignore[attr-defined]


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_there_and_back(edge: Edge, protocol: str) -> None:
    make = edge.tcp if protocol == "tcp" else edge.udp
    flags = {"flags": SYN} if protocol == "tcp" else {}
    source, port, destination, service = ends(edge, edge.send(make("a", "world", dport=443, **flags)))
    assert (source, destination, service) == (edge.node, edge.addresses["world"], 443)
    assert FIRST <= port <= LAST
    answer = make("world", edge.node, sport=443, dport=port, **({"flags": SYN | ACK} if flags else {}))
    expected = edge.addresses["world"], 443, edge.addresses["a"], 40000
    assert ends(edge, edge.arrive(answer)) == expected
    # Established, both ways, by the entries alone.
    edge.bench.map(f"lb_addresses{edge.family}")
    again = edge.send(make("a", "world", dport=443))
    assert ends(edge, again) == (edge.node, port, edge.addresses["world"], 443)
    assert not len(again.events)
    assert ends(edge, edge.arrive(make("world", edge.node, sport=443, dport=port))) == expected
    assert edge.entries() == 2


def test_a_port_that_may_be_given_out_is_kept(edge: Edge) -> None:
    assert ends(edge, edge.send(edge.tcp("a", "world", SYN, sport=1234)))[1] == 1234


def test_two_workloads_with_the_same_port_get_different_ones(edge: Edge) -> None:
    one = ends(edge, edge.send(edge.tcp("a", "world", SYN, sport=1234)))
    other = ends(edge, edge.send(edge.tcp("b", "world", SYN, sport=1234)))
    assert one[1] == 1234
    assert other[1] != 1234
    for name, port in (("a", one[1]), ("b", other[1])):
        back = ends(edge, edge.arrive(edge.tcp("world", edge.node, SYN | ACK, sport=80, dport=port)))
        assert back[2:] == (edge.addresses[name], 1234)


def test_policy_sees_who_it_is(edge: Edge) -> None:
    """Events have the workload's own address, and the world's."""
    event = edge.send(edge.tcp("a", "world", SYN)).events[0]
    assert (event["source_endpoint"], event["source_identity"]) == (1, 256)
    assert event["sport"] == 40000


def test_native_prefixes_are_reached_as_who_one_is(edge: Edge) -> None:
    edge.native("10.1.0.0/16" if edge.family == 4 else "fd01::/64")
    assert ends(edge, edge.send(edge.tcp("a", "remote", SYN)))[:2] == (edge.addresses["a"], 40000)
    assert ends(edge, edge.send(edge.tcp("a", "world", SYN)))[0] == edge.node


def test_answers_to_the_world_keep_their_address(edge: Edge) -> None:
    """The world reached the workload directly."""
    assert edge.arrive(edge.tcp("world", "b", SYN)).action is Action.REDIRECT
    back = edge.send(edge.tcp("b", "world", SYN | ACK, sport=80, dport=40000))
    assert ends(edge, back)[:2] == (edge.addresses["b"], 80)


def test_echo(edge: Edge) -> None:
    outcome = edge.send(edge.echo("a", "world", identifier=60000))
    assert outcome.action is Action.REDIRECT
    assert intact(outcome.frame)
    asked = parse(outcome.frame)
    assert asked.layers[1].src == edge.node  # type: ignore[attr-defined]
    identifier = int.from_bytes(asked[ICMP if edge.family == 4 else ICMPv6].rest[:2], "big")
    assert FIRST <= identifier <= LAST
    back = edge.arrive(edge.echo("world", edge.node, reply=True, identifier=identifier))
    assert back.action is Action.REDIRECT
    assert intact(back.frame)
    answered = parse(back.frame)
    assert answered.layers[1].dst == edge.addresses["a"]  # type: ignore[attr-defined]
    assert int.from_bytes(answered[ICMP if edge.family == 4 else ICMPv6].rest[:2], "big") == 60000


def test_an_error_about_it_reaches_the_workload_as_about_its_own_packet(edge: Edge) -> None:
    sent = edge.tcp("a", "world", SYN)
    there = edge.send(sent)
    error = edge.error("router", edge.node, there.frame)
    outcome = edge.arrive(error)
    assert outcome.action is Action.REDIRECT
    assert intact(outcome.frame)
    packet = parse(outcome.frame)
    assert packet.layers[1].src == edge.addresses["router"]  # type: ignore[attr-defined]
    assert packet.layers[1].dst == edge.addresses["a"]  # type: ignore[attr-defined]
    inner = packet.payload
    at = 20 if edge.family == 4 else 40
    assert inner[at : at + 4] == sent[14 + at : 14 + at + 4], "its own ports"


def test_the_world_cannot_open_what_nobody_asked_for(edge: Edge) -> None:
    frame = edge.tcp("world", edge.node, SYN, sport=443, dport=2000)
    outcome = edge.arrive(frame)
    assert (outcome.action, outcome.frame) == (Action.PASS, frame), "it is the host's business"


def test_no_port_left(edge: Edge) -> None:
    """New connections fail with a reason of their own; those that are there go on."""
    first = ends(edge, edge.send(edge.tcp("b", "world", SYN, sport=1024)))
    keys, values = edge.table.items()
    reply = keys[keys["sport"] == 80]
    value = values[keys["sport"] == 80][0]
    import numpy as np

    ports = np.arange(FIRST, LAST + 1)
    full = np.repeat(reply, len(ports))
    full["dport"] = ports
    entries = np.repeat(value, len(ports))
    entries["nat_dport"][1:] = 1025
    assert edge.table.spec.max_entries >= 2 * len(ports)
    edge.table.update_batch(full[1:], entries[1:])
    assert dropped(edge.send(edge.tcp("a", "world", SYN)), "NO_MAPPING_FOR_NAT_MASQUERADE")
    assert ends(edge, edge.send(edge.tcp("b", "world", sport=1024))) == first


def test_closed_ports_are_given_out_again(edge: Edge) -> None:
    port = ends(edge, edge.send(edge.tcp("a", "world", SYN, sport=1234)))[1]
    edge.send(edge.tcp("a", "world", RST, sport=1234))
    assert ends(edge, edge.send(edge.tcp("b", "world", SYN, sport=1234)))[1] == port


def test_the_next_connection_of_the_same_ports(edge: Edge) -> None:
    first = ends(edge, edge.send(edge.tcp("a", "world", SYN)))
    edge.send(edge.tcp("a", "world", FIN | ACK))
    edge.arrive(edge.tcp("world", edge.node, FIN | ACK, sport=80, dport=first[1]))
    again = ends(edge, edge.send(edge.tcp("a", "world", SYN)))
    assert again[0] == edge.node
    assert ends(edge, edge.arrive(edge.tcp("world", edge.node, SYN | ACK, sport=80, dport=again[1])))[2:] == (
        edge.addresses["a"],
        40000,
    )


@pytest.fixture
def moved(edge: Edge) -> Iterator[Callable[[str], None]]:
    """Gives the device another address to leave by, as when the way out moves."""
    table = edge.bench.map(f"lb_addresses{edge.family}")
    device = edge.bench.link("uplink")

    def move(address: str) -> None:
        table.update(device, {"a": words(address)})
        edge.bench.revision += 1

    yield move
    move(edge.node)


def other(edge: Edge) -> str:
    return "198.51.100.9" if edge.family == 4 else "2001:db8:1::9"


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_connection_whose_address_is_gone_goes_on_under_the_other_one(
    edge: Edge, moved: Callable[[str], None], protocol: str
) -> None:
    """A resolver that asks from one socket for good is not lost; TCP learns at once from its server that it is over."""
    make, asked = (edge.tcp, 80) if protocol == "tcp" else (edge.udp, 53)
    opening = {"flags": SYN} if protocol == "tcp" else {}
    assert ends(edge, edge.send(make("a", "world", **opening)))[0] == edge.node
    edge.bench.revision += 1
    before = ends(edge, edge.send(make("a", "world")))
    assert before[0] == edge.node, "decided anew, and the same"
    moved(other(edge))
    address, port, destination, service = ends(edge, edge.send(make("a", "world")))
    assert (address, destination, service) == (other(edge), edge.addresses["world"], asked)
    back = edge.arrive(make("world", other(edge), sport=asked, dport=port))
    assert ends(edge, back) == (edge.addresses["world"], asked, edge.addresses["a"], 40000)
    assert ends(edge, edge.send(make("a", "world")))[:2] == (other(edge), port)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_what_left_under_its_own_address_before(
    edge: Edge, moved: Callable[[str], None], protocol: str
) -> None:
    """There was no address to leave by yet: datagrams get one, TCP stays."""
    make = edge.tcp if protocol == "tcp" else edge.udp
    edge.bench.map(f"lb_addresses{edge.family}").clear()
    opening = {"flags": SYN} if protocol == "tcp" else {}
    assert ends(edge, edge.send(make("a", "world", **opening)))[0] == edge.addresses["a"]
    moved(edge.node)
    expected = edge.addresses["a"] if protocol == "tcp" else edge.node
    assert ends(edge, edge.send(make("a", "world")))[0] == expected


def test_a_first_packet_too_large_for_the_device_does_not_open_a_way_around(edge: Edge) -> None:
    """Those that follow would leave under the workload's own address."""
    large = edge.frame("a", "world", UDP(2000, 53), bytes(3000))
    assert ends(edge, edge.send(large))[:2] == (edge.node, 2000)
    assert ends(edge, edge.send(edge.udp("a", "world", sport=2000)))[:2] == (edge.node, 2000)
