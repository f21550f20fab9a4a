"""The plugin's metrics, under Cilium's names where it has the same number."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.core.plugin import PluginContext
from axoneme.core.records import Metric
from axoneme.core.workloads.names import FQDN_SELECTORS
from axoneme.plugins.dns import service


def metrics(context: PluginContext) -> Iterable[Metric]:
    of = service.of(context)
    return [
        Metric.counter(
            "cilium_policy_l7_total",
            "questions by what became of them",
            lambda: {
                (rule, "fqdn"): float(count) for rule, count in (of.proxy.counts if of.proxy else {}).items()
            },
            "rule",
            "proxy_type",
        ),
        Metric.gauge("cilium_fqdn_active_names", "names that are known", lambda: len(of.cache.names)),
        Metric.gauge("cilium_fqdn_active_ips", "addresses of names that are known", lambda: len(of.cache)),
        Metric.gauge(
            "cilium_fqdn_selectors",
            "names and patterns that policies select",
            lambda: len(context.state.table(FQDN_SELECTORS.name)),
        ),
        Metric.counter(
            "cilium_fqdn_gc_deletions_total",
            "addresses that were forgotten",
            lambda: of.learner.forgotten if of.learner else 0,
        ),
        Metric.histogram(
            "cilium_proxy_upstream_reply_seconds",
            "what a question took: upstreamTime until the server answered, totalTime until the client has it",
            lambda: of.proxy.seconds.read() if of.proxy else {},
            "error",
            "protocol_l7",
            "scope",
        ),
        Metric.counter(
            "cilium_proxy_datapath_update_timeout_total",
            "answers that went out before the kernel knew their addresses",
            lambda: of.learner.late if of.learner else 0,
        ),
    ]
