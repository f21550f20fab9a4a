"""The rows of backends: who has which number, how many services hold it, and when it may go."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from itertools import islice
from typing import Final

from attrs import define

from axoneme.plugins.lb.maps import BackendFlag
from axoneme.plugins.lb.numbers import LimitError, Numbers
from axoneme.plugins.lb.rows import BackendKey

#: Seconds for which a backend that was taken out of use stays as it is: longer than any program runs that chose it before.
#: From then on, connections without a state of their own (UDP) turn to another one.
CLEAR: Final = 0.05

#: Numbers: to ask an enumeration for its members costs more than the rest of what is done with them.
_USED, _TERMINATING, _REMOTE = map(int, BackendFlag)


#: What a holder says of a backend: whether it is terminating, and remote.
State = tuple[bool, bool]


@define(eq=False)
class _Backend:
    number: int
    value: bytes = b""
    holders: int = 0
    active: int = 0
    remote: bool = False
    #: Counts how often it fell out of use.
    idle: int = 0


class BackendRows:
    """By key, with the number of the services that hold them. One that nobody holds is cleared after `CLEAR` seconds."""

    def __init__(self, size: int) -> None:
        self.numbers = Numbers("backends", "backends", size)
        self._backends: dict[BackendKey, _Backend] = {}
        self._writes: dict[int, bytes] = {}
        self._idle: list[tuple[BackendKey, int]] = []
        self._clearing: deque[tuple[float, list[tuple[BackendKey, int]]]] = deque()
        self._cleared: list[int] = []
        self._gone: set[BackendKey] = set()

    def __len__(self) -> int:
        return len(self._backends)

    def adopt(self, found: Mapping[int, bytes]) -> None:
        """What the kernel has, by number. Call it once, before anything else."""
        for number, value in found.items():
            self._backends[value[:-2] + bytes((value[-1], 0))] = _Backend(number, value)
        self.numbers.adopt(found)

    def prune(self) -> list[BackendKey]:
        """What was adopted and nobody holds falls out of use; returns it."""
        unheld = [(key, one.idle) for key, one in self._backends.items() if not one.holders]
        self._idle += unheld
        return [key for key, _ in unheld]

    def number(self, key: BackendKey) -> int:
        """0 if nobody holds it."""
        found = self._backends.get(key)
        return found.number if found is not None and found.holders else 0

    def held(self, key: BackendKey) -> int:
        """The number of a backend that is held."""
        return self._backends[key].number

    def hold(self, backends: Mapping[BackendKey, State]) -> None:
        """One holder more for each. Raises `LimitError` when not enough numbers are left; then it holds none of them."""
        known = self._backends
        for number, (key, (terminating, remote)) in enumerate(backends.items()):
            one = known.get(key)
            if one is None:
                try:
                    one = known[key] = _Backend(self.numbers.take())
                except LimitError:
                    self.release(dict(islice(backends.items(), number)))
                    raise
            one.holders += 1
            one.active += not terminating
            one.remote = remote
            self._value(key, one)

    def release(self, backends: Mapping[BackendKey, State]) -> None:
        """One holder less for each: it said the same of them when it took them."""
        for key, (terminating, _) in backends.items():
            one = self._backends[key]
            one.holders -= 1
            one.active -= not terminating
            if one.holders:
                self._value(key, one)
            else:
                one.idle += 1
                self._idle.append((key, one.idle))

    def _value(self, key: BackendKey, one: _Backend) -> None:
        flags = _USED if one.active else _USED | _TERMINATING
        if one.remote:
            flags |= _REMOTE
        value = key[:-2] + bytes((flags, key[-2]))
        if value != one.value:
            one.value = self._writes[one.number] = value

    def take_writes(self, now: float) -> dict[int, bytes]:
        """Values since the last time, by number; what fell out of use since then is cleared after `CLEAR` seconds."""
        if self._idle:
            self._clearing.append((now + CLEAR, self._idle))
            self._idle = []
        writes, self._writes = self._writes, {}
        return writes

    def take_cleared(self) -> list[int]:
        """Numbers of those that were cleared since the last time: give them back once they rested."""
        cleared, self._cleared = self._cleared, []
        return cleared

    def take_gone(self) -> set[BackendKey]:
        """Who was cleared since the last time."""
        gone, self._gone = self._gone, set()
        return gone

    @property
    def due(self) -> float | None:
        """When `expire` has something to do."""
        return self._clearing[0][0] if self._clearing else None

    def expire(self, now: float) -> None:
        """Clears what has been out of use for long enough."""
        while self._clearing and self._clearing[0][0] <= now:
            for key, idle in self._clearing.popleft()[1]:
                one = self._backends.get(key)
                if one is not None and not one.holders and one.idle == idle:
                    del self._backends[key]
                    self._writes[one.number] = bytes(len(key))
                    self._cleared.append(one.number)
                    self._gone.add(key)
