"""The plugin's metrics, under Cilium's names where it has the same number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from axoneme.core.datapath.proxies import Proxy
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Metric, MetricType
from axoneme.plugins.policy import reconciler
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.model import Direction


def metrics(context: PluginContext) -> Iterable[Metric]:
    source = reconciler.of(context)
    return [
        _gauge("cilium_policy", "policies loaded", lambda: len(source.engine.policies)),
        _gauge(
            "cilium_policy_max_revision", "the revision by which connections are decided",
            lambda: int(context.map("runtime").lookup(0)["revision"]),
        ),
        Metric(
            name="cilium_policy_endpoint_enforcement_status",
            type=MetricType.GAUGE,
            help="workloads by the directions in which policy is enforced",
            read=lambda: enforcement(source.engine),
            labels=("enforcement",),
        ),
        Metric(
            name="axoneme_policy_entries",
            type=MetricType.GAUGE,
            help="entries of the decision tables",
            read=lambda: entries(source.engine),
            labels=("table",),
        ),
        Metric(
            name="axoneme_policy_no_room",
            type=MetricType.GAUGE,
            help="what the kernel's tables had no room for: workloads that are closed, and peers denied what they are allowed",
            read=lambda: {
                ("workloads",): len(source.shortfall.closed),
                ("peers",): sum(source.shortfall.narrowed.values()),
            },
            labels=("what",),
        ),
        Metric(
            name="cilium_proxy_redirects",
            type=MetricType.GAUGE,
            help="decisions that send traffic through a proxy",
            read=lambda: redirects(source.engine),
            labels=("protocol_l7",),
        ),
        Metric(
            name="cilium_policy_incremental_update_duration",
            type=MetricType.HISTOGRAM,
            help="from a change to the decision tables being written, in seconds",
            read=source.durations.read,
            labels=("scope",),
        ),
        _gauge("axoneme_policy_unresolvable", "workloads with rules that contradict each other", lambda: len(source.engine.errors())),
        _gauge("axoneme_policy_update_seconds", "duration of the last update", lambda: source.last_duration),
        _gauge("axoneme_policy_last_write_timestamp_seconds", "when the decision tables were written last", lambda: source.last_write),
        Metric(
            name="axoneme_policy_audited_total",
            type=MetricType.COUNTER,
            help="connections that pass only because a policy is rehearsed",
            read=lambda: audited(context),
            labels=("direction",),
        ),
        Metric(
            name="axoneme_policy_updates_total",
            type=MetricType.COUNTER,
            help="updates that changed the decision tables",
            read=lambda: source.updates,
        ),
        Metric(
            name="axoneme_policy_writes_total",
            type=MetricType.COUNTER,
            help="entries written to or removed from the decision tables",
            read=lambda: source.writes,
        ),
    ]  # fmt: skip


def audited(context: PluginContext) -> Mapping[tuple[str, ...], float]:
    """By the direction in which their first packet was seen."""
    from axoneme.core.datapath.reasons import AUDITED

    counters = context.map("counters")
    found: dict[tuple[str, ...], float] = {}
    for number, direction in enumerate(("ingress", "egress")):
        value = counters.lookup(2 * AUDITED + number)
        found[direction,] = float(value["packets"].sum()) if value is not None else 0.0
    return found


def _gauge(name: str, text: str, read: Callable[[], float]) -> Metric:
    return Metric(name=name, type=MetricType.GAUGE, help=text, read=read)


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
