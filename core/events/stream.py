"""One reader of the ring, many who listen. Batches of records pass as numpy arrays; nobody's slowness is anybody else's."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from axoneme.core.datapath.abi import EventType
from axoneme.core.datapath.ring import RingReader
from axoneme.core.events.requests import RequestStream

Records = np.ndarray[Any, Any]

#: How many records a listener may be behind before it loses the oldest. 152 bytes each.
BACKLOG: Final = 65_536


class Listener:
    """A bounded queue of batches. Use as a context manager and iterate.

    :ivar lost: records that this listener was too slow for.
    """

    def __init__(self, stream: EventStream, types: Iterable[EventType], backlog: int = BACKLOG) -> None:
        self.lost = 0
        self._stream = stream
        self._types = np.array(sorted(int(kind) for kind in types), np.uint8)
        self._backlog = backlog
        self._batches: deque[Records] = deque()
        self._waiting = 0
        self._new = asyncio.Event()

    def wants(self, kind: EventType) -> bool:
        return bool((self._types == int(kind)).any())

    def offer(self, records: Records) -> None:
        wanted = records[np.isin(records["type"], self._types)]
        if not len(wanted):
            return
        self._batches.append(wanted)
        self._waiting += len(wanted)
        while self._waiting > self._backlog and len(self._batches) > 1:
            oldest = self._batches.popleft()
            self._waiting -= len(oldest)
            self.lost += len(oldest)
        self._new.set()

    def take(self) -> list[Records]:
        """All batches that wait, without waiting for more."""
        batches = list(self._batches)
        self._batches.clear()
        self._waiting = 0
        self._new.clear()
        return batches

    async def batches(self) -> AsyncIterator[Records]:
        """Batches as they come, without end."""
        while True:
            await self._new.wait()
            self._new.clear()
            while self._batches:
                batch = self._batches.popleft()
                self._waiting -= len(batch)
                yield batch

    def __enter__(self) -> Self:
        self._stream.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.remove(self)


class EventStream:
    """Distributes the ring's records.

    :ivar counts: records seen, by type.
    :ivar lost: records that found no room in the ring.
    :ivar requests: what proxies report of single requests.
    """

    def __init__(self) -> None:
        self.counts: dict[EventType, int] = dict.fromkeys(EventType, 0)
        self.lost = 0
        self.requests = RequestStream()
        self._listeners: list[Listener] = []

    def listen(self, types: Iterable[EventType] = tuple(EventType), *, backlog: int = BACKLOG) -> Listener:
        """A listener for these types of record; it hears nothing before it is entered."""
        return Listener(self, types, backlog)

    def wants(self, kind: EventType) -> bool:
        """Whether anybody listens to records of this type."""
        return any(listener.wants(kind) for listener in self._listeners)

    def add(self, listener: Listener) -> None:
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        self._listeners.remove(listener)

    def publish(self, records: Records) -> None:
        """Hands records on, those of the kernel or those that the agent itself has to tell."""
        if not len(records):
            return
        numbers = np.bincount(records["type"], minlength=len(EventType) + 1)
        for kind in EventType:
            self.counts[kind] += int(numbers[kind])
        for listener in self._listeners:
            listener.offer(records)

    async def run(self, ring: RingReader, ready: Callable[[], None]) -> None:
        """Reads the ring until cancelled."""
        ready()
        async for records in ring.batches():
            self.publish(records)
            self.lost += ring.lost()
