"""Datagrams of the proxy: received with the address that they were sent to, answered from it.

Answers leave by a raw socket, with the UDP header made here: a UDP socket would have to be bound to the server's address and
port, which takes them from a server of the host that has them. It is bound to an address of documentation (RFC 5737, RFC
3849) that nobody sends to, because a raw socket gets a copy of every datagram for its address.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

from attrs import frozen

from axoneme.core.datapath.proxies import transparent

#: ip(7), linux/in.h, linux/in6.h; the socket module lacks some of them.
_IP_PKTINFO, _IP_RECVORIGDSTADDR, _IPV6_RECVORIGDSTADDR, _IPV6_CHECKSUM = 8, 20, 74, 7
_NOBODY = {4: "192.0.2.1", 6: "2001:db8::1"}
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_BATCH = 64
#: RFC 6891 6.2.3: nobody sends larger ones, and UDP ends at 64 KiB.
LARGEST = 65_535

Place = tuple[str, int]


@frozen
class Datagram:
    data: bytes
    client: Place
    server: Place


def listen(family: int) -> socket.socket:
    """The socket to register: on the loopback, so that nobody else reaches it."""
    made = transparent(family, socket.SOCK_DGRAM)
    level = socket.IPPROTO_IP if family == 4 else socket.IPPROTO_IPV6
    made.setsockopt(level, _IP_RECVORIGDSTADDR if family == 4 else _IPV6_RECVORIGDSTADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    made.bind((_LOOPBACK[family], 0))
    return made


def receive(listening: socket.socket) -> Iterator[Datagram]:
    """What has come, a bounded number; the loop calls again for the rest."""
    for _ in range(_BATCH):
        try:
            data, ancillary, _, client = listening.recvmsg(LARGEST, 256)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:  # an error that an earlier datagram met
            continue
        for _, kind, value in ancillary:
            if kind in (_IP_RECVORIGDSTADDR, _IPV6_RECVORIGDSTADDR):
                yield Datagram(data, (client[0], client[1]), _place(value))


def _place(value: bytes) -> Place:
    """struct sockaddr_in or sockaddr_in6."""
    if len(value) < 28:
        port, packed = struct.unpack_from("!2xH4s", value)
        return socket.inet_ntop(socket.AF_INET, packed), port
    port, packed = struct.unpack_from("!2xH4x16s", value)
    return socket.inet_ntop(socket.AF_INET6, packed), port


class Speaker:
    """Sends datagrams from any address. Needs CAP_NET_RAW and CAP_NET_ADMIN."""

    def __init__(self, family: int) -> None:
        self._family = family
        made = self._socket = transparent(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        if family == 6:
            made.setsockopt(socket.IPPROTO_IPV6, _IPV6_CHECKSUM, 6)  # the kernel fills it in, at this offset
        made.bind((_NOBODY[family], 0))

    def say(self, data: bytes, server: Place, client: Place) -> None:
        """As if from the server. Raises `OSError`."""
        source = socket.inet_pton(socket.AF_INET if self._family == 4 else socket.AF_INET6, server[0])
        header = struct.pack("!HHHH", server[1], client[1], 8 + len(data), 0)
        if self._family == 4:
            header = header[:6] + struct.pack("!H", _checksum(source, client[0], header + data))
            about = (socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=I4s4x", 0, source))
        else:
            about = (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16sI", source, 0))
        self._socket.sendmsg([header, data], [about], 0, (client[0], 0))

    def close(self) -> None:
        self._socket.close()


def _checksum(source: bytes, client: str, segment: bytes) -> int:
    """RFC 768, over the pseudo header and the segment; a sum of zero is sent as all ones."""
    whole = source + socket.inet_aton(client) + struct.pack("!HH", 17, len(segment)) + segment
    whole += bytes(len(whole) % 2)
    total = sum(struct.unpack(f"!{len(whole) // 2}H", whole))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF
