"""Where in a frame what stands that a translation may change. Written from the RFCs, and knowing nothing of the programs."""

from __future__ import annotations

from attrs import frozen

TCP, UDP, SCTP = 6, 17, 132
ICMP = {4: 1, 6: 58}
LINK = 14
#: The offset of the source address in an IP header, the size of an address, and the size of the header without options.
ADDRESSES, SIZE, HEADER = {4: 12, 6: 8}, {4: 4, 6: 16}, {4: 20, 6: 40}
#: The offset of a transport's checksum, and its size.
SUMS = {TCP: (16, 2), UDP: (6, 2), SCTP: (8, 4)}
#: ICMP messages with an identifier (RFC 792, RFC 4443, RFC 8335), and errors, which quote a packet.
QUERIES = {4: {0, 8, 13, 14, 15, 16, 17, 18, 42, 43}, 6: {128, 129, 160, 161}}
ERRORS = {4: {3, 11, 12}, 6: set(range(1, 128))}
_EXTENSIONS = {0, 43, 44, 51, 60}
#: Source routes (RFC 791 3.1): a destination that is but the next stop.
_ROUTES = {131, 137}

#: Source, destination, protocol, source port, destination port. An identifier is both ports; -1: a later fragment has none.
Flow = tuple[bytes, bytes, int, int, int]


@frozen
class Reading:
    """A packet's headers; every place is an offset in the frame.

    :ivar ports: where they are, with their number of bytes (2: an identifier); None: there are none to be changed.
    :ivar sum: where the transport's checksum is, with its number of bytes; None: there is none.
    :ivar fragment: of a fragment, what its datagram is known by.
    :ivar error: it is an ICMP error; `quoted` is the packet in it, as far as that can be read.
    """

    family: int
    ip: int
    protocol: int
    transport: int
    length: int
    addresses: int
    ports: tuple[int, int] | None = None
    sum: tuple[int, int] | None = None
    fragment: int | None = None
    later: bool = False
    routed: bool = False
    error: bool = False
    quoted: Reading | None = None

    def flow(self, frame: bytes) -> Flow:
        size, at = SIZE[self.family], self.addresses
        source, destination = frame[at : at + size], frame[at + size : at + 2 * size]
        if self.ports is None:
            return source, destination, self.protocol, -1, -1
        at, size = self.ports
        first = int.from_bytes(frame[at : at + 2], "big")
        second = first if size == 2 else int.from_bytes(frame[at + 2 : at + 4], "big")
        return source, destination, self.protocol, first, second


def reverse(flow: Flow) -> Flow:
    return flow[1], flow[0], flow[2], flow[4], flow[3]


def read(frame: bytes) -> Reading | None:
    """None: no IP packet."""
    kind = frame[12:14]
    if kind == b"\x08\x00":
        return read_ip(frame, LINK, 4)
    return read_ip(frame, LINK, 6) if kind == b"\x86\xdd" else None


def read_ip(data: bytes, ip: int, family: int, *, quoted: bool = False) -> Reading | None:
    if len(data) < ip + HEADER[family] or data[ip] >> 4 != family:
        return None
    return (_read4 if family == 4 else _read6)(data, ip, quoted)


def _read4(data: bytes, ip: int, quoted: bool) -> Reading | None:
    size = (data[ip] & 15) * 4
    if size < 20:
        return None
    place = int.from_bytes(data[ip + 6 : ip + 8], "big")
    common = {
        "family": 4, "ip": ip, "protocol": data[ip + 9], "transport": ip + size, "addresses": ip + 12,
        "length": int.from_bytes(data[ip + 2 : ip + 4], "big") - size, "routed": not quoted and _routed(data, ip, size),
        "fragment": int.from_bytes(data[ip + 4 : ip + 6], "big") if place & 0x3FFF else None,
    }  # fmt: skip
    if place & 0x1FFF:
        return Reading(**common, later=True)
    return _transport(data, common, quoted)


def _routed(data: bytes, ip: int, size: int) -> bool:
    at = ip + 20
    while at + 1 < min(ip + size, len(data)) and data[at]:
        if data[at] in _ROUTES:
            return True
        at += 1 if data[at] == 1 else max(data[at + 1], 2)
    return False


def _read6(data: bytes, ip: int, quoted: bool) -> Reading | None:
    kind, at, fragment, routed = data[ip + 6], ip + 40, None, False
    while kind in _EXTENSIONS and at + 8 <= len(data):
        routed |= kind == 43 and bool(data[at + 3])
        if kind == 44:
            place = int.from_bytes(data[at + 2 : at + 4], "big")
            if place & 0xFFF9:
                fragment = int.from_bytes(data[at + 4 : at + 8], "big")
            if place & 0xFFF8:
                common = {"family": 6, "ip": ip, "addresses": ip + 8, "fragment": fragment, "routed": routed}
                return Reading(protocol=data[at], transport=at + 8, length=0, later=True, **common)
            size = 8
        else:
            size = (data[at + 1] + 2) * 4 if kind == 51 else (data[at + 1] + 1) * 8
        kind, at = data[at], at + size
    length = int.from_bytes(data[ip + 4 : ip + 6], "big") - (at - ip - 40)
    common = {
        "family": 6, "ip": ip, "protocol": kind, "transport": at, "addresses": ip + 8, "length": length,
        "fragment": fragment, "routed": routed,
    }  # fmt: skip
    return _transport(data, common, quoted)


def _transport(data: bytes, common: dict[str, object], quoted: bool) -> Reading:
    family, protocol, at = int(common["family"]), int(common["protocol"]), int(common["transport"])  # type: ignore[call-overload]
    if protocol in SUMS:
        offset, size = SUMS[protocol]
        fits = len(data) >= at + offset + size
        known = fits or len(data) >= at + (4 if quoted else 8 if protocol == SCTP else 20)
        return Reading(
            **common,  # type: ignore[arg-type]
            ports=(at, 4) if known else None,
            sum=(at + offset, size) if fits else None,
        )
    if protocol != ICMP[family] or len(data) < at + (6 if quoted else 8):
        return Reading(**common)  # type: ignore[arg-type]
    if data[at] in QUERIES[family]:
        return Reading(**common, ports=(at + 4, 2), sum=(at + 2, 2))  # type: ignore[arg-type]
    if quoted or data[at] not in ERRORS[family]:
        return Reading(**common)  # type: ignore[arg-type]
    return Reading(
        **common,  # type: ignore[arg-type]
        sum=(at + 2, 2),
        error=True,
        quoted=read_ip(data, at + 8, family, quoted=True),
    )
