"""What comes before the ports: fragments, options, extension headers, and packets that end too early."""

from __future__ import annotations

from itertools import permutations

import pytest
from packet_world import UDP_PROTOCOL, World, discarded, dropped, forwarded, ipv4_only, ipv6_only, only

from axoneme.core.datapath.abi import EventType
from axoneme.core.datapath.kernel import BpfError
from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import (
    AUTHENTICATION,
    DESTINATION,
    HOP_BY_HOP,
    ROUTING,
    SCTP,
    SYN,
    TCP,
    UDP,
    Extension,
    Fragment,
    build,
    fragments,
)

pytestmark = pytest.mark.kernel

LOST_FRAGMENT = "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND"
NO_NEXT = 59


def datagram(world: World, size: int = 40) -> bytes:
    return world.frame("a", "b", UDP(40000, 53), bytes(range(size)))


# Fragments.


def test_fragments_follow_the_first(world: World) -> None:
    first, *later = fragments(datagram(world), 16)
    assert only(world.send(first).events)["dport"] == 53
    for fragment in later:
        outcome = world.send(fragment)
        assert forwarded(fragment, outcome, source=1, destination=2)
        assert not len(outcome.events)
    assert world.entries() == 2
    assert world.connection("a", "b", 40000, 53, UDP_PROTOCOL)["packets"] == 1 + len(later)


def test_fragments_of_an_echo_follow_the_first(world: World) -> None:
    for fragment in fragments(world.echo("a", "b", data=bytes(40)), 16):
        assert world.send(fragment).action is Action.REDIRECT
    assert world.entries() == 2


def test_a_later_fragment_alone_is_dropped(world: World) -> None:
    _, later, *_ = fragments(datagram(world), 16)
    assert dropped(world.send(later), LOST_FRAGMENT)


def test_a_fragment_of_another_datagram_is_dropped(world: World) -> None:
    world.send(fragments(datagram(world), 16, identifier=1)[0])
    assert dropped(world.send(fragments(datagram(world), 16, identifier=2)[1]), LOST_FRAGMENT)


def test_a_forged_first_fragment_teaches_nothing(world: World) -> None:
    first, later, *_ = fragments(datagram(world), 16)
    assert dropped(world.send(first, sender="c"), "INVALID_SOURCE_IP")
    assert dropped(world.send(later), LOST_FRAGMENT)


def test_a_later_fragment_keeps_a_stale_connection(world: World) -> None:
    """It is decided anew with the ports that its first fragment had."""
    first, later, *_ = fragments(datagram(world), 16)
    world.send(first)
    world.bench.revision = 2
    outcome = world.send(later)
    assert outcome.action is Action.REDIRECT
    assert world.connection("a", "b", 40000, 53, UDP_PROTOCOL)["revision"] == 2


def test_a_first_fragment_without_ports_is_invalid(world: World) -> None:
    assert dropped(world.send(fragments(datagram(world), 8)[0][:-4]), "INVALID_PACKET_DROPPED")


@ipv6_only
def test_an_only_fragment_is_a_whole_packet(world: World) -> None:
    """RFC 6946: offset 0, no more."""
    frame = world.frame("a", "b", Fragment(id=5), UDP(40000, 53), b"data")
    assert forwarded(frame, world.send(frame), source=1, destination=2)
    assert len(world.bench.map("fragments6").items()[0]) == 0


@ipv6_only
def test_fragments_behind_extension_headers(world: World) -> None:
    first = world.frame(
        "a", "b", Extension(HOP_BY_HOP), Fragment(5, 0, True), UDP(40000, 53, length=24), bytes(8)
    )
    later = world.frame("a", "b", Extension(HOP_BY_HOP), Fragment(5, 16, False, 17), bytes(8))
    assert world.send(first).action is Action.REDIRECT
    assert world.send(later).action is Action.REDIRECT


# IPv4 options.


@ipv4_only
@pytest.mark.parametrize("words", range(1, 11))
def test_options_are_skipped(world: World, words: int) -> None:
    frame = world.tcp("a", "b", SYN, options=b"\x01" * 4 * words)
    assert forwarded(frame, world.send(frame), source=1, destination=2)
    assert world.connection("a", "b")["tcp_sent"] == SYN


@ipv4_only
@pytest.mark.parametrize("size", [0, 4, 16, 60])
def test_impossible_header_lengths_are_invalid(world: World, size: int) -> None:
    frame = world.frame("a", "b", UDP(1, 2), bytes(8), header_length=size)
    assert dropped(world.send(frame, sender="a"), "INVALID_PACKET_DROPPED")


# IPv6 extension headers.

KINDS = (HOP_BY_HOP, ROUTING, DESTINATION, AUTHENTICATION)


def extension(kind: int, size: int = 6) -> Extension:
    # A real authentication header is 4n bytes, and in IPv6 8n (RFC 4302 3.3.3.2.1).
    return Extension(kind, bytes(size + 4 if kind == AUTHENTICATION else size))


@ipv6_only
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [6, 14, 62])
def test_each_extension_header_is_skipped(world: World, kind: int, size: int) -> None:
    frame = world.frame("a", "b", extension(kind, size), TCP(40000, 80, flags=SYN), b"x" * 20)
    assert forwarded(frame, world.send(frame), source=1, destination=2)
    assert world.connection("a", "b")["tcp_sent"] == SYN


@ipv6_only
@pytest.mark.parametrize("kinds", list(permutations(KINDS)))
def test_chains_of_extension_headers_are_walked(world: World, kinds: tuple[int, ...]) -> None:
    frame = world.frame("a", "b", *map(extension, kinds), UDP(40000, 53), b"data")
    assert forwarded(frame, world.send(frame), source=1, destination=2)
    assert world.connection("a", "b", 40000, 53, UDP_PROTOCOL) is not None


@ipv6_only
@pytest.mark.parametrize("count", range(1, 9))
def test_six_extension_headers_are_enough(world: World, count: int) -> None:
    outcome = world.send(world.frame("a", "b", *[extension(DESTINATION)] * count, UDP(40000, 53), b"data"))
    if count <= 6:
        assert outcome.action is Action.REDIRECT
    else:
        assert dropped(outcome, "INVALID_IPV6_EXTENSION_HEADER")


@ipv6_only
def test_a_header_that_is_longer_than_the_packet(world: World) -> None:
    frame = bytearray(world.frame("a", "b", extension(DESTINATION), UDP(40000, 53), b"data"))
    frame[14 + 40 + 1] = 200
    assert dropped(world.send(bytes(frame)), "INVALID_PACKET_DROPPED")


@ipv6_only
def test_nothing_next_is_no_transport(world: World) -> None:
    assert dropped(world.send(world.frame("a", "b", b"", protocol=NO_NEXT)), "UNKNOWN_L4_PROTOCOL")


# Transports.


def test_sctp_has_ports(world: World) -> None:
    frame = world.frame("a", "b", SCTP(40000, 5000), bytes(16))
    assert forwarded(frame, world.send(frame), source=1, destination=2)
    assert world.connection("a", "b", 40000, 5000, 132) is not None


@pytest.mark.parametrize("protocol", [2, 4, 41, 47, 50, 89, 255])
def test_unknown_transports_are_dropped(world: World, protocol: int) -> None:
    before = world.counted("UNKNOWN_L4_PROTOCOL")
    frame = world.frame("a", "b", bytes(32), protocol=protocol)
    assert dropped(world.send(frame), "UNKNOWN_L4_PROTOCOL")
    assert world.counted("UNKNOWN_L4_PROTOCOL") == before + 1


@pytest.mark.parametrize("protocol", [2, 17])
def test_multicast_is_noise(world: World, protocol: int) -> None:
    group = "224.0.0.251" if world.family == 4 else "ff02::fb"
    before = world.counted("MULTICAST_HANDLED")
    frame = world.frame("a", group, UDP(5353, 5353), b"who is there", protocol=protocol)
    assert discarded(world.send(frame))
    assert world.counted("MULTICAST_HANDLED") == before + 1
    assert world.entries() == 0


@ipv4_only
def test_broadcast_is_noise(world: World) -> None:
    assert discarded(world.send(world.udp("a", "255.255.255.255")))


# Packets that end too early.


def shapes(world: World) -> dict[str, bytes]:
    made = {
        "tcp": world.tcp("a", "b", SYN),
        "udp": world.udp("a", "b"),
        "sctp": world.frame("a", "b", SCTP(1, 2), bytes(8)),
        "echo": world.echo("a", "b"),
        "error": world.error("a", "b", world.udp("b", "a")),
        "fragment": fragments(datagram(world), 24)[0],
        "later": fragments(datagram(world), 24)[1],
    }
    if world.family == 4:
        return made | {"options": world.udp("a", "b", options=b"\x01" * 40)}
    return made | {"extensions": world.frame("a", "b", *map(extension, KINDS), TCP(1, 2), bytes(8))}


REASONS = {
    "INVALID_PACKET_DROPPED", "INVALID_SOURCE_IP", "UNKNOWN_ICMPV4_CODE", "UNKNOWN_ICMPV6_CODE", LOST_FRAGMENT,
}  # fmt: skip


@pytest.mark.parametrize(
    "shape", ["tcp", "udp", "sctp", "echo", "error", "fragment", "later", "options", "extensions"]
)
def test_truncated_packets_have_a_reason(world: World, shape: str) -> None:
    """Every length: either enough for the ports, and then it is handed on, or dropped with a word about it."""
    whole = shapes(world).get(shape)
    if whole is None:
        return
    ip_header = 20 if world.family == 4 else 40
    for length in range(15, len(whole)):
        world.reset()
        try:
            outcome = world.send(whole[:length], sender="a")
        except BpfError:
            assert length < 14 + ip_header, "the kernel itself takes no frame without an IP header"
            continue
        if outcome.action is Action.SHOT:
            assert outcome.reason in REASONS, length
        else:
            assert outcome.action is Action.REDIRECT
            assert length >= 14 + ip_header + 8
            assert only(outcome.events)["type"] == EventType.NEW


def test_other_versions_are_invalid(world: World) -> None:
    frame = bytearray(world.udp("a", "b"))
    frame[14] = frame[14] & 0x0F | 0x50
    assert dropped(world.send(bytes(frame), sender="a"), "INVALID_PACKET_DROPPED")


def test_what_lies_behind_the_packet_stays(world: World) -> None:
    """Ethernet's padding."""
    frame = build(world.udp("a", "b")) + bytes(20)
    assert forwarded(frame, world.send(frame), source=1, destination=2)
