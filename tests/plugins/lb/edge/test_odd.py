"""Packets as another program makes them, odd ones above all, from outside and from workloads.

Whatever becomes of one: what is sent on has checksums as right, or as wrong, as they were; what is not sent on is untouched.
"""

from __future__ import annotations

import pytest
from edge_world import Edge, Xdp
from packet_world import mac_of, node_mac_of, words
from scapy.all import (  # type: ignore[import-untyped]
    ICMP,
    IP,
    TCP,
    UDP,
    Dot1Q,
    Ether,
    IPOption_LSRR,
    IPv6,
    IPv6ExtHdrRouting,
)
from scapy_packets import link, odd

from axoneme.core.testing.datapath import Action
from axoneme.core.testing.packets import intact
from axoneme.plugins.lb.maps import Scope

pytestmark = pytest.mark.kernel


@pytest.fixture
def served(edge: Edge) -> Edge:
    """TCP 80 and UDP 53 of a service, with a backend here and one elsewhere, for those outside and for workloads."""
    edge.backend(1, "remote", 8080)
    edge.backend(2, "a", 8080)
    services = edge.bench.map(f"lb_services{edge.family}")
    for port, protocol in ((80, 6), (53, 17)):
        edge.service(1, 2, port=port, protocol=protocol)
        key = {
            "address": {"a": words(edge.vip)},
            "port": port,
            "protocol": protocol,
            "scope": int(Scope.EXTERNAL),
        }
        services.update({**key, "scope": int(Scope.INTERNAL)}, services.lookup(key))
    return edge


def outside(edge: Edge) -> list[object]:
    return odd(edge.family, edge.addresses["world"], edge.vip)


def checked(packet: object) -> bytes:
    """Once more with all checksums computed by the program that made it; what it cannot know of (fragments) stays."""
    again = packet.copy()  # type: ignore[attr-defined]
    for layer in (IP, TCP, UDP, ICMP):
        if layer in again and not (
            IP in again and (again[IP].frag or again[IP].flags.MF) and layer is not IP
        ):
            del again[layer].chksum
    return bytes(again)


def agree(frame: bytes, padded: bytes, result: bytes, packet: object) -> bool:
    """Its checksums are as right as they were; whether the program that made it could compute them again, too."""
    assert intact(result) == intact(padded)
    assert IPv6ExtHdrRouting not in packet, "its next stop is not its last"  # type: ignore[operator]
    assert IPOption_LSRR not in packet  # type: ignore[operator]
    layer, at, size = IP if IP in Ether(frame) else IPv6, len(frame) - len(bytes(packet)), len(frame)  # type: ignore[call-overload]
    if checked(Ether(frame)[layer]) != frame[at:]:
        return False  # odd, and made again another
    assert checked(Ether(result[:size])[layer]) == result[at:size]
    return True


def test_odd_packets(served: Edge) -> None:
    """XDP first, then the classifier for what it lets pass."""
    sent_on = compared = 0
    for packet in outside(served):
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
            compared += agree(frame, padded, result, packet)
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
    for packet in outside(served):
        if TCP in packet and not packet[TCP].sport:
            continue  # gets one by chance
        frame = bytes(link() / packet).ljust(60, b"\0")
        alone = handed_on(served, frame, xdp=False)
        assert handed_on(served, frame, xdp=True) == alone, packet
        went_on += alone is not None
    assert went_on >= 8


@pytest.mark.parametrize("to", ["a service", "the world"])
def test_odd_packets_of_workloads(served: Edge, to: str) -> None:
    """Sent on under another address, or to another, with right sums; dropped by reason; or the stack's as they came."""
    sent_on = compared = dropped = 0
    destination = served.vip if to == "a service" else served.addresses["world"]
    for packet in odd(served.family, served.addresses["b"], destination):
        frame = bytes(Ether(src=mac_of(2), dst=node_mac_of(2)) / packet)
        padded = frame.ljust(60, b"\0")
        outcome = served.send(padded, sender="b")
        if outcome.action is Action.SHOT:
            assert outcome.reason is not None, packet
            dropped += 1
        elif outcome.action is Action.PASS:
            assert outcome.frame == padded
        else:
            sent_on += 1
            assert outcome.frame[14:] != frame[14:]
            compared += agree(frame, padded, outcome.frame, packet)
    assert min(sent_on, compared, dropped) >= 4, (sent_on, compared, dropped)
