"""Servers in network namespaces, and requests between them.

Sockets belong to the namespace in which they were made: they are made there, in a thread that visits it, and used in the
event loop like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import re
import socket
from collections.abc import Iterable
from ipaddress import ip_address
from types import TracebackType
from typing import Final, Self

from attrs import frozen

from axoneme.core.demo.article import App, Flow, Way
from axoneme.core.demo.machine import Machine
from axoneme.core.net.namespaces import opened
from axoneme.core.workloads.endpoints import Address

#: A request is small, and so is what a stranger may send before it is told to go.
_LONGEST: Final = 4096
_PATIENCE: Final = 5.0
_BACKLOG: Final = 128
_TOLD: Final = re.compile(r"(?P<app>[a-z0-9-]+) answers (?P<client>[0-9a-f.:]+) on port (?P<port>[0-9]+)")


class Answer(enum.StrEnum):
    """What a client got where nobody told it who answers."""

    WRONG = "wrong answer"
    REFUSED = "refused"
    NONE = "no answer"


@frozen
class Attempt:
    """A client's socket, bound and not connected yet. The key tells its packets from all others.

    :param sees: the address that whoever answers has to see.
    """

    flow: Flow
    socket: socket.socket
    target: tuple[str, int]
    sees: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """Source address and port."""
        address, port = self.socket.getsockname()[:2]
        return address, port


@frozen
class Told:
    """What an answer tells: who answers, and from whom the question came, as the server saw it."""

    app: str
    port: int
    client: str

    def __str__(self) -> str:
        return f"{self.app} answers {self.client} on port {self.port}"

    @classmethod
    def read(cls, text: str) -> Told | None:
        found = _TOLD.fullmatch(text)
        return cls(found["app"], int(found["port"]), found["client"]) if found else None


class Servers:
    """Servers in namespaces: HTTP on each of an app's ports, for IPv4 and IPv6. Closed with the block."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def serve(self, app: App, netns: str) -> None:
        with opened(netns) as namespace:
            listening = namespace.visit(lambda: [_listen(port) for port in app.ports])
        for made in listening:
            server = await asyncio.start_server(_Server(app.name).answer, sock=made)
            self._stack.callback(server.close)


def _listen(port: int) -> socket.socket:
    made = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    made.setblocking(False)
    return made


@frozen
class _Server:
    app: str

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, whatever it asks for. Who does not ask like HTTP gets no answer."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await reader.readuntil(b"\r\n\r\n")
                body = f"{self._told(writer)}\n".encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _told(self, writer: asyncio.StreamWriter) -> Told:
        client = ip_address(writer.get_extra_info("peername")[0])
        port = writer.get_extra_info("sockname")[1]
        return Told(self.app, port, str(getattr(client, "ipv4_mapped", None) or client))


@frozen
class Wanted:
    """A request to be made: from where, to which address and port, and as whom."""

    flow: Flow
    netns: str
    source: Address
    target: Address
    sees: Address


def attempts(wanted: Iterable[Wanted], machine: Machine) -> list[Attempt]:
    """The sockets for requests, each made in its client's namespace: those that go by the socket in the demo's cgroup."""
    groups: dict[tuple[bool, str], list[Wanted]] = {}
    for one in wanted:
        groups.setdefault((one.flow.way is Way.SOCKET, one.netns), []).append(one)
    here = [
        attempt
        for (at_socket, netns), some in groups.items()
        if not at_socket
        for attempt in _bind(netns, some)
    ]
    with machine.in_cgroup():
        seen = [
            attempt
            for (at_socket, netns), some in groups.items()
            if at_socket
            for attempt in _bind(netns, some)
        ]
    return here + seen


def _bind(netns: str, wanted: Iterable[Wanted]) -> list[Attempt]:
    with opened(netns) as namespace:
        return namespace.visit(lambda: [_attempt(one) for one in wanted])


def _attempt(wanted: Wanted) -> Attempt:
    kind = socket.AF_INET6 if wanted.flow.family == 6 else socket.AF_INET
    made = socket.socket(kind, socket.SOCK_STREAM)
    made.setblocking(False)
    made.bind((str(wanted.source), 0))
    return Attempt(wanted.flow, made, (str(wanted.target), wanted.flow.port), str(wanted.sees))


async def request(attempt: Attempt) -> Answer | Told:
    """Connects, asks, and waits for the answer: for ever, if there is none. Closes the socket."""
    with attempt.socket:
        try:
            await asyncio.get_running_loop().sock_connect(attempt.socket, attempt.target)
            reader, writer = await asyncio.open_connection(sock=attempt.socket)
        except ConnectionError:
            return Answer.REFUSED
        try:
            writer.write(_question(attempt.flow))
            answer = await reader.read(_LONGEST)
        except ConnectionError:
            return Answer.REFUSED
        finally:
            writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    told = Told.read(body.decode(errors="replace").strip()) if head.startswith(b"HTTP/1.1 200 ") else None
    return told or Answer.WRONG


def _question(flow: Flow) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {flow.destination}:{flow.port}\r\nConnection: close\r\n\r\n".encode()
