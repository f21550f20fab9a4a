"""The one way from the programs' clock to the time of day."""

from __future__ import annotations

import time
from typing import Final

#: Nanoseconds by which the clocks may drift apart before it is noticed.
_TOLERANCE: Final = 1_000_000

_offset = 0


def wall_offset() -> int:
    """What to add to the monotonic clock, in which the programs count, to get ns since 1970.

    The same for everybody and at every time, until the clock of the day is set or has drifted by a millisecond: so that a
    record has one time, wherever it is told.
    """
    global _offset
    now = min(_measured() for _ in range(3))  # whoever was interrupted in between has measured too much
    if abs(now - _offset) > _TOLERANCE:
        _offset = now
    return _offset


def _measured() -> int:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    return time.time_ns() - before
