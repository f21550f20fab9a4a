"""What a broken packet must not do. Each of these was found by `test_fuzz.py`."""

from __future__ import annotations

import pytest
from edge_world import Edge
from packet_world import dropped

from axoneme.core.testing.datapath import Action, Outcome
from axoneme.core.testing.packets import ACK, ICMP, SYN, UDP, ICMPv6, fragments, intact, parse

pytestmark = pytest.mark.kernel


def unknown(edge: Edge) -> str:
    return f"UNKNOWN_ICMPV{edge.family}_CODE"


def ports(edge: Edge, outcome: Outcome) -> tuple[int, int]:
    assert outcome.action is Action.REDIRECT, outcome
    assert intact(outcome.frame)
    layer = parse(outcome.frame).layers[2]
    return layer.sport, layer.dport  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", [0, 1])
def test_a_message_without_an_identifier_does_not_get_one(edge: Edge, kind: int) -> None:
    """A redirect has an address there (RFC 792), a node information query its flags (RFC 4620)."""
    made = (ICMP, (5, 9)) if edge.family == 4 else (ICMPv6, (139, 140))
    for known in (False, True):  # also if an echo is there whose identifier looks like it
        if known:
            assert edge.send(edge.echo("a", "world", identifier=0x0A00)).action is Action.REDIRECT
        message = edge.frame("a", "world", made[0](made[1][kind], rest=b"\x0a\x00\x00\x07"), bytes(28))
        assert dropped(edge.send(message), unknown(edge))
    there = edge.send(edge.echo("a", "world", identifier=0x0A00))
    assert there.action is Action.REDIRECT


def test_an_error_about_such_a_message_is_about_nothing_known(edge: Edge) -> None:
    there = edge.send(edge.echo("a", "world", identifier=2000))
    error = bytearray(edge.error("router", edge.node, there.frame))
    at = 14 + 2 * (20 if edge.family == 4 else 40) + 8
    assert edge.arrive(bytes(error)).action is Action.REDIRECT
    error[at] = 21 if edge.family == 4 else 139
    assert edge.arrive(bytes(error)).action is not Action.REDIRECT


def test_an_error_about_a_packet_of_no_version_is_about_nothing_known(edge: Edge) -> None:
    there = edge.send(edge.udp("a", "world"))
    error = bytearray(edge.error("router", edge.node, there.frame))
    assert edge.arrive(bytes(error)).action is Action.REDIRECT
    error[14 + (20 if edge.family == 4 else 40) + 8] ^= 0x80
    assert edge.arrive(bytes(error)).action is not Action.REDIRECT


def test_an_error_in_fragments_says_nobodys_ports(edge: Edge) -> None:
    """Its ports are those of the packet that it is about; they are not those of another datagram with its number."""
    there = edge.send(edge.frame("a", "world", UDP(2000, 53), bytes(100)))
    whole = edge.error("router", edge.node, there.frame)
    assert edge.arrive(whole).action is Action.REDIRECT
    edge.arrive(fragments(whole, 48, 7)[0])
    assert not len(edge.bench.map(f"fragments{edge.family}").items()[0])
    later = fragments(edge.frame("world", edge.node, UDP(53, 2000), bytes(100)), 48, 7)[1]
    assert edge.arrive(later).action is not Action.REDIRECT


@pytest.fixture
def opened(edge: Edge) -> Edge:
    """A workload's connection to the world, and one from outside to a backend elsewhere."""
    edge.backend(1, "remote", 8080)
    edge.service(1)
    for outcome in (
        edge.send(edge.tcp("a", "world", SYN, sport=2000)),
        edge.arrive(edge.tcp("world", edge.vip, SYN, sport=3000)),
    ):
        assert outcome.action is Action.REDIRECT
    return edge


@pytest.mark.parametrize("how", ["cut off", "last hop"])
def test_what_looks_like_an_opening_does_not_end_a_connection(opened: Edge, how: str) -> None:
    """It is dropped, or the stack's; but the answers of those who are connected are translated still."""
    edge, before = opened, opened.snapshot()
    hops = {"ttl": 1} if how == "last hop" else {}
    cut = -len(b"payload") - 4 if how == "cut off" else None
    asked = (
        edge.tcp("a", "world", SYN, sport=2000, **hops)[:cut],
        edge.tcp("world", edge.vip, SYN, sport=3000, **hops)[:cut],
    )
    for outcome in (edge.send(asked[0], sender="a"), edge.arrive(asked[1])):
        if how == "cut off":
            assert dropped(outcome, "ERROR_WHILE_CORRECTING_L4_CHECKSUM")
        else:
            assert outcome.action is not Action.REDIRECT
    assert len(edge.snapshot()) == len(before)
    assert ports(edge, edge.arrive(edge.tcp("world", edge.node, ACK, sport=80, dport=2000))) == (80, 2000)
    assert ports(edge, edge.arrive(edge.tcp("remote", edge.node, ACK, sport=8080, dport=3000))) == (80, 3000)
