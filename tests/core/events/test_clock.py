"""One offset between the clocks, until the clock of the day is set."""

from __future__ import annotations

import time

import pytest

from axoneme.core.events import clock


def test_it_is_the_time_of_day() -> None:
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + clock.wall_offset()
    assert abs(now - time.time_ns()) < 1_000_000_000


def test_it_stays_until_the_clock_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = [1_000_000_000]
    monkeypatch.setattr(clock, "_offset", 0)
    monkeypatch.setattr(clock, "_measured", lambda: measured[0])
    assert clock.wall_offset() == 1_000_000_000
    measured[0] += 999_999
    assert clock.wall_offset() == 1_000_000_000
    measured[0] += 2
    assert clock.wall_offset() == 1_001_000_001
    measured[0] -= 3_600_000_000_000
    assert clock.wall_offset() == measured[0]
