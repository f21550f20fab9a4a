"""The plugin's metrics, under Cilium's names where it has the same number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from axoneme.core.datapath.proxies import Proxy
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Metric
from axoneme.plugins.policy import reconciler
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.model import Direction


def metrics(context: PluginContext) -> Iterable[Metric]:
    source = reconciler.of(context)
    return [*_state(context, source), *_work(context, source)]


def _state(context: PluginContext, source: reconciler.PolicyReconciler) -> list[Metric]:
    """What is in force."""
    return [
        Metric.gauge("cilium_policy", "policies loaded", lambda: len(source.engine.policies)),
        Metric.gauge(
            "cilium_policy_max_revision",
            "the revision by which connections are decided",
            lambda: int(context.map("runtime").lookup(0)["revision"]),
        ),
        Metric.gauge(
            "cilium_policy_endpoint_enforcement_status",
            "workloads by the directions in which policy is enforced",
            lambda: enforcement(source.engine),
            "enforcement",
        ),
        Metric.gauge(
            "axoneme_policy_entries",
            "entries of the decision tables",
            lambda: entries(source.engine),
            "table",
        ),
        Metric.gauge(
            "axoneme_policy_no_room",
            "what the kernel's tables had no room for: workloads that are closed, and peers denied what they are allowed",
            lambda: {
                ("workloads",): len(source.shortfall.closed),
                ("peers",): sum(source.shortfall.narrowed.values()),
            },
            "what",
        ),
        Metric.gauge(
            "cilium_proxy_redirects",
            "decisions that send traffic through a proxy",
            lambda: redirects(source.engine),
            "protocol_l7",
        ),
        Metric.gauge(
            "axoneme_policy_unresolvable",
            "workloads with rules that contradict each other",
            lambda: len(source.engine.errors()),
        ),
    ]


def _work(context: PluginContext, source: reconciler.PolicyReconciler) -> list[Metric]:
    """What was done, and how long it took."""
    return [
        Metric.histogram(
            "cilium_policy_incremental_update_duration",
            "from a change to the decision tables being written, in seconds",
            source.durations.read,
            "scope",
        ),
        Metric.gauge(
            "axoneme_policy_update_seconds", "duration of the last update", lambda: source.last_duration
        ),
        Metric.gauge(
            "axoneme_policy_last_write_timestamp_seconds",
            "when the decision tables were written last",
            lambda: source.last_write,
        ),
        Metric.counter(
            "axoneme_policy_audited_total",
            "connections that pass only because a policy is rehearsed",
            lambda: audited(context),
            "direction",
        ),
        Metric.counter(
            "axoneme_policy_updates_total",
            "updates that changed the decision tables",
            lambda: source.updates,
        ),
        Metric.counter(
            "axoneme_policy_writes_total",
            "entries written to or removed from the decision tables",
            lambda: source.writes,
        ),
    ]


def audited(context: PluginContext) -> Mapping[tuple[str, ...], float]:
    """By the direction in which their first packet was seen."""
    from axoneme.core.datapath.reasons import AUDITED

    counters = context.map("counters")
    found: dict[tuple[str, ...], float] = {}
    for number, direction in enumerate(("ingress", "egress")):
        value = counters.lookup(2 * AUDITED + number)
        found[direction,] = float(value["packets"].sum()) if value is not None else 0.0
    return found


def enforcement(engine: Engine) -> Mapping[tuple[str, ...], float]:
    """Counts of workloads: none, ingress, egress, both."""
    counts: dict[tuple[str, ...], float] = {
        ("none",): 0.0,
        ("ingress",): 0.0,
        ("egress",): 0.0,
        ("both",): 0.0,
    }
    for entry in engine.tables.subjects.values():
        on = [direction.value for direction in Direction if entry.enforced(direction)]
        counts[("both",) if len(on) == 2 else (on[0],) if on else ("none",)] += 1
    return counts


def redirects(engine: Engine) -> Mapping[tuple[str, ...], float]:
    """Decisions by the proxy that they need."""
    counts = Counter(
        value.proxy_port
        for values in engine.tables.verdicts.values()
        for value in values.values()
        if value.proxy_port
    )
    return {
        (proxy.name.lower(),): float(counts[proxy]) for proxy in Proxy if counts[proxy] or proxy is Proxy.HTTP
    }


def entries(engine: Engine) -> Mapping[tuple[str, ...], float]:
    tables = engine.tables
    return {
        ("subjects",): len(tables.subjects),
        ("peers",): tables.peer_count,
        ("verdicts",): tables.verdict_count,
    }
