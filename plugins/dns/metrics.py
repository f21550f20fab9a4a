"""The plugin's metrics, under Cilium's names where it has the same number."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from axoneme.core.plugin import PluginContext
from axoneme.core.records import Metric, MetricType
from axoneme.core.workloads.names import FQDN_SELECTORS
from axoneme.plugins.dns import service


def metrics(context: PluginContext) -> Iterable[Metric]:
    of = service.of(context)
    return [
        Metric(
            name="policy_l7_total",
            type=MetricType.COUNTER,
            help="questions by what became of them",
            read=lambda: {(rule, "fqdn"): float(count) for rule, count in (of.proxy.counts if of.proxy else {}).items()},
            labels=("rule", "proxy_type"),
        ),
        _gauge("fqdn_active_names", "names that are known", lambda: len(of.cache.names)),
        _gauge("fqdn_active_ips", "addresses of names that are known", lambda: len(of.cache)),
        _gauge("fqdn_selectors", "names and patterns that policies select", lambda: len(context.state.table(FQDN_SELECTORS.name))),
        _counter("fqdn_gc_deletions_total", "addresses that were forgotten", lambda: of.learner.forgotten if of.learner else 0),
        _counter(
            "proxy_datapath_update_timeout_total",
            "answers that went out before the kernel knew their addresses",
            lambda: of.learner.late if of.learner else 0,
        ),
    ]  # fmt: skip


def _gauge(name: str, text: str, read: Callable[[], float]) -> Metric:
    return Metric(name=name, type=MetricType.GAUGE, help=text, read=read)


def _counter(name: str, text: str, read: Callable[[], float]) -> Metric:
    return Metric(name=name, type=MetricType.COUNTER, help=text, read=read)
