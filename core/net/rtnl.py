"""The rtnetlink socket: many requests in one send, each answered, errors in words.

The kernel handles all messages of one send one after the other before the call returns, and goes on after one that fails.
So a batch is one system call and all its answers are there at once; a batch must not hold a request that does harm when
an earlier one failed.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import itertools
import os
import select
import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

from axoneme.core.errors import KernelError
from axoneme.core.net.messages import NLM_F_DUMP, Request

_NETLINK_ROUTE = 0
_SOL_NETLINK, _CAP_ACK, _EXT_ACK, _STRICT_CHK = 270, 10, 11, 12
_NLM_F_REQUEST, _NLM_F_ACK = 1, 4
_NLM_F_DUMP_INTR = 0x10
_NLM_F_CAPPED, _NLM_F_ACK_TLVS = 0x100, 0x200
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSGERR_ATTR_MSG = 1
_HEADER = struct.Struct("=IHHII")

_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, k
#: Classic BPF on a message: pass, unless its type (low byte) is RTM_NEWROUTE or RTM_DELROUTE and `rtm_dst_len` is not zero.
_DEFAULT_ROUTES = (
    (0x30, 0, 0, 4 if sys.byteorder == "little" else 5),  # load byte
    (0x15, 1, 0, 24),  # jump if equal
    (0x15, 0, 2, 25),
    (0x30, 0, 0, 17),
    (0x15, 0, 1, 0),
    (0x06, 0, 0, 0xFFFFFFFF),  # return: all of it
    (0x06, 0, 0, 0),  # return: nothing of it
)

#: Requests sent at once: their answers must fit into the socket's receive buffer together.
BATCH = 64

_DUMP_ATTEMPTS = 5
_PATIENCE = struct.pack("ll", 10, 0)  # struct timeval; the kernel answers before `send` returns, or never


class RtnlError(KernelError):
    """The kernel refused a request. `errno` says why, `request` is the index of it in the batch."""

    def __init__(self, message: str, *, errno: int, request: int = 0) -> None:
        super().__init__(message)
        self.errno = errno
        self.request = request


class Rtnl:
    """A netlink socket of the namespace that the calling thread is in. For one thread at a time."""

    def __init__(self, groups: int = 0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
        self._sequence = itertools.count(1)
        try:
            for option in (_CAP_ACK, _EXT_ACK, _STRICT_CHK):
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
            self._socket.bind((0, groups))
        except OSError as error:
            self._socket.close()
            raise KernelError(f"cannot open a netlink socket: {error.strerror}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def only_default_routes(self) -> None:
        """From now on, of routes only the default ones are told of: others come and go by the thousand on a router."""
        filter_ = b"".join(_INSTRUCTION.pack(*each) for each in _DEFAULT_ROUTES)
        buffer = ctypes.create_string_buffer(filter_, len(filter_))
        program = struct.pack("@HP", len(_DEFAULT_ROUTES), ctypes.addressof(buffer))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)

    def request(self, requests: Sequence[Request]) -> list[list[bytes]]:
        """Sends all requests and returns the replies to each (whole messages; none for those that only do something).

        Raises `RtnlError` for the first one that failed, after all of them were carried out.
        """
        replies, errors = self.attempt(requests)
        for error in errors:
            if error is not None:
                raise error
        return replies

    def attempt(self, requests: Sequence[Request]) -> tuple[list[list[bytes]], list[RtnlError | None]]:
        """As `request`, but gives the error of each instead of raising the first one."""
        replies: list[list[bytes]] = []
        errors: list[RtnlError | None] = []
        for start in range(0, len(requests), BATCH):
            some = self._batch(requests[start : start + BATCH], start)
            replies += some[0]
            errors += some[1]
        return replies, errors

    def dump(self, request: Request) -> list[bytes]:
        """The messages that answer a dump; asked again when what it tells of changed meanwhile."""
        for _ in range(_DUMP_ATTEMPTS - 1):
            messages, torn = self._dump(request)
            if not torn:
                return messages
        return self._dump(request)[0]

    def _dump(self, request: Request) -> tuple[list[bytes], bool]:
        (number,) = self._send((request,))
        messages: list[bytes] = []
        torn = False
        for kind, sequence, message in self._messages():
            if sequence != number:
                continue
            torn |= bool(_HEADER.unpack_from(message)[2] & _NLM_F_DUMP_INTR)
            if kind not in (_NLMSG_ERROR, _NLMSG_DONE):
                messages.append(message)
                continue
            if (code := -struct.unpack_from("=i", message, 16)[0]) > 0:
                raise _error(request, code, message if kind == _NLMSG_ERROR else b"", 0)
            break
        return messages, torn

    def notifications(self) -> list[tuple[int, bytes]]:
        """What the groups told since the last call, as (type, whole message); never waits.

        Raises `RtnlError` with ENOBUFS when some got lost: look at everything again then.
        """
        told: list[tuple[int, bytes]] = []
        while True:
            try:
                data = self._socket.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return told
            except OSError as error:
                raise RtnlError("notifications of the kernel got lost", errno=error.errno or 0) from error
            told += ((kind, message) for kind, _, message in _split(data))

    def _batch(
        self, requests: Sequence[Request], first: int
    ) -> tuple[list[list[bytes]], list[RtnlError | None]]:
        numbers = {number: index for index, number in enumerate(self._send(requests))}
        replies: list[list[bytes]] = [[] for _ in requests]
        errors: list[RtnlError | None] = [None for _ in requests]
        waiting = len(requests)
        for kind, sequence, message in self._messages():
            index = numbers.get(sequence)
            if index is None:
                continue
            if kind != _NLMSG_ERROR:
                replies[index].append(message)
                continue
            if code := -struct.unpack_from("=i", message, 16)[0]:
                errors[index] = _error(requests[index], code, message, first + index)
            waiting -= 1
            if not waiting:
                break
        return replies, errors

    def _send(self, requests: Iterable[Request]) -> list[int]:
        data, numbers = bytearray(), []
        for request in requests:
            number = next(self._sequence)
            flags = request.flags | _NLM_F_REQUEST
            if request.flags & NLM_F_DUMP != NLM_F_DUMP or request.type % 4 != 2:  # only GET requests dump
                flags |= _NLM_F_ACK
            data += (
                _HEADER.pack(_HEADER.size + len(request.body), request.type, flags, number, 0) + request.body
            )
            data += bytes(-len(data) % 4)
            numbers.append(number)
        self._socket.send(data)
        return numbers

    def _messages(self) -> Iterator[tuple[int, int, bytes]]:
        while True:
            try:
                data = self._socket.recv(1 << 16)
            except OSError as error:
                raise RtnlError(f"no answer from the kernel: {error}", errno=error.errno or 0) from error
            yield from _split(data)


def opened_in(netns: str, groups: int = 0) -> Rtnl:
    """A socket of a namespace, by path or name; the empty one is the caller's own. A socket keeps to where it was made."""
    from axoneme.core.net import namespaces

    if not netns:
        return Rtnl(groups)
    with namespaces.opened(netns) as namespace:
        return namespace.visit(lambda: Rtnl(groups))


def _split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence number, whole message) of each message in what was received."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, sequence, data[at : at + length]
        at += (length + 3) & ~3


def _error(request: Request, code: int, message: bytes, index: int) -> RtnlError:
    text = _explanation(message) or os.strerror(code)
    return RtnlError(f"cannot {request.what}: {text}", errno=code, request=index)


def _explanation(message: bytes) -> str:
    """The kernel's own words in an error (extended acknowledgement), empty without."""
    if len(message) < _HEADER.size:
        return ""
    flags = _HEADER.unpack_from(message)[2]
    if not flags & _NLM_F_ACK_TLVS:
        return ""
    quoted = _HEADER.size if flags & _NLM_F_CAPPED else struct.unpack_from("=I", message, 20)[0]
    at = 20 + (quoted + 3 & ~3)
    while at + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, at)
        if kind == _NLMSGERR_ATTR_MSG:
            return message[at + 4 : at + length].rstrip(b"\0").decode(errors="replace")
        at += max(4, (length + 3) & ~3)
    return ""


def is_missing(error: BaseException) -> bool:
    """Whether a request failed because the thing is not there (any more)."""
    return isinstance(error, RtnlError) and error.errno in (
        errno.ENODEV,
        errno.ENOENT,
        errno.ESRCH,
        errno.EADDRNOTAVAIL,
    )


#: Multicast groups for `Rtnl` and `until`: changes of interfaces, and of IPv6 addresses.
LINK_GROUP, ADDRESS6_GROUP = 0x1, 0x100


def until(holds: Callable[[], bool], groups: int, seconds: float = 2.0) -> bool:
    """Waits until something holds, looking again whenever the kernel tells of a change; whether it does."""
    if holds():
        return True
    deadline = time.monotonic() + seconds
    with Rtnl(groups) as news:
        waiting = select.poll()
        waiting.register(news.fileno(), select.POLLIN)
        while not holds():
            if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
                return holds()
            with contextlib.suppress(RtnlError):  # some got lost: then something has changed
                news.notifications()
    return True
