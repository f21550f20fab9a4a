"""Hosts, cables and routers around nodes, and what tests ask of their sockets."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_interface
from pathlib import Path

from attrs import frozen
from edge_wire import as_a_wire

from axoneme.core.testing.namespaces import within
from axoneme.core.testing.packets import UDP, Ethernet, IPv4, IPv6, build, fragments

#: An IPv4 and an IPv6 address.
Pair = tuple[str, str]

#: What a route lets pass that is narrower than the cables: RFC 8200's least is 1280.
NARROW = 1400

# linux/in.h, linux/in6.h, linux/errqueue.h
_MTU = {4: (socket.IPPROTO_IP, 14), 6: (socket.IPPROTO_IPV6, 24)}
_DISCOVER = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
_ERRQUEUE = 0x2000


def version(address: str) -> int:
    return 6 if ":" in address else 4


def family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def network(address: str) -> str:
    return str(ip_interface(f"{address}/{24 if version(address) == 4 else 64}").network)


def host(address: str) -> str:
    return f"{address}/{32 if version(address) == 4 else 128}"


def cable(one: str, device: str, near: Pair, other: str, far_device: str, far: Pair) -> None:
    """Between two hosts; its ends have these addresses and behave as cards do."""
    from pyroute2 import NetNS

    with NetNS(one) as here:
        here.link("add", ifname=device, kind="veth", peer={"ifname": far_device, "net_ns_fd": other})
    for name, end, addresses in ((one, device, near), (other, far_device, far)):
        with NetNS(name) as netns:
            index = netns.link_lookup(ifname=end)[0]
            for address in addresses:
                prefix, flags = (24, 0) if version(address) == 4 else (64, 0x02)
                netns.addr("add", index=index, address=address, prefixlen=prefix, flags=flags)
            netns.link("set", index=index, state="up")


def wired(netns: str, *devices: str) -> None:
    """The devices of a host without an agent that agents' XDP programs may send to."""
    for device in devices:
        within(netns, lambda device=device: as_a_wire(device))  # type: ignore[misc]


def route(netns: str, prefixes: Sequence[str], via: Pair, *, advmss: int = 0) -> None:
    """Prefixes beyond a gateway. With `advmss`, TCP asks for segments of this size whatever is known of the path."""
    from pyroute2 import NetNS

    with NetNS(netns) as here:
        for prefix in prefixes:
            metrics = {"metrics": {"advmss": advmss}} if advmss else {}
            here.route("add", dst=prefix, gateway=via[":" in prefix], **metrics)


def narrow(netns: str, device: str, addresses: Pair, mtu: int = NARROW) -> None:
    """A router's way to a neighbour that lets only so much pass."""
    from pyroute2 import NetNS

    with NetNS(netns) as here:
        index = here.link_lookup(ifname=device)[0]
        for address in addresses:
            here.route("add", dst=host(address), oif=index, metrics={"mtu": mtu})


def forwarding(netns: str) -> None:
    """Makes a host a router."""

    def turn_on() -> None:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
        Path("/proc/sys/net/ipv6/conf/all/forwarding").write_text("1")

    within(netns, turn_on)


# Sockets.


def connected(netns: str, address: str, port: int, *, udp: bool = False, timeout: float = 5) -> socket.socket:
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    made = within(netns, lambda: socket.socket(family(address), kind))
    made.settimeout(timeout)
    made.connect((address, port))
    return made


def asked(netns: str, address: str, port: int, *, udp: bool, own: str) -> str:
    """Who answers a socket with this address of its own."""
    made = within(
        netns, lambda: socket.socket(family(address), socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    )
    with made:
        made.settimeout(5)
        made.bind((own, 0))
        made.connect((address, port))
        made.sendall(b"who")
        return made.recv(100).decode()


def raw(netns: str, address: str) -> socket.socket:
    """A connected socket whose owner makes the IP headers himself."""
    made = within(netns, lambda: socket.socket(family(address), socket.SOCK_RAW, socket.IPPROTO_RAW))
    made.connect((address, 0))
    return made


def datagram_in_fragments(
    of: socket.socket, address: str, port: int, data: bytes, *, identifier: int
) -> list[bytes]:
    """The packets of a UDP datagram of 1,208 bytes from a raw socket: three fragments of 400 or 408 bytes."""
    ip = IPv4 if of.family == socket.AF_INET else IPv6
    header = ip(of.getsockname()[0], address)
    frame = build(Ethernet(), header, UDP(40_000 + identifier, port), data)
    return [fragment[14:] for fragment in fragments(frame, 408, identifier)]


def frames(netns: str, device: str) -> socket.socket:
    """A socket that sends frames out of a device as they are."""
    made = within(netns, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
    try:
        within(netns, lambda: made.bind((device, 0)))
    except BaseException:
        made.close()
        raise
    return made


def mac(netns: str, device: str) -> str:
    from pyroute2 import NetNS

    with NetNS(netns) as host:
        (link,) = host.get_links(host.link_lookup(ifname=device)[0])
        return str(link.get_attr("IFLA_ADDRESS"))


def frame(to: str, source: str, destination: str, port: int, data: bytes, *, vlan: int = 0) -> bytes:
    """A UDP datagram in a frame for a MAC address, with a VLAN's tag (IEEE 802.1Q) or without."""
    ip = IPv4 if version(source) == 4 else IPv6
    made = build(Ethernet(to, "02:00:00:00:07:07"), ip(source, destination), UDP(20_000, port), data)
    tag = struct.pack(">HH", 0x8100, vlan) if vlan else b""
    return made[:12] + tag + made[12:]


def path_mtu(of: socket.socket) -> int:
    """What a connected socket has learnt of its path."""
    mapped = of.family == socket.AF_INET6 and of.getpeername()[0].startswith("::ffff:")
    return of.getsockopt(*_MTU[4 if of.family == socket.AF_INET or mapped else 6])


def plain(address: str) -> str:
    """An IPv4-mapped address as the IPv4 one."""
    return address.removeprefix("::ffff:")


def whole(of: socket.socket) -> None:
    """Datagrams are never cut into fragments (IP_PMTUDISC_DO)."""
    of.setsockopt(*_DISCOVER[4 if of.family == socket.AF_INET else 6], 2)


def errors(of: socket.socket) -> None:
    """Whatever errors come are kept with what they say."""
    of.setsockopt(*_RECVERR[4 if of.family == socket.AF_INET else 6], 1)


@frozen
class SocketError:
    """What `IP_RECVERR` tells: the error's number, who sent it, and whom the datagram was sent to."""

    number: int
    offender: str
    address: str
    port: int
    info: int


def next_error(of: socket.socket) -> SocketError:
    """The oldest error that is kept; it must be there."""
    v6 = of.family == socket.AF_INET6
    _, ancillary, _, peer = of.recvmsg(2048, 512, _ERRQUEUE)
    (data,) = [data for level, kind, data in ancillary if (level, kind) in _RECVERR.values()]
    number, _, _, _, _, info, _ = struct.unpack_from("=IBBBBII", data)
    raw = data[24:40] if v6 else data[20:24]
    return SocketError(number, socket.inet_ntop(of.family, raw), peer[0], peer[1], info)


def transfer(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    """Sends so much through a connection both ends of which are here. It fails if nothing moves for some seconds."""
    sender.setblocking(False)
    sent = got = 0
    while got < size:
        readable, writable, _ = select.select([receiver], [sender] if sent < size else [], [], 5)
        assert readable or writable, f"nothing moves any more, after {got} of {size} bytes"
        if writable:
            sent += sender.send(bytes(min(size - sent, 1 << 16)))
        if readable:
            data = receiver.recv(1 << 16)
            assert data, f"it ended after {got} of {size} bytes"
            got += len(data)


def sent(send: Callable[[], int], receiver: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """A datagram, as it arrives. IPv6's routers cut nothing: what is lost teaches its sender, who then sends it again."""
    receiver.settimeout(0.25)
    for _ in range(12):
        with contextlib.suppress(TimeoutError, TooLarge):
            with too_large():
                send()
            return receiver.recvfrom(8192)
    raise AssertionError("no datagram came whole")


class TooLarge(OSError):
    """What the path does not bear (`EMSGSIZE`)."""


@contextlib.contextmanager
def too_large() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TooLarge(error) if error.errno == errno.EMSGSIZE else error from error
