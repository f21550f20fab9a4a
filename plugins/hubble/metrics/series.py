"""Counters and histograms with labels, of which there are at most so many.

prometheus_client writes them down. The numbers themselves are kept here, because its own metrics can neither be bounded nor
counted up by numpy, and add `_created` series that Cilium does not have.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from prometheus_client import Metric
    from prometheus_client.samples import Exemplar

#: The value of every label of the series that takes what found no room.
OVERFLOW: Final = "overflow"

#: Those of Prometheus' clients, in seconds.
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Labels = tuple[str, ...]


class Counter:
    """One series that counts. `trace_id` is the example for it, if it has one."""

    __slots__ = ("trace_id", "value")

    def __init__(self) -> None:
        self.value = 0
        self.trace_id = ""


class Distribution:
    """One series that is a histogram. `counts` are of the buckets, not cumulative, the last one for what is beyond."""

    __slots__ = ("counts", "sum", "trace_id", "traced")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0
        self.trace_id = ""
        self.traced = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += times
        self.sum += seconds * times

    def observe_all(self, seconds: np.ndarray[Any, Any]) -> None:
        found = np.bincount(np.searchsorted(BUCKETS, seconds), minlength=len(BUCKETS) + 1)
        self.counts = [a + b for a, b in zip(self.counts, found.tolist(), strict=True)]
        self.sum += float(seconds.sum())


Cell = Counter | Distribution


class Family:
    """A metric.

    :param labels: the labels' names, in the order in which values are given.
    :param limit: how many series it may have; what would be one more is counted as `overflow`.
    :ivar overflowed: observations of labels that found no room; counted by label set, not by flow.
    """

    def __init__(self, name: str, text: str, labels: Labels, make: Callable[[], Cell], limit: int) -> None:
        self.name = name
        self.text = text
        self.labels = labels
        self.limit = limit
        self.overflowed = 0
        self._make = make
        self._cells: dict[Labels, Cell] = {}

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def histogram(self) -> bool:
        return self._make is Distribution

    def cell(self, values: Labels) -> Cell:
        """The series with these label values, or the one for what is too much."""
        found = self._cells.get(values)
        if found is not None:
            return found
        if self.labels and len(self._cells) >= self.limit:
            self.overflowed += 1
            return self.overflow()
        made = self._cells[values] = self._make()
        return made

    @property
    def full(self) -> bool:
        """Whether label values that are new find no room."""
        return bool(self.labels) and len(self._cells) >= self.limit

    def overflow(self) -> Cell:
        """The series for what finds no room."""
        values = (OVERFLOW,) * len(self.labels)
        if values not in self._cells:
            self._cells[values] = self._make()
        return self._cells[values]

    def remove(self, gone: Callable[[Mapping[str, str]], bool]) -> int:
        """Removes the series whose labels satisfy `gone`; returns how many."""
        doomed = [values for values in self._cells if gone(dict(zip(self.labels, values, strict=True)))]
        for values in doomed:
            del self._cells[values]
        return len(doomed)

    def collect(self) -> Metric:
        """What Prometheus is told, a copy: it may be written down by another thread."""
        from prometheus_client import Metric

        kind = "histogram" if self.histogram else "counter"
        metric = Metric(self.name.removesuffix("_total"), self.text, kind)
        for values, cell in sorted(self._cells.items()):
            labels = dict(zip(self.labels, values, strict=True))
            for suffix, more, value, exemplar in _samples(cell):
                metric.add_sample(metric.name + suffix, labels | more, value, None, exemplar)
        return metric


def _samples(cell: Cell) -> Iterator[tuple[str, dict[str, str], float, Exemplar | None]]:
    if isinstance(cell, Counter):
        yield "_total", {}, cell.value, _exemplar(cell.trace_id, 1)
        return
    so_far = 0
    traced = bisect_left(BUCKETS, cell.traced)
    for index, (bound, count) in enumerate(zip(_BOUNDS, cell.counts, strict=True)):
        so_far += count
        exemplar = _exemplar(cell.trace_id, cell.traced) if index == traced else None
        yield "_bucket", {"le": bound}, so_far, exemplar
    yield "_count", {}, so_far, None
    yield "_sum", {}, cell.sum, None


# As Go's client writes them: they are label values, so that `1.0` would be another series than `1`.
_BOUNDS: Final = (*(f"{bound:g}" for bound in BUCKETS), "+Inf")


def _exemplar(trace_id: str, value: float) -> Exemplar | None:
    if not trace_id:
        return None
    from prometheus_client.samples import Exemplar

    return Exemplar({"traceID": trace_id}, value)


def collect(families: Iterable[Family]) -> Iterator[Metric]:
    """Those that have series. One that has none yet is not mentioned, as with Cilium."""
    return (family.collect() for family in families if len(family))
