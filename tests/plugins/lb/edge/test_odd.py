"""Packets as another program makes them, odd ones above all, and broken ones by the thousand, from outside.

Whatever becomes of one: what is sent on has checksums as right, or as wrong, as they were; what is not sent on is untouched.
"""

from __future__ import annotations

import random

import pytest
from edge_world import Edge, Xdp
from packet_world import words
from scapy.all import (  # type: ignore[import-untyped]
    GRE,
    ICMP,
    IP,
    TCP,
    UDP,
    Dot1Q,
    Ether,
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    IPOption_LSRR,
    IPOption_RR,
    IPOption_Timestamp,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    Raw,
    fragment,
)

from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import intact

pytestmark = pytest.mark.kernel

MANY = 10_000  # per family


@pytest.fixture
def served(edge: Edge) -> Edge:
    """TCP 80 and UDP 53 of a service, with a backend here and one elsewhere."""
    edge.backend(1, "remote", 8080)
    edge.backend(2, "a", 8080)
    edge.service(1, 2)
    edge.service(1, 2, port=53, protocol=17)
    return edge


def link() -> object:
    """With addresses, or else they would be asked for on whatever network the tests run in."""
    return Ether(src="02:00:00:00:00:09", dst="06:00:00:00:00:09")


def ip(edge: Edge, **more: object) -> object:
    ends = {"src": edge.addresses["world"], "dst": edge.vip}
    return IP(**ends, **more) if edge.family == 4 else IPv6(**ends, **more)


def odd(edge: Edge) -> list[object]:
    """Packets that stacks make seldom and attackers often."""
    options = [
        ("MSS", 1460),
        ("SAckOK", b""),
        ("Timestamp", (1, 2)),
        ("WScale", 14),
        ("TFO", (1, 2)),
        ("MD5", b"x" * 16),
    ]
    common = [
        TCP(sport=20001, dport=80, flags="S", options=options[:4]),
        TCP(sport=20002, dport=80, flags="S", options=[options[5], ("NOP", None), ("NOP", None)]),
        TCP(sport=20003, dport=80, flags="FSRPAUEC", urgptr=7) / Raw(b"christmas"),
        TCP(sport=20004, dport=80, flags=0),
        TCP(sport=0, dport=80, flags="S"),
        TCP(sport=20005, dport=80, flags="SA"),
        TCP(sport=20006, dport=80, flags="S", dataofs=15) / Raw(bytes(40)),
        TCP(sport=20007, dport=80, flags="S") / Raw(b"data with a SYN"),
        UDP(sport=20008, dport=53),
        UDP(sport=20009, dport=53) / Raw(bytes(1400)),
        UDP(sport=53, dport=53) / Raw(b"\0"),
        GRE() / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(),
        Raw(bytes(64)),
    ]
    packets = [ip(edge) / each for each in common]
    if edge.family == 4:
        for option in (
            IPOption_RR(routers=["0.0.0.0"] * 3),
            IPOption_LSRR(routers=["10.0.0.1"]),
            IPOption_Timestamp(),
        ):
            packets.append(ip(edge, options=[option]) / TCP(sport=20010, dport=80, flags="S"))
        packets += fragment(ip(edge) / UDP(sport=20011, dport=53) / Raw(bytes(3000)), 1400)
        packets += [
            ip(edge, flags="MF", frag=0) / UDP(sport=20012, dport=53) / Raw(bytes(8)),
            ip(edge, frag=1) / Raw(bytes(24)),
            ip(edge, frag=8191) / Raw(bytes(8)),
            ip(edge, ttl=1) / TCP(sport=20013, dport=80, flags="S"),
            ip(edge, ttl=255, tos=255, id=65535) / TCP(sport=20014, dport=80, flags="S"),
            ip(edge) / ICMP() / Raw(b"ping"),
            ip(edge)
            / ICMP(type=3, code=4)
            / IP(src=edge.vip, dst=edge.addresses["world"])
            / TCP(sport=80, dport=20001),
            ip(edge) / ICMP(type=11) / IP(src=edge.vip, dst="203.0.113.1") / Raw(bytes(3)),
            ip(edge) / ip(edge) / TCP(dport=80),
        ]
    else:
        for header in (
            IPv6ExtHdrHopByHop(),
            IPv6ExtHdrDestOpt(),
            IPv6ExtHdrRouting(addresses=["::1"]),
            IPv6ExtHdrFragment(),
        ):
            packets.append(ip(edge) / header / TCP(sport=20010, dport=80, flags="S"))
        packets += [
            ip(edge)
            / IPv6ExtHdrHopByHop()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrDestOpt()
            / UDP(sport=20011, dport=53),
            ip(edge) / IPv6ExtHdrFragment(m=1, id=7) / UDP(sport=20012, dport=53) / Raw(bytes(8)),
            ip(edge) / IPv6ExtHdrFragment(offset=3, id=8) / Raw(bytes(16)),
            ip(edge, hlim=1) / TCP(sport=20013, dport=80, flags="S"),
            ip(edge, tc=255, fl=0xFFFFF, hlim=255) / TCP(sport=20014, dport=80, flags="S"),
            ip(edge) / ICMPv6EchoRequest(data=b"ping"),
            ip(edge)
            / ICMPv6DestUnreach()
            / IPv6(src=edge.vip, dst=edge.addresses["world"])
            / TCP(sport=80, dport=20001),
            ip(edge, nh=59),
        ]
    return packets


def checked(packet: object) -> bytes:
    """Once more with all checksums computed by the program that made it; what it cannot know of (fragments) stays."""
    again = packet.copy()  # type: ignore[attr-defined]
    for layer in (IP, TCP, UDP, ICMP):
        if layer in again and not (
            IP in again and (again[IP].frag or again[IP].flags.MF) and layer is not IP
        ):
            del again[layer].chksum
    return bytes(again)


def test_odd_packets(served: Edge) -> None:
    """XDP first, then the classifier for what it lets pass."""
    sent_on = compared = 0
    for packet in odd(served):
        for frame in (bytes(link() / packet), bytes(link() / Dot1Q(vlan=7) / packet)):
            padded = frame.ljust(60, b"\0")
            early = served.enter(padded)
            if early.verdict is Xdp.TX:
                result = early.frame
            else:
                assert early.frame.endswith(padded), "untouched; XDP may have put a note in front"
                late = served.arrive(padded)
                if late.action is not Action.REDIRECT:
                    assert late.frame == padded, "the stack gets it as it came, also if its time is up"
                    continue
                result = late.frame
            sent_on += 1
            size, layer = len(frame), IP if served.family == 4 else IPv6
            assert intact(result) == intact(padded)
            at = len(frame) - len(bytes(packet))
            assert IPv6ExtHdrRouting not in packet, "its next stop is not its last"
            assert IPOption_LSRR not in packet
            if checked(Ether(frame)[layer]) == frame[at:]:  # odd, but made again the same
                compared += 1
                assert checked(Ether(result[:size])[layer]) == result[at:size]
    assert sent_on >= 12
    assert compared >= 8


def handed_on(edge: Edge, frame: bytes, *, xdp: bool) -> bytes | None:
    """The IP packet that goes on, by XDP with the classifier behind it or by the classifier alone; None: none does."""
    edge.reset_connections()
    if xdp:
        early = edge.enter(frame)
        if early.verdict is Xdp.TX:
            return early.frame[14:]
    late = edge.arrive(frame)
    return late.frame[14:] if late.action is Action.REDIRECT else None


def test_both_ways_decide_alike(served: Edge) -> None:
    """With XDP in front the same packets go on, and the same way changed: ports that may be given out are kept."""
    went_on = 0
    for packet in odd(served):
        if TCP in packet and not packet[TCP].sport:
            continue  # gets one by chance
        frame = bytes(link() / packet).ljust(60, b"\0")
        alone = handed_on(served, frame, xdp=False)
        assert handed_on(served, frame, xdp=True) == alone, packet
        went_on += alone is not None
    assert went_on >= 8


def broken(generator: random.Random, frame: bytes) -> bytes:
    data = bytearray(frame)
    for _ in range(generator.choice((0, 1, 1, 2, 4))):
        data[generator.randrange(14, len(data))] = generator.choice(
            (0, 1, 0xFF, 0x45, 80, generator.randrange(256))
        )
    if generator.random() < 0.2:
        del data[generator.randrange(34, len(data)) :]
    return bytes(data)


@pytest.mark.slow
def test_broken_frames(served: Edge) -> None:
    """Ten thousand per family: sent on only with its checksums as right or wrong as they were, and to where a service leads."""
    generator = random.Random(5)
    whole = [bytes(link() / each)[:200] for each in odd(served)]
    places = {bytes(b for word in words(served.addresses["remote"]) for b in word.to_bytes(4, "big"))}
    places |= {bytes(b for word in words(served.addresses["world"]) for b in word.to_bytes(4, "big"))}
    at = slice(30, 34) if served.family == 4 else slice(38, 54)
    sent_on = 0
    for number in range(MANY):
        frame = broken(generator, generator.choice(whole))
        if len(frame) < 15:
            continue
        outcome = served.enter(frame)
        if outcome.verdict is Xdp.TX:
            sent_on += 1
            assert len(outcome.frame) == len(frame)
            assert outcome.frame[at] in places
            assert intact(outcome.frame) == intact(frame), (number, frame.hex(), outcome.frame.hex())
        else:
            assert outcome.frame.endswith(frame)
    assert sent_on > 100
