"""Who has which number, and which stretch of the slots, in the kernel's maps.

What nobody uses any more rests before it is given out again: a program may still be reading it, and what refers to it
(affinity, counts of connections) should not soon meet a stranger.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable

from attrs import define, field

from axoneme.core.errors import AxonemeError


class LimitError(AxonemeError):
    """One of the kernel's maps is full. What needed it keeps what it had.

    :param limit: the setting to raise.
    :param hint: what else can be done, where it is no setting.
    """

    def __init__(self, what: str, limit: str, size: int, hint: str = "") -> None:
        super().__init__(f"no room for more {what} than {size:,}", hint=hint or f"raise lb.{limit}")
        self.limit = limit


@define
class Numbers:
    """Numbers from 1 on, below `size`: new ones first, then those that were given back longest ago.

    A restart knows which are in use, but not who had the others: those above them count as new, and may meet what is left of
    who had them before. That harms nobody: a client keeps only a backend that the service has, and connections are counted anew.

    :param what: what they are for, in messages.
    :param limit: the setting that `size` comes from.
    """

    what: str
    limit: str
    size: int
    _next: int = 1
    #: All below `_next` that nobody has.
    _free: deque[int] = field(factory=deque)

    def adopt(self, numbers: Iterable[int]) -> None:
        """These are taken. Call it once, before anything else."""
        taken = set(numbers)
        self._next = max(taken, default=0) + 1
        self._free.extend(number for number in range(1, self._next) if number not in taken)

    def take(self) -> int:
        """Raises `LimitError` when none is left."""
        if self._next < self.size:
            self._next += 1
            return self._next - 1
        if self._free:
            return self._free.popleft()
        raise LimitError(self.what, self.limit, self.size - 1)

    def give_back(self, number: int) -> None:
        self._free.append(number)

    def __len__(self) -> int:
        """How many are taken."""
        return self._next - 1 - len(self._free)


class Room:
    """Contiguous stretches of `size` slots, from the front: the first gap that is large enough."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._starts: list[int] = [0]
        self._ends: list[int] = [size]
        #: By size: which gap is the first that may be large enough.
        self._hint: dict[int, int] = {}
        self.used = 0

    def adopt(self, stretches: Iterable[tuple[int, int]]) -> None:
        """These (first, count) are taken; they don't overlap. Call it once, before anything else."""
        self._starts, self._ends = [], []
        end = 0
        for first, count in sorted(stretches):
            if first > end:
                self._starts.append(end)
                self._ends.append(first)
            end = first + count
            self.used += count
        if end < self.size:
            self._starts.append(end)
            self._ends.append(self.size)

    def take(self, count: int) -> int:
        """The first slot of a stretch. Raises `LimitError` when there is no gap of that size."""
        for at in range(self._hint.get(count, 0), len(self._starts)):
            first = self._starts[at]
            if self._ends[at] - first >= count:
                self._hint[count] = at
                self._starts[at] = first + count
                if self._starts[at] == self._ends[at]:
                    del self._starts[at], self._ends[at]
                    self._hint.clear()
                self.used += count
                return first
        raise LimitError("slots", "slots", self.size)

    def give_back(self, first: int, count: int) -> None:
        self._hint.clear()
        self.used -= count
        end = first + count
        at = bisect_left(self._starts, first)
        if at < len(self._starts) and self._starts[at] == end:
            end = self._ends[at]
            del self._starts[at], self._ends[at]
        if at and self._ends[at - 1] == first:
            self._ends[at - 1] = end
            return
        insort(self._starts, first)
        self._ends.insert(at, end)
