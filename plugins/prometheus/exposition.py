"""From the records that plugins yield to what Prometheus reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from axoneme.core import logs
from axoneme.core.http.metrics import metrics_application
from axoneme.core.http.server import HttpServer
from axoneme.core.http.settings import parse_address
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Distribution, Metric, MetricType
from axoneme.plugins.prometheus.config import PrometheusConfig

if TYPE_CHECKING:
    import prometheus_client

_log = logs.get(__name__)

Value = float | Distribution
Values = Mapping[tuple[str, ...], Value]

#: What Cilium leaves out unless it is asked for.
OFF_BY_DEFAULT = frozenset({"axoneme_packets_total"})


def server(context: PluginContext) -> HttpServer:
    config: PrometheusConfig = context.config
    source = Exposition(context, config)
    return HttpServer(lambda: metrics_application(source.collect), parse_address(config.listen), config.tls)


class Exposition:
    """All metrics of the agent, as prometheus_client wants them.

    :ivar errors: metrics that could not be read, since the start.
    """

    def __init__(self, context: PluginContext, config: PrometheusConfig) -> None:
        self._context = context
        self._limit = config.max_series
        off = OFF_BY_DEFAULT | {toggle[1:] for toggle in config.metrics if toggle.startswith("-")}
        self._off = off - {toggle[1:] for toggle in config.metrics if toggle.startswith("+")}
        self._process = _process_collector()
        self.errors = 0
        self._failing: set[str] = set()

    def collect(self) -> Iterator[prometheus_client.Metric]:
        for metric in self._context.metrics():
            if metric.name not in self._off and (values := self._read(metric)) is not None:
                yield family(metric, values, self._limit)
        yield from self._process.collect()
        yield from self._own()

    def _read(self, metric: Metric) -> Values | None:
        """None for a metric that cannot be read: it must not hide the others, and is told once, not at each scrape."""
        try:
            value = metric.read()
        except Exception as error:  # noqa: BLE001 - a plugin's number is a plugin's failure
            self.errors += 1
            if metric.name not in self._failing:
                self._failing.add(metric.name)
                _log.warning("metric not read", metric=metric.name, error=logs.describe(error))
            return None
        self._failing.discard(metric.name)
        return value if isinstance(value, Mapping) else {(): value}

    def _own(self) -> Iterable[prometheus_client.Metric]:
        from prometheus_client.core import CounterMetricFamily

        yield CounterMetricFamily(
            "axoneme_metrics_errors", "metrics that could not be read", value=float(self.errors)
        )


def _process_collector() -> prometheus_client.ProcessCollector:
    from prometheus_client import ProcessCollector

    return ProcessCollector(namespace="cilium", registry=None)


def family(metric: Metric, values: Values, limit: int) -> prometheus_client.Metric:
    """One metric with its series; those beyond `limit` are summed up in one whose labels are all `overflow`."""
    from prometheus_client import Metric as Family

    name = metric.name.removesuffix("_total") if metric.type is MetricType.COUNTER else metric.name
    result = Family(name, metric.help or metric.name, metric.type.value)
    suffix = "_total" if metric.type is MetricType.COUNTER else ""
    for labels, value in bounded(values, limit, len(metric.labels)).items():
        named = dict(zip(metric.labels, labels, strict=True))
        if isinstance(value, Distribution):
            _add_histogram(result, named, value)
        else:
            result.add_sample(name + suffix, named, value)
    return result


def _add_histogram(result: prometheus_client.Metric, labels: dict[str, str], value: Distribution) -> None:
    for bound, count in value.buckets():
        result.add_sample(f"{result.name}_bucket", labels | {"le": bound}, count)
    result.add_sample(f"{result.name}_count", labels, value.count)
    result.add_sample(f"{result.name}_sum", labels, value.sum)


def bounded(values: Values, limit: int, labels: int) -> Values:
    """At most `limit` series and one more for the rest."""
    if len(values) <= limit or not labels:
        return values
    ordered = sorted(values.items())
    rest = ordered[limit:]
    kept = dict(ordered[:limit])
    kept[("overflow",) * labels] = _sum([value for _, value in rest])
    return kept


def _sum(values: list[Value]) -> Value:
    distributions = [value for value in values if isinstance(value, Distribution)]
    if not distributions:
        return sum(value for value in values if not isinstance(value, Distribution))
    counts = zip(*(each.counts for each in distributions), strict=True)
    return Distribution(
        bounds=distributions[0].bounds,
        counts=tuple(sum(column) for column in counts),
        sum=sum(each.sum for each in distributions),
    )
