"""Packets in pure Python, for tests: build frames with correct lengths and checksums, and take frames apart.

A packet is a sequence of layers, the outermost first, and what remains as bytes::

    frame = build(Ethernet(dst="02:00:00:00:00:02"), IPv4("10.0.0.1", "10.0.0.2"), TCP(40000, 80, flags=SYN), b"hello")
    packet = parse(frame)
    packet[IPv4].ttl, packet[TCP].flags, packet.payload

Fields that follow from the rest (lengths, checksums, next protocols) are filled in when they are None; a number put
there stays, so that broken packets can be made. `parse` gives them as they are in the frame, hence
`build(*parse(frame).all) == frame` for every frame, and `intact(frame)` tells whether lengths and checksums are right.

Layouts: RFC 791 (IPv4), 8200 (IPv6), 9293 (TCP), 768 (UDP), 9260 (SCTP), 792 and 4443 (ICMP), 826 (ARP), 4861 (NDP).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import ClassVar, TypeVar

import attrs
from attrs import field, frozen

from axoneme.core.testing.checksums import crc32c, internet_checksum

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))

ICMP_ECHO_REPLY, ICMP_UNREACHABLE, ICMP_ECHO, ICMP_TIME_EXCEEDED = 0, 3, 8, 11
ICMPV6_UNREACHABLE, ICMPV6_TOO_BIG, ICMPV6_TIME_EXCEEDED = 1, 2, 3
ICMPV6_ECHO, ICMPV6_ECHO_REPLY, ICMPV6_SOLICITATION, ICMPV6_ADVERTISEMENT = 128, 129, 135, 136

HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _mac_text(data: bytes) -> str:
    return data.hex(":")


@frozen
class Layer:
    """What all layers have: a number by which the layer around them announces them."""

    #: The IP protocol number.
    protocol_number: ClassVar[int | None] = None
    #: The Ethernet type.
    ether_type: ClassVar[int | None] = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        """The header and, behind it, the payload; `outer` are the layers around it, `inner` the one inside."""
        raise NotImplementedError


@frozen
class Ethernet(Layer):
    dst: str = "02:00:00:00:00:02"
    src: str = "02:00:00:00:00:01"
    type: int | None = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        kind = self.type if self.type is not None else (inner.ether_type if inner else None)
        return mac(self.dst) + mac(self.src) + struct.pack(">H", 0x88B5 if kind is None else kind) + payload


@frozen
class Vlan(Layer):
    ether_type = 0x8100
    id: int = 1
    type: int | None = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        kind = self.type if self.type is not None else (inner.ether_type if inner else None)
        return struct.pack(">HH", self.id, 0x88B5 if kind is None else kind) + payload


@frozen
class ARP(Layer):
    """IPv4 over Ethernet; operation 1 asks, 2 answers."""

    ether_type = 0x0806
    operation: int = 1
    sender_mac: str = "02:00:00:00:00:01"
    sender: str = "0.0.0.0"  # noqa: S104 an address in a packet, nothing is bound
    target_mac: str = "00:00:00:00:00:00"
    target: str = "0.0.0.0"  # noqa: S104

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        head = struct.pack(">HHBBH", 1, 0x0800, 6, 4, self.operation)
        sender = mac(self.sender_mac) + IPv4Address(self.sender).packed
        return head + sender + mac(self.target_mac) + IPv4Address(self.target).packed + payload


def _next_protocol(given: int | None, inner: Layer | None) -> int:
    if given is not None:
        return given
    return NO_NEXT if inner is None or inner.protocol_number is None else inner.protocol_number


@frozen
class IPv4(Layer):
    """:param offset: of a fragment, in bytes (a multiple of 8); `more` says that others follow."""

    ether_type = 0x0800
    protocol_number = 4
    src: str = "10.0.0.1"
    dst: str = "10.0.0.2"
    ttl: int = 64
    tos: int = 0
    id: int = 0
    dont_fragment: bool = False
    more: bool = False
    offset: int = 0
    options: bytes = b""
    protocol: int | None = None
    length: int | None = None
    header_length: int | None = None
    checksum: int | None = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        size = 20 + len(self.options)
        ihl = (self.header_length if self.header_length is not None else size) // 4
        length = self.length if self.length is not None else size + len(payload)
        fragment = self.dont_fragment << 14 | self.more << 13 | self.offset // 8
        head = struct.pack(">BBHHHBB", 4 << 4 | ihl, self.tos, length, self.id, fragment, self.ttl,
                           _next_protocol(self.protocol, inner))  # fmt: skip
        tail = IPv4Address(self.src).packed + IPv4Address(self.dst).packed + self.options
        checksum = self.checksum if self.checksum is not None else internet_checksum(head + tail)
        return head + struct.pack(">H", checksum) + tail + payload


@frozen
class IPv6(Layer):
    ether_type = 0x86DD
    protocol_number = 41
    src: str = "fd00::1"
    dst: str = "fd00::2"
    hop_limit: int = 64
    traffic_class: int = 0
    flow_label: int = 0
    protocol: int | None = None
    length: int | None = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        length = self.length if self.length is not None else len(payload)
        first = 6 << 28 | self.traffic_class << 20 | self.flow_label
        head = struct.pack(">IHBB", first, length, _next_protocol(self.protocol, inner), self.hop_limit)
        return head + IPv6Address(self.src).packed + IPv6Address(self.dst).packed + payload


@frozen
class Extension(Layer):
    """An IPv6 extension header other than Fragment: `HOP_BY_HOP`, `ROUTING`, `DESTINATION` or `AUTHENTICATION`.

    :param data: what follows the two first bytes; it is padded to the header's unit with a PadN option's zeros.
    """

    kind: int = DESTINATION
    data: bytes = b"\x01\x04\x00\x00\x00\x00"
    protocol: int | None = None

    @property
    def protocol_number(self) -> int:  # type: ignore[override]
        return self.kind

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        unit, less = (4, 2) if self.kind == AUTHENTICATION else (8, 1)
        data = self.data + bytes(-(2 + len(self.data)) % unit)
        return bytes((_next_protocol(self.protocol, inner), (2 + len(data)) // unit - less)) + data + payload


@frozen
class Fragment(Layer):
    """The IPv6 Fragment header; `offset` in bytes (a multiple of 8)."""

    protocol_number = FRAGMENT
    id: int = 0
    offset: int = 0
    more: bool = False
    protocol: int | None = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        place = self.offset | self.more
        return struct.pack(">BBHI", _next_protocol(self.protocol, inner), 0, place, self.id) + payload


def _pseudo(outer: Sequence[Layer], protocol: int, length: int) -> bytes:
    """The pseudo header of the innermost IP layer around a transport header; empty without one."""
    for layer in reversed(outer):
        if isinstance(layer, IPv4):
            return (
                IPv4Address(layer.src).packed
                + IPv4Address(layer.dst).packed
                + struct.pack(">HH", protocol, length)
            )
        if isinstance(layer, IPv6):
            addresses = IPv6Address(layer.src).packed + IPv6Address(layer.dst).packed
            return addresses + struct.pack(">II", length, protocol)
    return b""


@frozen
class TCP(Layer):
    protocol_number = 6
    sport: int = 40000
    dport: int = 80
    seq: int = 0
    ack: int = 0
    flags: int = 0
    window: int = 65535
    urgent: int = 0
    options: bytes = b""
    header_length: int | None = None
    checksum: int | None = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        options = self.options + bytes(-len(self.options) % 4)
        size = self.header_length if self.header_length is not None else 20 + len(options)
        head = struct.pack(
            ">HHIIBBH", self.sport, self.dport, self.seq, self.ack, size // 4 << 4, self.flags, self.window
        )
        tail = struct.pack(">H", self.urgent) + options + payload
        checksum = self.checksum
        if checksum is None:
            segment = head + b"\0\0" + tail
            checksum = internet_checksum(_pseudo(outer, 6, len(segment)) + segment)
        return head + struct.pack(">H", checksum) + tail


@frozen
class UDP(Layer):
    protocol_number = 17
    sport: int = 40000
    dport: int = 53
    length: int | None = None
    checksum: int | None = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        length = self.length if self.length is not None else 8 + len(payload)
        head = struct.pack(">HHH", self.sport, self.dport, length)
        checksum = self.checksum
        if checksum is None:  # zero would say that there is none
            checksum = internet_checksum(_pseudo(outer, 17, length) + head + b"\0\0" + payload) or 0xFFFF
        return head + struct.pack(">H", checksum) + payload


@frozen
class SCTP(Layer):
    """The common header; the payload is the chunks. Its checksum is little-endian, of the packet without pseudo header."""

    protocol_number = 132
    sport: int = 40000
    dport: int = 5000
    tag: int = 0
    checksum: int | None = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        head = struct.pack(">HHI", self.sport, self.dport, self.tag)
        checksum = self.checksum if self.checksum is not None else crc32c(head + bytes(4) + payload)
        return head + struct.pack("<I", checksum) + payload


@frozen
class ICMP(Layer):
    """:param rest: the four bytes after the checksum; `echo(id, seq)` makes them."""

    protocol_number = 1
    type: int = ICMP_ECHO
    code: int = 0
    rest: bytes = bytes(4)
    checksum: int | None = None

    def encode(self, outer: Sequence[Layer], inner: Layer | None, payload: bytes) -> bytes:
        head, tail = bytes((self.type, self.code)), self.rest + payload
        checksum = self.checksum
        if checksum is None:
            pseudo = _pseudo(outer, 58, 4 + len(tail)) if self.protocol_number == 58 else b""
            checksum = internet_checksum(pseudo + head + b"\0\0" + tail)
        return head + struct.pack(">H", checksum) + tail


@frozen
class ICMPv6(ICMP):
    protocol_number = 58
    type: int = ICMPV6_ECHO
    code: int = 0  # all are repeated: attrs would put a lone repeated one last
    rest: bytes = bytes(4)
    checksum: int | None = None


def echo(identifier: int, sequence: int) -> bytes:
    """`ICMP.rest` of an echo request or reply."""
    return struct.pack(">HH", identifier, sequence)


def solicitation(target: str, source: str, source_mac: str, destination: str | None = None) -> bytes:
    """A neighbour solicitation in its frame, to the target's solicited-node group unless a destination is given."""
    low = IPv6Address(target).packed[-3:]
    group = IPv6Address(IPv6Address("ff02::1:ff00:0").packed[:13] + low)
    to = IPv6Address(destination) if destination is not None else group
    body = IPv6Address(target).packed + (b"\x01\x01" + mac(source_mac) if int(IPv6Address(source)) else b"")
    return build(
        Ethernet(_mac_text(b"\x33\x33" + to.packed[-4:]), source_mac),
        IPv6(source, str(to), hop_limit=255), ICMPv6(ICMPV6_SOLICITATION), body,
    )  # fmt: skip


def advertisement(
    target: str, target_mac: str, destination: str, destination_mac: str, flags: int = 0x60
) -> bytes:
    """A neighbour advertisement in its frame; flags 0x80 router, 0x40 solicited, 0x20 override."""
    body = IPv6Address(target).packed + b"\x02\x01" + mac(target_mac)
    return build(
        Ethernet(destination_mac, target_mac), IPv6(target, destination, hop_limit=255),
        ICMPv6(ICMPV6_ADVERTISEMENT, rest=bytes((flags, 0, 0, 0))), body,
    )  # fmt: skip


L = TypeVar("L", bound=Layer)


@frozen
class Packet:
    """A frame taken apart. `payload` is what no layer explains; `trailer` what lies behind the IP packet's end."""

    layers: tuple[Layer, ...]
    payload: bytes = field(default=b"")
    trailer: bytes = field(default=b"")

    @property
    def all(self) -> tuple[Layer | bytes, ...]:
        return (*self.layers, self.payload)

    def __contains__(self, kind: type[Layer]) -> bool:
        return any(type(layer) is kind for layer in self.layers)

    def __getitem__(self, kind: type[L]) -> L:
        """The outermost layer of this kind. Raises `KeyError` when there is none."""
        for layer in self.layers:
            if type(layer) is kind:
                return layer
        raise KeyError(f"no {kind.__name__} in {[type(layer).__name__ for layer in self.layers]}")


def build(*parts: Layer | bytes) -> bytes:
    """Layers, the outermost first, then the payload if there is one → the bytes."""
    layers = [part for part in parts if isinstance(part, Layer)]
    data = b"".join(part for part in parts if isinstance(part, bytes))
    inner: Layer | None = None
    for index in reversed(range(len(layers))):
        data = layers[index].encode(layers[:index], inner, data)
        inner = layers[index]
    return data


def parse(frame: bytes, first: type[Layer] = Ethernet) -> Packet:
    """Takes a frame apart, or with `first` a packet that begins with another layer (`IPv4`, `IPv6`, `TCP` …).

    It never raises for strange content: what cannot be explained is payload.
    """
    from axoneme.core.testing.parsing import take_apart

    return take_apart(frame, first)


def intact(frame: bytes, first: type[Layer] = Ethernet) -> bool:
    """Whether every length and checksum in a frame is the right one (a fragment's: of the IP header)."""
    packet = parse(frame, first)
    computed = ("checksum", "length", "header_length")
    layers = [
        attrs.evolve(layer, **{name: None for name in computed if hasattr(layer, name)})
        for layer in packet.layers
    ]
    return build(*layers, packet.payload) == frame[: len(frame) - len(packet.trailer)]


def fragments(frame: bytes, size: int, identifier: int = 1) -> list[bytes]:
    """Cuts the IPv4 or IPv6 packet of a frame into fragments of at most `size` (rounded down to 8s) payload bytes."""
    packet = parse(frame)
    ethernet, ip = packet.layers[:2]
    head = len(build(ip)) + 14
    body, step = frame[head:], size & ~7
    cuts = [(at, body[at : at + step], at + step < len(body)) for at in range(0, len(body), step)]
    made: list[bytes] = []
    for at, piece, more in cuts:
        if isinstance(ip, IPv4):
            part = attrs.evolve(ip, id=identifier, offset=at, more=more, length=None, checksum=None)
            made.append(build(ethernet, part, piece))
        elif isinstance(ip, IPv6):
            carrier = attrs.evolve(ip, protocol=FRAGMENT, length=None)
            made.append(build(ethernet, carrier, Fragment(identifier, at, more, ip.protocol), piece))
    return made
