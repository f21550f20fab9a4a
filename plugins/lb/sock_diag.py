"""Closing TCP sockets by sock_diag(7): connections to a backend that is gone would otherwise hang until they time out.

Layouts: linux/sock_diag.h, linux/inet_diag.h. Closing needs CAP_NET_ADMIN and a kernel with INET_DIAG_DESTROY.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Iterator
from typing import Final

from attrs import frozen

from axoneme.core.errors import KernelError

_NETLINK_SOCK_DIAG: Final = 4
_BY_FAMILY, _DESTROY = 20, 21
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_ERROR, _DONE = 2, 3
#: established, SYN sent, FIN wait 1 and 2, close wait: whoever has one of these may be waiting for the backend.
_STATES: Final = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8

_HEADER: Final = struct.Struct("=IHHII")
_ID: Final = struct.Struct("!HH16s16s")
#: family, protocol, extensions, states; the socket's ends, interface and cookie.
_ASK: Final = struct.Struct("=BBxxI36sI8s")
#: family, state, timer, retransmissions; the ends, interface and cookie.
_ANSWER: Final = struct.Struct("=BBBB36sI8s")


@frozen
class TcpSocket:
    """A TCP socket of the namespace that was asked.

    :param cookie: as `bpf_get_socket_cookie` has it.
    """

    family: int
    ends: bytes
    interface: int
    cookie: bytes

    @property
    def number(self) -> int:
        return int.from_bytes(self.cookie, "little")


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

    def connected_to(self, port: int) -> Iterator[TcpSocket]:
        """TCP sockets of both families whose peer has this port."""
        for family in (socket.AF_INET, socket.AF_INET6):
            ends = _ID.pack(0, port, bytes(16), bytes(16))
            ask = _ASK.pack(family, socket.IPPROTO_TCP, _STATES, ends, 0, b"\xff" * 8)
            self._send(_BY_FAMILY, _REQUEST | _DUMP, ask)
            for body in self._answers():
                found, _, _, _, ends, interface, cookie = _ANSWER.unpack_from(body)
                if struct.unpack_from("!H", ends, 2)[0] == port:
                    yield TcpSocket(found, ends, interface, cookie)

    def close(self, one: TcpSocket) -> bool:
        """Its owner gets ECONNABORTED. False when it was gone already. Raises `KernelError`."""
        ask = _ASK.pack(one.family, socket.IPPROTO_TCP, _STATES, one.ends, one.interface, one.cookie)
        self._send(_DESTROY, _REQUEST | _ACK, ask)
        try:
            for _ in self._answers():
                pass
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise KernelError(
                f"a TCP socket cannot be closed: {error.strerror}",
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


def close_sockets(cookies: Collection[int], ports: Collection[int]) -> int:
    """Closes the TCP sockets with these cookies in the calling thread's namespace; returns how many there were.

    :param ports: of their peers, by which they are found.
    """
    closed = 0
    with SockDiag() as diag:
        for port in ports:
            for one in [one for one in diag.connected_to(port) if one.number in cookies]:
                closed += diag.close(one)
    return closed
