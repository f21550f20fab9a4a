"""The inverse of `axoneme.core.testing.packets.build`: from bytes to layers. Use `packets.parse`."""

from __future__ import annotations

import struct
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from attrs import frozen

from axoneme.core.testing.packets import (
    ARP,
    AUTHENTICATION,
    DESTINATION,
    FRAGMENT,
    HOP_BY_HOP,
    ICMP,
    ROUTING,
    SCTP,
    TCP,
    UDP,
    Ethernet,
    Extension,
    Fragment,
    ICMPv6,
    IPv4,
    IPv6,
    Layer,
    Packet,
    Vlan,
)


@frozen
class _Step:
    """One layer read: what comes next (None: payload), where it begins, and where it ends."""

    layer: Layer
    following: type[Layer] | None
    start: int
    end: int


_BY_ETHER_TYPE: dict[int, type[Layer]] = {0x0800: IPv4, 0x86DD: IPv6, 0x0806: ARP, 0x8100: Vlan}
_BY_PROTOCOL: dict[int, type[Layer]] = {
    1: ICMP, 4: IPv4, 6: TCP, 17: UDP, 41: IPv6, 58: ICMPv6, 132: SCTP, FRAGMENT: Fragment,
    HOP_BY_HOP: Extension, ROUTING: Extension, DESTINATION: Extension, AUTHENTICATION: Extension,
}  # fmt: skip


def take_apart(frame: bytes, first: type[Layer]) -> Packet:
    """See `packets.parse`."""
    layers: list[Layer] = []
    kind: type[Layer] | None = first
    protocol, start, end = 0, 0, len(frame)
    while kind is not None:
        read = _READERS[kind]
        try:
            step = read(frame, start, end, protocol)
        except (struct.error, IndexError):
            break
        if step is None:
            break
        layers.append(step.layer)
        kind, start, end = step.following, step.start, step.end
        protocol = getattr(step.layer, "protocol", None) or 0
    return Packet(tuple(layers), frame[start:end], frame[end:])


def _ethernet(data: bytes, at: int, end: int, _: int) -> _Step | None:
    if end - at < 14:
        return None
    kind = int.from_bytes(data[at + 12 : at + 14], "big")
    layer = Ethernet(data[at : at + 6].hex(":"), data[at + 6 : at + 12].hex(":"), kind)
    return _Step(layer, _BY_ETHER_TYPE.get(kind), at + 14, end)


def _vlan(data: bytes, at: int, end: int, _: int) -> _Step | None:
    tag, kind = struct.unpack_from(">HH", data, at)
    return _Step(Vlan(tag, kind), _BY_ETHER_TYPE.get(kind), at + 4, end)


def _arp(data: bytes, at: int, end: int, _: int) -> _Step | None:
    head = struct.unpack_from(">HHBBH6s4s6s4s", data, at)
    if head[:4] != (1, 0x0800, 6, 4):
        return None
    operation, sender_mac, sender, target_mac, target = head[4:]
    layer = ARP(
        operation,
        sender_mac.hex(":"),
        str(IPv4Address(sender)),
        target_mac.hex(":"),
        str(IPv4Address(target)),
    )
    return _Step(layer, None, at + 28, end)


def _ipv4(data: bytes, at: int, end: int, _: int) -> _Step | None:
    version, tos, length, identifier, place, ttl, protocol, checksum, src, dst = struct.unpack_from(
        ">BBHHHBBH4s4s", data, at
    )
    size = (version & 15) * 4
    if version >> 4 != 4 or size < 20 or at + size > end:
        return None
    offset = (place & 0x1FFF) * 8
    layer = IPv4(
        str(IPv4Address(src)), str(IPv4Address(dst)), ttl, tos, identifier, bool(place & 0x4000), bool(place & 0x2000),
        offset, data[at + 20 : at + size], protocol, length, size, checksum,
    )  # fmt: skip
    # A first fragment's transport header is there, but its payload is not all there: left as bytes, like the others'.
    following = None if offset or place & 0x2000 else _BY_PROTOCOL.get(protocol)
    return _Step(layer, following, at + size, min(end, max(at + length, at + size)))


def _ipv6(data: bytes, at: int, end: int, _: int) -> _Step | None:
    first, length, protocol, hops, src, dst = struct.unpack_from(">IHBB16s16s", data, at)
    if first >> 28 != 6 or at + 40 > end:
        return None
    layer = IPv6(
        str(IPv6Address(src)),
        str(IPv6Address(dst)),
        hops,
        first >> 20 & 0xFF,
        first & 0xFFFFF,
        protocol,
        length,
    )
    return _Step(layer, _BY_PROTOCOL.get(protocol), at + 40, min(end, at + 40 + length))


def _extension(data: bytes, at: int, end: int, kind: int) -> _Step | None:
    size = (data[at + 1] + 2) * 4 if kind == AUTHENTICATION else (data[at + 1] + 1) * 8
    if at + size > end:
        return None
    layer = Extension(kind, data[at + 2 : at + size], data[at])
    return _Step(layer, _BY_PROTOCOL.get(data[at]), at + size, end)


def _fragment(data: bytes, at: int, end: int, _: int) -> _Step | None:
    protocol, reserved, place, identifier = struct.unpack_from(">BBHI", data, at)
    if at + 8 > end or reserved or place & 6:
        return None
    whole = place & 0xFFF9 == 0
    layer = Fragment(identifier, place & 0xFFF8, bool(place & 1), protocol)
    return _Step(layer, _BY_PROTOCOL.get(protocol) if whole else None, at + 8, end)


def _tcp(data: bytes, at: int, end: int, _: int) -> _Step | None:
    sport, dport, seq, ack, size, flags, window, checksum, urgent = struct.unpack_from(">HHIIBBHHH", data, at)
    length = (size >> 4) * 4
    if length < 20 or at + length > end or size & 15:
        return None
    layer = TCP(sport, dport, seq, ack, flags, window, urgent, data[at + 20 : at + length], length, checksum)
    return _Step(layer, None, at + length, end)


def _udp(data: bytes, at: int, end: int, _: int) -> _Step | None:
    if end - at < 8:
        return None
    return _Step(UDP(*struct.unpack_from(">HHHH", data, at)), None, at + 8, end)


def _sctp(data: bytes, at: int, end: int, _: int) -> _Step | None:
    if end - at < 12:
        return None
    sport, dport, tag = struct.unpack_from(">HHI", data, at)
    return _Step(
        SCTP(sport, dport, tag, int.from_bytes(data[at + 8 : at + 12], "little")), None, at + 12, end
    )


def _icmp_reader(kind: type[ICMP]) -> Callable[[bytes, int, int, int], _Step | None]:
    def read(data: bytes, at: int, end: int, _: int) -> _Step | None:
        if end - at < 8:
            return None
        checksum = int.from_bytes(data[at + 2 : at + 4], "big")
        return _Step(kind(data[at], data[at + 1], data[at + 4 : at + 8], checksum), None, at + 8, end)

    return read


_READERS: dict[type[Layer], Callable[[bytes, int, int, int], _Step | None]] = {
    Ethernet: _ethernet,
    Vlan: _vlan,
    ARP: _arp,
    IPv4: _ipv4,
    IPv6: _ipv6,
    Extension: _extension,
    Fragment: _fragment,
    TCP: _tcp,
    UDP: _udp,
    SCTP: _sctp,
    ICMP: _icmp_reader(ICMP),
    ICMPv6: _icmp_reader(ICMPv6),
}
