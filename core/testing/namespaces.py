"""Network namespaces for tests, and small real servers and clients that live in them."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from ipaddress import ip_address
from types import TracebackType
from typing import Self, TypeVar

from axoneme.core.net import namespaces
from axoneme.core.testing.checksums import internet_checksum
from axoneme.core.testing.packets import ICMP_ECHO, ICMPV6_ECHO, echo

T = TypeVar("T")

_numbers = itertools.count(1)


def unique(prefix: str = "t") -> str:
    """A name that no other test process uses, short enough for an interface (15 characters)."""
    return f"{prefix}{os.getpid():x}-{next(_numbers)}"


class Namespaces:
    """Makes network namespaces, each with its loopback up, and removes them and what serves in them at its end."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def make(self, prefix: str = "axt") -> str:
        """A new namespace; returns its name."""
        from axoneme.core.net import messages
        from axoneme.core.net.rtnl import Rtnl

        def loopback_up() -> None:
            with Rtnl() as rtnl:
                rtnl.request([messages.set_up(1)])

        name = unique(prefix)
        namespaces.create(name, loopback_up)
        self._stack.callback(namespaces.delete, name)
        return name

    def adopt(self, name: str) -> str:
        """Removes a namespace that somebody else makes or has made under this name, if it is still there at the end."""
        self._stack.callback(namespaces.delete, name)
        return name

    def serve_tcp(self, netns: str, port: int, answer: Callable[[bytes], bytes] = bytes) -> EchoServer:
        return self._serve(netns, socket.SOCK_STREAM, port, answer)

    def serve_udp(self, netns: str, port: int, answer: Callable[[bytes], bytes] = bytes) -> EchoServer:
        return self._serve(netns, socket.SOCK_DGRAM, port, answer)

    def _serve(
        self, netns: str, kind: socket.SocketKind, port: int, answer: Callable[[bytes], bytes]
    ) -> EchoServer:
        server = EchoServer(within(netns, lambda: listen(kind, port)), answer)
        self._stack.callback(server.close)
        return server


def within(netns: str, function: Callable[[], T]) -> T:
    """Calls a function in a namespace (by path or name; the empty one is the caller's own)."""
    if not netns:
        return function()
    with namespaces.opened(netns) as namespace:
        return namespace.visit(function)


def listen(kind: socket.SocketKind, port: int) -> socket.socket:
    """A socket for both families, on all addresses. A TCP one listens."""
    made = socket.socket(socket.AF_INET6, kind)
    try:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("::", port))
        if kind == socket.SOCK_STREAM:
            made.listen(128)
    except BaseException:
        made.close()
        raise
    return made


class EchoServer:
    """Answers every datagram, or what comes first on every connection, with `answer(data)`. Runs in a thread."""

    def __init__(self, listening: socket.socket, answer: Callable[[bytes], bytes] = bytes) -> None:
        self._socket = listening
        self._answer = answer
        #: The addresses that asked, as the server saw them.
        self.seen: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    def close(self) -> None:
        with contextlib.suppress(OSError):  # a UDP socket says ENOTCONN, and wakes the thread all the same
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._socket.close()

    def _run(self) -> None:
        serve = self._accept if self._socket.type == socket.SOCK_STREAM else self._receive
        while True:
            try:
                if not serve():
                    return
            except OSError:
                return

    def _accept(self) -> bool:
        connection, peer = self._socket.accept()
        with connection:
            connection.settimeout(5)
            self.seen.append(_plain(peer[0]))
            with contextlib.suppress(OSError):  # this client is gone; the next one may stay
                connection.sendall(self._answer(connection.recv(1 << 16)))
        return True

    def _receive(self) -> bool:
        data, peer = self._socket.recvfrom(1 << 16)
        if not data:
            return False
        self.seen.append(_plain(peer[0]))
        self._socket.sendto(self._answer(data), peer)
        return True


def _plain(address: str) -> str:
    """An IPv4-mapped IPv6 address as the IPv4 address."""
    parsed = ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return str(mapped or parsed)


def ask(
    netns: str, address: str, port: int, data: bytes = b"hello", *, udp: bool = False, timeout: float = 3
) -> bytes:
    """Sends data from a namespace and returns the answer. Raises `OSError`, or its `TimeoutError`, when none comes."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with within(netns, lambda: socket.socket(family, kind)) as client:
        client.settimeout(timeout)
        client.connect((address, port))
        client.sendall(data)
        return client.recv(1 << 16)


def reachable(netns: str, address: str, port: int, *, udp: bool = False, timeout: float = 1) -> bool:
    """Whether an answer comes from there."""
    try:
        return bool(ask(netns, address, port, udp=udp, timeout=timeout))
    except OSError:
        return False


def flood(
    netns: str, address: str, port: int, flows: int, *, per_second: int = 4000, first: int = 2000
) -> None:
    """So many UDP flows from a namespace, each of one datagram from a port of its own (`first` …), at no more than this rate."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET

    def send() -> None:
        begin = time.monotonic()
        for number in range(flows):
            # A port that another socket has is left out.
            with socket.socket(family, socket.SOCK_DGRAM) as once, contextlib.suppress(OSError):
                once.bind(("", first + number))
                once.sendto(b"flood", (address, port))
            if number % 40 == 0:
                time.sleep(max(0.0, begin + number / per_second - time.monotonic()))

    within(netns, send)


def ping(netns: str, address: str, *, timeout: float = 3, data: bytes = b"axoneme") -> bool:
    """Sends one echo request from a namespace; whether its reply came."""
    v6 = ":" in address
    protocol = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    family = socket.AF_INET6 if v6 else socket.AF_INET
    identifier = next(_numbers) & 0xFFFF
    body = echo(identifier, 1) + data
    kind = ICMPV6_ECHO if v6 else ICMP_ECHO
    # The kernel computes the checksum of ICMPv6 on raw sockets, which knows the source address.
    checksum = 0 if v6 else internet_checksum(bytes((kind, 0, 0, 0)) + body)
    with within(netns, lambda: socket.socket(family, socket.SOCK_RAW, protocol)) as client:
        client.settimeout(timeout)
        try:
            client.sendto(struct.pack(">BBH", kind, 0, checksum) + body, (address, 0))
            while True:
                answer = client.recv(1 << 16)
                message = answer if v6 else answer[(answer[0] & 15) * 4 :]
                if message[0] in (0, 129) and message[4:] == body:
                    return True
        except OSError:
            return False
