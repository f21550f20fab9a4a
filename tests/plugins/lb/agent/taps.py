"""What comes through to a host's stack by a device. What XDP sends on is not among it: this is how tests see that it did."""

from __future__ import annotations

import contextlib
import socket
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_address

from lb_agents import World

from axoneme.core.testing.namespaces import within

# linux/if_ether.h, linux/if_packet.h, linux/in6.h, RFC 9293 3.1
_ALL, _IPV6, _OUTGOING, _FRAGMENT = 0x0003, 0x86DD, 4, 44
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_BUFFER = 4 << 20


class Tap:
    """All frames that come in by a device from now on: behind XDP, in front of the classifiers."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening

    def seen(self, address: str) -> Counter[str]:
        """From or to an address, since it was asked last: `SYN`, `SYN-ACK`, `FIN`, `RST`, `ACK` (nothing else is in it),
        `data`, `UDP`, `fragment`, or the protocol's number.

        A packet is here before anybody can have answered it.
        """
        kinds: Counter[str] = Counter()
        with contextlib.suppress(BlockingIOError):
            while True:
                frame, (_, protocol, way, *_) = self._socket.recvfrom(1 << 16)
                if way == _OUTGOING:
                    continue
                addresses, kind = _ipv6(frame[14:]) if protocol == _IPV6 else _ipv4(frame[14:])
                kinds[kind] += address in addresses
        return +kinds


@contextlib.contextmanager
def tap(netns: str, device: str) -> Iterator[Tap]:
    with within(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        within(netns, lambda: made.bind((device, _ALL)))
        made.setblocking(False)
        yield Tap(made)


def _ipv4(packet: bytes) -> tuple[list[str], str]:
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return [], "other"
    header, length = (packet[0] & 15) * 4, int.from_bytes(packet[2:4])
    addresses = [str(ip_address(packet[at : at + 4])) for at in (12, 16)]
    in_pieces = int.from_bytes(packet[6:8]) & 0x3FFF
    return addresses, "fragment" if in_pieces else _transport(packet[9], packet[header:length])


def _ipv6(packet: bytes) -> tuple[list[str], str]:
    addresses = [str(ip_address(packet[at : at + 16])) for at in (8, 24)]
    if packet[6] == _FRAGMENT:
        return addresses, "fragment"
    return addresses, _transport(packet[6], packet[40 : 40 + int.from_bytes(packet[4:6])])


def _transport(protocol: int, packet: bytes) -> str:
    if protocol == socket.IPPROTO_UDP:
        return "UDP"
    if protocol != socket.IPPROTO_TCP:
        return str(protocol)
    flags = packet[13]
    if flags & _SYN:
        return "SYN-ACK" if flags & _ACK else "SYN"
    for flag, name in ((_RST, "RST"), (_FIN, "FIN")):
        if flags & flag:
            return name
    return "data" if len(packet) > (packet[12] >> 4) * 4 else "ACK"


def by_xdp(world: World) -> bool:
    """Whether the node has XDP in front of its classifiers."""
    return bool(world.node.values["plugins"]["lb"]["xdp"])
