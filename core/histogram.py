"""Durations, counted in buckets: what a `Metric` of the type histogram reads."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from axoneme.core.records import Distribution

#: Those of Prometheus' clients, in seconds.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Histogram:
    """Observations by label tuple.

    :param limit: how many label tuples there may be; further ones are counted under `overflow`.
    """

    def __init__(self, buckets: tuple[float, ...] = BUCKETS, *, limit: int = 1000) -> None:
        self.buckets = buckets
        self._limit = limit
        self._series: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}

    def observe(self, value: float, *labels: str) -> None:
        series = self._series.get(labels)
        if series is None:
            if len(self._series) >= self._limit:
                labels = ("overflow",) * len(labels)
            series = self._series.setdefault(labels, ([0] * (len(self.buckets) + 1), [0.0]))
        counts, total = series
        counts[bisect_left(self.buckets, value)] += 1
        total[0] += value

    @contextmanager
    def timed(self, *labels: str) -> Iterator[None]:
        """Observes the seconds that the block takes, also when it raises."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.observe(time.perf_counter() - begin, *labels)

    def read(self) -> Mapping[tuple[str, ...], Distribution]:
        return {
            labels: Distribution(bounds=self.buckets, counts=tuple(counts), sum=total[0])
            for labels, (counts, total) in self._series.items()
        }
