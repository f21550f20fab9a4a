"""Packets as another program makes them, odd ones above all."""

from __future__ import annotations

from scapy.all import (  # type: ignore[import-untyped]
    GRE,
    ICMP,
    IP,
    TCP,
    UDP,
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


def link() -> object:
    """With addresses, or else they would be asked for on whatever network the tests run in."""
    return Ether(src="02:00:00:00:00:09", dst="06:00:00:00:00:09")


def odd(family: int, source: str, destination: str) -> list[object]:
    """Packets that stacks make seldom and attackers often, to TCP 80 and UDP 53."""

    def ip(**more: object) -> object:
        return (IP if family == 4 else IPv6)(src=source, dst=destination, **more)

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
    packets = [ip() / each for each in common]
    if family == 4:
        for option in (
            IPOption_RR(routers=["0.0.0.0"] * 3),
            IPOption_LSRR(routers=["10.0.0.1"]),
            IPOption_Timestamp(),
        ):
            packets.append(ip(options=[option]) / TCP(sport=20010, dport=80, flags="S"))
        packets += fragment(ip() / UDP(sport=20011, dport=53) / Raw(bytes(3000)), 1400)
        packets += [
            ip(flags="MF", frag=0) / UDP(sport=20012, dport=53) / Raw(bytes(8)),
            ip(frag=1) / Raw(bytes(24)),
            ip(frag=8191) / Raw(bytes(8)),
            ip(ttl=1) / TCP(sport=20013, dport=80, flags="S"),
            ip(ttl=255, tos=255, id=65535) / TCP(sport=20014, dport=80, flags="S"),
            ip() / ICMP() / Raw(b"ping"),
            ip() / ICMP(type=3, code=4) / IP(src=destination, dst=source) / TCP(sport=80, dport=20001),
            ip() / ICMP(type=11) / IP(src=destination, dst="203.0.113.1") / Raw(bytes(3)),
            ip() / ip() / TCP(dport=80),
        ]
    else:
        for header in (
            IPv6ExtHdrHopByHop(),
            IPv6ExtHdrDestOpt(),
            IPv6ExtHdrRouting(addresses=["::1"]),
            IPv6ExtHdrFragment(),
        ):
            packets.append(ip() / header / TCP(sport=20010, dport=80, flags="S"))
        packets += [
            ip()
            / IPv6ExtHdrHopByHop()
            / IPv6ExtHdrDestOpt()
            / IPv6ExtHdrDestOpt()
            / UDP(sport=20011, dport=53),
            ip() / IPv6ExtHdrFragment(m=1, id=7) / UDP(sport=20012, dport=53) / Raw(bytes(8)),
            ip() / IPv6ExtHdrFragment(offset=3, id=8) / Raw(bytes(16)),
            ip(hlim=1) / TCP(sport=20013, dport=80, flags="S"),
            ip(tc=255, fl=0xFFFFF, hlim=255) / TCP(sport=20014, dport=80, flags="S"),
            ip() / ICMPv6EchoRequest(data=b"ping"),
            ip() / ICMPv6DestUnreach() / IPv6(src=destination, dst=source) / TCP(sport=80, dport=20001),
            ip(nh=59),
        ]
    return packets
