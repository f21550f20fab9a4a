"""The newest flows of a node, as columns of a fixed size, and what was lost between them.

Each flow has a number, which counts from the start. Whoever reads knows at which number he is: the ring holds nothing for
readers, a slow one finds that what he wants is overwritten, and how much that is.

Everything here belongs to the agent's event loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from attrs import frozen

from axoneme.plugins.hubble.columns import DTYPES, NAMED, Array, Columns, View
from axoneme.plugins.hubble.names import Names

#: How many flows are looked at before others get their turn.
CHUNK: Final = 65_536
#: Names are looked through for those that nobody needs any more when there are this many more than the last time.
_GROWTH: Final = 16_384
#: Losses that are remembered.
_LOSSES: Final = 1024


@frozen
class Loss:
    """Events that never became flows.

    :param serial: counts the losses themselves, from 1.
    :param position: the number of the flow before which they are missing.
    :param source: a `flow.LostEventSource`.
    """

    serial: int
    position: int
    source: int
    count: int
    time: int


class _Messages(Mapping[int, bytes]):
    """The flows that came as messages, by number: a slot for each flow, made when the first message comes."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._slots: list[bytes] = []

    def put(self, number: int, message: bytes) -> None:
        if not self._slots:
            self._slots = [b""] * self._capacity
        self._slots[number % self._capacity] = message

    def __getitem__(self, number: int) -> bytes:
        return self._slots[number % self._capacity]

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self._slots)))

    def __len__(self) -> int:
        return len(self._slots)


class Ring:
    """The flows of a node.

    :param capacity: how many are kept.
    :ivar head: how many there have been; the next one's number.
    """

    def __init__(self, capacity: int, names: Names | None = None) -> None:
        self.capacity = capacity
        self.names = names or Names()
        self.head = 0
        self.lost = 0
        self.losses: deque[Loss] = deque(maxlen=_LOSSES)
        #: Called with the flows that were added.
        self.listeners: list[Callable[[View], None]] = []
        # Untouched pages of zeros take no memory: an empty ring is small.
        self._columns = {name: np.zeros(capacity, dtype) for name, dtype in DTYPES.items()}
        self._messages = _Messages(capacity)
        self._arrived = asyncio.Event()
        self._known = _GROWTH

    @property
    def tail(self) -> int:
        """The number of the oldest flow that is still there."""
        return max(0, self.head - self.capacity)

    def __len__(self) -> int:
        return min(self.head, self.capacity)

    @property
    def last_time(self) -> int:
        """Of the newest flow, ns since 1970; 0 when there is none."""
        return int(self._columns["time"][(self.head - 1) % self.capacity]) if self.head else 0

    def append(self, columns: Columns, messages: Mapping[int, bytes] | None = None) -> None:
        """Adds flows, oldest first, whose `time` has to rise.

        :param messages: those that came as messages, serialized, by their place in the columns.
        """
        count = len(columns["time"])
        first = self.head
        for begin in range(max(0, count - self.capacity), count, self.capacity):
            self._write(columns, begin, min(begin + self.capacity, count), first)
        self.head += count
        for place, message in (messages or {}).items():
            self._messages.put(first + place, message)
        if max(part.used for part in self.names.parts().values()) > self._known:
            self._forget_names()
        self._tell()

    def _write(self, columns: Columns, begin: int, end: int, first: int) -> None:
        place = (first + begin) % self.capacity
        until = min(place + end - begin, self.capacity)
        split = begin + until - place
        for name, column in self._columns.items():
            given = columns[name]
            column[place:until] = given[begin:split]
            if split < end:
                column[: end - split] = given[split:end]

    def lose(self, source: int, count: int, time: int) -> None:
        """Events were lost before the next flow."""
        self.lost += count
        serial = self.losses[-1].serial + 1 if self.losses else 1
        self.losses.append(Loss(serial, self.head, source, count, time))
        self._tell()

    def _tell(self) -> None:
        arrived, self._arrived = self._arrived, asyncio.Event()
        arrived.set()

    async def wait(self) -> None:
        """Until something is added or lost."""
        await self._arrived.wait()

    def views(self, begin: int, end: int, size: int = CHUNK) -> Iterator[View]:
        """The flows with these numbers, those that are there, in stretches of at most `size`; no copies.

        What is added while the iterator is held overwrites the oldest: ask `tail` before using a view after an await.
        """
        begin, end = max(begin, self.tail), min(end, self.head)
        while begin < end:
            view = self.view(begin, min(end, begin + size))
            yield view
            begin += len(view)

    def view(self, begin: int, end: int) -> View:
        """From one number on, as far as it goes without a copy."""
        place = begin % self.capacity
        until = min(place + end - begin, self.capacity)
        part = {name: column[place:until] for name, column in self._columns.items()}
        return View(begin, part, self.names, self._messages)

    def before(self, end: int, size: int = CHUNK) -> View:
        """The flows before a number, as far back as it goes without a copy, `size` at most. There has to be one."""
        place = (end - 1) % self.capacity + 1
        return self.view(max(self.tail, end - size, end - place), end)

    def since(self, time: int) -> int:
        """The number of the first flow at or after a time (ns since 1970)."""
        for view in self.views(self.tail, self.head, self.capacity):
            place = int(np.searchsorted(view["time"], np.uint64(max(time, 0))))
            if place < len(view):
                return view.start + place
        return self.head

    def losses_after(self, serial: int, end: int) -> Sequence[Loss]:
        """The losses that came after one, as far as they are before a flow."""
        if not self.losses or self.losses[-1].serial == serial:
            return ()
        return [loss for loss in self.losses if loss.serial > serial and loss.position <= end]

    def _forget_names(self) -> None:
        for kind, columns in NAMED.items():
            part = self.names.parts()[kind]
            used = np.zeros(len(part), bool)
            for column in columns:
                used[self._columns[column][: len(self)]] = True
            part.keep(used)
        self._known = 2 * max(part.used for part in self.names.parts().values()) + _GROWTH


def rising(times: Array, after: int) -> Array:
    """The same times, each later than the one before and all later than `after`: the ring's order is the order of time.

    Clients take time and node for a flow's name, and searching needs the order.
    """
    steps = np.arange(len(times), dtype=np.int64)
    signed = times.astype(np.int64) - steps
    if len(signed):
        signed[0] = max(int(signed[0]), after + 1)
    return (np.maximum.accumulate(signed) + steps).astype(np.uint64)
