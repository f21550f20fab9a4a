"""Sockets of a network namespace by sock_diag(7): who is connected to a backend, and the end of such connections.

Layouts: linux/sock_diag.h, linux/inet_diag.h. Closing needs CAP_NET_ADMIN and a kernel with INET_DIAG_DESTROY.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from attrs import frozen

from axoneme.core.errors import KernelError
from axoneme.plugins.lb.model import Protocol
from axoneme.plugins.lb.rows import BackendKey, backend_key, port_of

_NETLINK_SOCK_DIAG: Final = 4
_BY_FAMILY, _DESTROY = 20, 21
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
#: Of TCP: established, SYN sent, FIN wait 1 and 2, close wait: whoever has one of these may be waiting for the backend. Of UDP
#: the first one means connected.
_STATES: Final = {Protocol.TCP: 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8, Protocol.UDP: 1 << 1}

_HEADER: Final = struct.Struct("=IHHII")
_ID: Final = struct.Struct("!HH16s16s")
#: family, protocol, extensions, states; the socket's ends, interface and cookie.
_ASK: Final = struct.Struct("=BBxxI36sI8s")
#: family, state, timer, retransmissions; the ends, interface and cookie; expiry, queues, user, inode.
_ANSWER: Final = struct.Struct("=BBBB36sI8sIIIII")


@frozen
class Socket:
    """A connected socket of the namespace that was asked.

    :param cookie: as `bpf_get_socket_cookie` has it.
    :param inode: 0 when it is no process's any more.
    """

    protocol: Protocol
    family: int
    ends: bytes
    interface: int
    cookie: bytes
    inode: int

    @property
    def number(self) -> int:
        return int.from_bytes(self.cookie, "little")

    @property
    def peer(self) -> BackendKey:
        """Whom it is connected to, as the key of a backend. An IPv6 socket may be connected to an IPv4 address."""
        _, port, _, address = _ID.unpack(self.ends)
        if self.family == socket.AF_INET:
            return backend_key(IPv4Address(address[:4]), port, self.protocol)
        plain = IPv6Address(address)
        return backend_key(plain.ipv4_mapped or plain, port, self.protocol)


@frozen
class Ended:
    """Sockets that were closed, and those with the same peers that were not among those to be closed."""

    closed: int = 0
    left: int = 0

    def __add__(self, other: Ended) -> Ended:
        return Ended(self.closed + other.closed, self.left + other.left)


class SockDiag:
    """A sock_diag socket of the namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
        )
        self._socket.settimeout(5.0)

    def __enter__(self) -> SockDiag:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def connected(self, protocol: Protocol, port: int = 0) -> Iterator[Socket]:
        """Sockets of both families that have a peer; with a port, those whose peer has it."""
        for family in (socket.AF_INET, socket.AF_INET6):
            ends = _ID.pack(0, port, bytes(16), bytes(16))
            ask = _ASK.pack(family, protocol, _STATES[protocol], ends, 0, b"\xff" * 8)
            self._send(_BY_FAMILY, _REQUEST | _DUMP, ask)
            for body in self._answers():
                found, _, _, _, ends, interface, cookie, *_, inode = _ANSWER.unpack_from(body)
                if not port or struct.unpack_from("!H", ends, 2)[0] == port:
                    yield Socket(protocol, found, ends, interface, cookie, inode)

    def close(self, one: Socket) -> bool:
        """Its owner gets ECONNABORTED. False when it was gone already. Raises `KernelError`."""
        ask = _ASK.pack(one.family, one.protocol, _STATES[one.protocol], one.ends, one.interface, one.cookie)
        self._send(_DESTROY, _REQUEST | _ACK, ask)
        try:
            for _ in self._answers():
                pass
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise KernelError(
                f"a {one.protocol.name} socket cannot be closed: {error.strerror}",
                hint="this needs a kernel with CONFIG_INET_DIAG_DESTROY",
            ) from error
        return True

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.sendto(_HEADER.pack(_HEADER.size + len(body), kind, flags, 1, 0) + body, (0, 0))

    def _answers(self) -> Iterator[bytes]:
        """The bodies of all answers to what was asked last. Raises `OSError` for an error."""
        while True:
            data = self._socket.recv(1 << 16)
            at = 0
            while at + _HEADER.size <= len(data):
                length, kind, *_ = _HEADER.unpack_from(data, at)
                body = data[at + _HEADER.size : at + length]
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", body)[0]
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield body
                at += (length + 3) & ~3


def close_sockets(cookies: Collection[int], peers: Collection[BackendKey]) -> Ended:
    """Closes TCP sockets of the calling thread's namespace: those with one of these cookies and one of these peers."""
    closed = left = 0
    with SockDiag() as diag:
        for port in {port_of(peer) for peer in peers}:
            for one in [one for one in diag.connected(Protocol.TCP, port) if one.peer in peers]:
                if one.number in cookies:
                    closed += diag.close(one)
                else:
                    left += 1
    return Ended(closed, left)


def connected_datagrams() -> list[Socket]:
    """The connected UDP sockets of the calling thread's namespace. Raises `OSError`."""
    with SockDiag() as diag:
        return list(diag.connected(Protocol.UDP))


def close_one(one: Socket) -> int:
    """In the calling thread's namespace: 1, or 0 when it was gone already. Raises `KernelError`."""
    with SockDiag() as diag:
        return int(diag.close(one))
