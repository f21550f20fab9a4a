"""Servers in the workloads' network namespaces, and requests between them.

Sockets belong to the namespace in which they were made: they are made there, in a thread that visits it, and used in the
event loop like any other.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import Final, Self

from attrs import frozen

from axoneme.core.demo.article import App, Flow
from axoneme.core.net.namespaces import opened
from axoneme.core.workloads.endpoints import Address, Endpoint

#: A request is small, and so is what a stranger may send before it is told to go.
_LONGEST: Final = 4096
_PATIENCE: Final = 5.0
_BACKLOG: Final = 128


class Answer(enum.StrEnum):
    """What a client got."""

    RIGHT = "right"
    WRONG = "wrong answer"
    REFUSED = "refused"
    NONE = "no answer"


@frozen
class Attempt:
    """A client's socket, bound and not connected yet. The key tells its packets from all others."""

    flow: Flow
    socket: socket.socket
    target: tuple[str, int]

    @property
    def key(self) -> tuple[str, int, str, int]:
        """Source address and port, destination address and port."""
        address, port = self.socket.getsockname()[:2]
        return address, port, *self.target


def greeting(app: str, port: int) -> str:
    """What a server says."""
    return f"{app} answers on port {port}"


class Servers:
    """The workloads' servers: HTTP on each of an app's ports, for IPv4 and IPv6. Closed with the block."""

    def __init__(self) -> None:
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def serve(self, app: App, endpoint: Endpoint) -> None:
        with opened(endpoint.netns) as namespace:
            listening = namespace.visit(lambda: [_listen(port) for port in app.ports])
        for made, port in zip(listening, app.ports, strict=True):
            server = await asyncio.start_server(_Server(greeting(app.name, port)).answer, sock=made)
            self._stack.callback(server.close)


def _listen(port: int) -> socket.socket:
    made = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=_BACKLOG)
    made.setblocking(False)
    return made


@frozen
class _Server:
    text: str

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request, whatever it asks for. Who does not ask like HTTP gets no answer."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await reader.readuntil(b"\r\n\r\n")
                body = f"{self.text}\n".encode()
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (OSError, EOFError, TimeoutError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def attempts(source: Endpoint, wanted: Iterable[tuple[Flow, Endpoint]]) -> list[Attempt]:
    """The sockets for the requests of one workload: each flow with the endpoint that it goes to."""

    def bind() -> list[Attempt]:
        return [_attempt(flow, source, destination) for flow, destination in wanted]

    with opened(source.netns) as namespace:
        return namespace.visit(bind)


def _attempt(flow: Flow, source: Endpoint, destination: Endpoint) -> Attempt:
    kind = socket.AF_INET6 if flow.family == 6 else socket.AF_INET
    made = socket.socket(kind, socket.SOCK_STREAM)
    made.setblocking(False)
    made.bind((str(_address(source, flow.family)), 0))
    return Attempt(flow, made, (str(_address(destination, flow.family)), flow.port))


def _address(endpoint: Endpoint, family: int) -> Address:
    return next(address for address in endpoint.addresses if address.version == family)


async def request(attempt: Attempt) -> Answer:
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
    return _judged(answer, attempt.flow)


def _question(flow: Flow) -> bytes:
    return f"GET / HTTP/1.1\r\nHost: {flow.destination}:{flow.port}\r\nConnection: close\r\n\r\n".encode()


def _judged(answer: bytes, flow: Flow) -> Answer:
    """An answer counts when it is that of the server that was asked."""
    head, _, body = answer.partition(b"\r\n\r\n")
    told = body.decode(errors="replace").strip()
    right = head.startswith(b"HTTP/1.1 200 ") and told == greeting(flow.destination, flow.port)
    return Answer.RIGHT if right else Answer.WRONG
