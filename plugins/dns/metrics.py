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
            name="cilium_policy_l7_total",
            type=MetricType.COUNTER,
            help="questions by what became of them",
            read=lambda: {(rule, "fqdn"): float(count) for rule, count in (of.proxy.counts if of.proxy else {}).items()},
            labels=("rule", "proxy_type"),
        ),
        _gauge("cilium_fqdn_active_names", "names that are known", lambda: len(of.cache.names)),
        _gauge("cilium_fqdn_active_ips", "addresses of names that are known", lambda: len(of.cache)),
        _gauge("cilium_fqdn_selectors", "names and patterns that policies select", lambda: len(context.state.table(FQDN_SELECTORS.name))),
        _counter("cilium_fqdn_gc_deletions_total", "addresses that were forgotten", lambda: of.learner.forgotten if of.learner else 0),
        Metric(
            name="cilium_proxy_upstream_reply_seconds",
            type=MetricType.HISTOGRAM,
            help="what a question took: upstreamTime until the server answered, totalTime until the client has it",
            read=lambda: of.proxy.seconds.read() if of.proxy else {},
            labels=("error", "protocol_l7", "scope"),
        ),
        _counter(
            "cilium_proxy_datapath_update_timeout_total",
            "answers that went out before the kernel knew their addresses",
            lambda: of.learner.late if of.learner else 0,
        ),
    ]  # fmt: skip


def _gauge(name: str, text: str, read: Callable[[], float]) -> Metric:
    return Metric(name=name, type=MetricType.GAUGE, help=text, read=read)


def _counter(name: str, text: str, read: Callable[[], float]) -> Metric:
    return Metric(name=name, type=MetricType.COUNTER, help=text, read=read)
