"""What runs while flows are measured: counting what is observed, forgetting pods that are gone, and `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from axoneme.core import logs
from axoneme.core.errors import ConfigError
from axoneme.core.histogram import Histogram
from axoneme.core.http.metrics import metrics_application
from axoneme.core.http.server import HttpServer
from axoneme.core.http.settings import parse_address
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Health, Level
from axoneme.core.workloads.endpoints import ENDPOINTS, Endpoint
from axoneme.plugins.hubble import observer
from axoneme.plugins.hubble.metrics import dynamic
from axoneme.plugins.hubble.metrics.config import MetricsSettings
from axoneme.plugins.hubble.metrics.options import parse
from axoneme.plugins.hubble.metrics.sections import Sections
from axoneme.plugins.hubble.server import calls

if TYPE_CHECKING:
    from prometheus_client import Metric

#: Seconds for which the series of a pod outlive it, so that its last numbers are seen.
LINGERING: Final = 60.0

#: Seconds between two looks at the handlers' file.
_LOOK: Final = 2.0

_log = logs.get(__name__)


class MetricsService:
    """The metrics of one node's flows.

    :ivar requests: answers of `/metrics` by HTTP's code, and how long they took.
    """

    def __init__(self, context: PluginContext) -> None:
        settings: MetricsSettings = context.config.metrics
        self._context = context
        self.sections = Sections(observer.of(context), settings.max_series)
        self._file = settings.dynamic
        self._seen: tuple[int, int] | None = None
        self._problem = ""
        if self._file is None:
            self.sections.use(parse(settings.handlers))
        self._lost: Counter[str] = Counter()
        self._seconds = Histogram()
        self._answers: Counter[str] = Counter()
        self.server = HttpServer(
            lambda: metrics_application(self.collect, self._answered),
            parse_address(settings.listen),
            settings.tls,
        )

    async def count(self, ready: Callable[[], None]) -> None:
        """The service that counts, until cancelled."""
        from axoneme.plugins.hubble.proto.flow_pb2 import LostEventSource

        batches = observer.of(self._context).listen()
        ready()
        async for batch in batches:
            for lost in batch.lost:
                self._lost[LostEventSource.Name(lost.source).lower()] += lost.num_events_lost
            self.sections.add(batch)

    async def follow(self, ready: Callable[[], None]) -> None:
        """The service that takes the handlers from their file, and again when it changes."""
        self.refresh()
        ready()
        while self._file is not None:
            await asyncio.sleep(_LOOK)
            self.refresh()

    def refresh(self) -> None:
        """Looks at the file. One that is wrong leaves the handlers as they are, and a reason in the status."""
        assert self._file is not None, "otherwise nobody follows it"
        seen = _stamp(self._file)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self.sections.use(dynamic.read(self._file))
        except ConfigError as error:
            self._problem = str(error)
            _log.warning("metrics not changed", error=str(error))
        else:
            self._problem = ""

    def health(self) -> Health:
        return Health(level=Level.DEGRADED, reason=self._problem) if self._problem else Health(level=Level.OK)

    async def forget(self, ready: Callable[[], None]) -> None:
        """The service that removes what speaks of pods that are gone for a while."""
        loop = asyncio.get_running_loop()
        with contextlib.closing(self._context.state.table(ENDPOINTS.name, Endpoint).watch()) as watch:
            ready()
            async for changes in watch:
                for change in changes.changes:
                    if change.new is None:
                        loop.call_later(LINGERING, self._forget, change.row.namespace, change.row.name)

    def _forget(self, namespace: str, name: str) -> None:
        endpoints = self._context.state.table(ENDPOINTS.name, Endpoint)
        if not any(True for _ in endpoints.by("uid", f"{namespace}/{name}")):
            self.sections.remove_pod(namespace, name)

    def _answered(self, code: int, seconds: float) -> None:
        self._answers[str(code)] += 1
        self._seconds.observe(seconds, str(code))

    def collect(self) -> Iterator[Metric]:
        """Everything for `/metrics`."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        yield from self.sections.collect()
        lost = CounterMetricFamily(
            "hubble_lost_events", "Events lost before they became flows", labels=["source"]
        )
        for source in _SOURCES:
            lost.add_metric([source], self._lost[source])
        yield lost
        answers = CounterMetricFamily(
            "hubble_metrics_http_handler_requests", "Answers of this endpoint", labels=["code"]
        )
        for code, number in self._answers.items():
            answers.add_metric([code], number)
        yield answers
        seconds = HistogramMetricFamily(
            "hubble_metrics_http_handler_request_duration_seconds", "Duration of answers", labels=["code"]
        )
        for labels, seen in self._seconds.read().items():
            seconds.add_metric(labels, list(seen.buckets()), seen.sum)
        yield seconds
        yield from calls.collect()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino


_SOURCES: Final = ("perf_event_ring_buffer", "observer_events_queue", "hubble_ring_buffer")

_running: WeakKeyDictionary[PluginContext, MetricsService] = WeakKeyDictionary()


def of(context: PluginContext) -> MetricsService:
    """The one of a plugin's context: its services are about the same numbers."""
    if context not in _running:
        _running[context] = MetricsService(context)
    return _running[context]
