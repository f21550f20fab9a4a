"""What proxies report: single requests and answers of layer 7, of which the kernel sees only the connection.

A plugin that runs a proxy tells them (`context.events.requests.tell(…)`); whoever shows or counts traffic listens. Nobody waits
for anybody: a listener who is too slow loses the oldest, and how many is counted.
"""

from __future__ import annotations

import asyncio
import enum
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

from attrs import frozen

from axoneme.core.workloads.endpoints import Address

#: How many requests a listener may be behind.
BACKLOG: Final = 8192


class Outcome(enum.StrEnum):
    """ERROR: it could not be passed on, or the answer is none."""

    FORWARDED = "forwarded"
    DENIED = "denied"
    ERROR = "error"


@frozen(kw_only=True)
class Dns:
    """A question, or the answer to it.

    :param query: the name with a dot at its end.
    :param types: of the question, such as `A`.
    :param rcode: the answer's code (RFC 6895); 0 is no error.
    :param answer_types: of the records in the answer.
    """

    query: str
    types: tuple[str, ...]
    rcode: int = 0
    addresses: tuple[str, ...] = ()
    ttl: int = 0
    cnames: tuple[str, ...] = ()
    answer_types: tuple[str, ...] = ()


@frozen(kw_only=True)
class Http:
    """:param status: of the answer; 0 for a request. :param headers: those that may be shown."""

    method: str
    url: str
    protocol: str
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()


@frozen(kw_only=True)
class Request:
    """A request or, with `answer` set, the answer to one. Source is who sent it: of an answer, the server.

    :param time: ns since 1970.
    :param protocol: of the connection, the IP protocol's number.
    :param ingress: whose policy had a say: the server's (True) or the client's.
    :param latency: ns from the request to this answer; 0 when it is unknown.
    :param trace_id: of the request's `traceparent` header (W3C), 32 hexadecimal digits.
    """

    time: int
    source: Address
    source_port: int
    destination: Address
    destination_port: int
    protocol: int
    outcome: Outcome
    what: Dns | Http
    source_endpoint: int = 0
    destination_endpoint: int = 0
    source_identity: int = 0
    destination_identity: int = 0
    egress_rule: int = 0
    ingress_rule: int = 0
    ingress: bool = False
    answer: bool = False
    latency: int = 0
    trace_id: str = ""


class RequestListener:
    """A bounded queue. Use as a context manager and iterate `batches()`.

    :ivar lost: requests that this listener was too slow for.
    """

    def __init__(self, stream: RequestStream, backlog: int) -> None:
        self.lost = 0
        self._stream = stream
        self._waiting: deque[Request] = deque()
        self._backlog = backlog
        self._new = asyncio.Event()

    def offer(self, requests: tuple[Request, ...]) -> None:
        self._waiting.extend(requests)
        while len(self._waiting) > self._backlog:
            self._waiting.popleft()
            self.lost += 1
        self._new.set()

    async def batches(self) -> AsyncIterator[list[Request]]:
        """What came since the last one, without end."""
        while True:
            await self._new.wait()
            self._new.clear()
            taken = list(self._waiting)
            self._waiting.clear()
            if taken:
                yield taken

    def __enter__(self) -> Self:
        self._stream.listeners.append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.listeners.remove(self)


class RequestStream:
    def __init__(self) -> None:
        self.listeners: list[RequestListener] = []

    def tell(self, *requests: Request) -> None:
        """Hands requests to everybody who listens; costs nothing where nobody does."""
        for listener in self.listeners:
            listener.offer(requests)

    @property
    def heard(self) -> bool:
        """Whether anybody listens; otherwise nothing needs to be put together."""
        return bool(self.listeners)

    def listen(self, *, backlog: int = BACKLOG) -> RequestListener:
        """A listener; it hears nothing before it is entered."""
        return RequestListener(self, backlog)
