"""Messages of several nodes in the order of their times, as far as nodes are not later than the others wait.

Each node's stream is in order by itself. So the oldest of the streams' first messages is the next one, once every stream
has one. A stream that has none is waited for, but no longer than `wait` seconds: neither since it ran dry, nor since the
message came that is held back. So a silent node delays the others for at most that long, once. What is held is bounded:
a stream whose share of the buffer is full is not read on.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class _Stream:
    """:ivar held: how many of its messages wait; :ivar dry: since when there are none."""

    def __init__(self, now: float) -> None:
        self.held = 0
        self.dry = now


class Merger(Generic[T]):
    """Puts messages of streams, which may come and go, in order.

    :param size: how many messages are held; beyond that, each stream may have one more.
    :param wait: seconds that a message waits for streams that have none.
    """

    def __init__(self, size: int, wait: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._wait = wait
        self._clock = clock
        self._streams: dict[Hashable, _Stream] = {}
        self._heap: list[tuple[int, int, float, Hashable, T]] = []
        self._count = 0
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._closed = False

    def add(self, key: Hashable) -> None:
        """A stream that will have messages."""
        self._streams[key] = _Stream(self._clock())
        self._changed.set()

    def remove(self, key: Hashable) -> None:
        """The stream has ended; what is held of it still comes."""
        self._streams.pop(key, None)
        self._changed.set()

    def close(self) -> None:
        """No more streams will be added: when the last one has ended and all is out, it is over."""
        self._closed = True
        self._changed.set()

    async def put(self, key: Hashable, order: int, message: T) -> None:
        """Waits while the stream's share of the buffer is full.

        :param order: what messages are put in order by: nanoseconds.
        """
        stream = self._streams[key]
        while stream.held and (stream.held >= self._share or len(self._heap) >= self._size):
            self._room.clear()
            await self._room.wait()
        stream.held += 1
        self._count += 1
        heapq.heappush(self._heap, (order, self._count, self._clock(), key, message))
        self._changed.set()

    @property
    def _share(self) -> int:
        return max(1, self._size // max(1, len(self._streams)))

    @property
    def held(self) -> int:
        return len(self._heap)

    async def messages(self) -> AsyncIterator[T]:
        """The messages in order, until all streams have ended and `close` was called."""
        while self._heap or self._streams or not self._closed:
            delay = self._delay()
            if delay is not None and delay <= 0:
                yield self._pop()
                continue
            self._changed.clear()
            try:
                async with asyncio.timeout(delay):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def _delay(self) -> float | None:
        """Seconds until the first message may go; None if there is none."""
        if not self._heap:
            return None
        now, came = self._clock(), self._heap[0][2]
        dry = [stream.dry for stream in self._streams.values() if not stream.held]
        return min(max(dry, default=now - self._wait), came) + self._wait - now

    def _pop(self) -> T:
        _, _, _, key, message = heapq.heappop(self._heap)
        stream = self._streams.get(key)
        if stream is not None:
            stream.held -= 1
            if not stream.held:
                stream.dry = self._clock()
        self._room.set()
        return message
