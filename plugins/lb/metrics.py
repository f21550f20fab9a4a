"""The plugin's metrics, under Cilium's names where it has the same number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from axoneme.core.plugin import PluginContext
from axoneme.core.records import Metric
from axoneme.plugins.lb import control


def metrics(context: PluginContext) -> Iterable[Metric]:
    source = control.of(context)
    return [
        Metric.gauge("axoneme_services", "services, by type", lambda: _types(source), "type"),
        Metric.gauge("axoneme_lb_entries", "entries in the kernel's maps", lambda: _entries(source), "map"),
        Metric.gauge(
            "axoneme_lb_limits", "the most entries that they can hold", lambda: _limits(source), "map"
        ),
        Metric.gauge(
            "axoneme_lb_refused_services",
            "services that do not fit, by the limit",
            lambda: _refused(source),
            "limit",
        ),
        Metric.gauge(
            "axoneme_lb_update_seconds", "duration of the last update", lambda: source.last_duration
        ),
        Metric.counter("axoneme_lb_updates_total", "updates that changed the maps", lambda: source.updates),
        Metric.counter("axoneme_lb_writes_total", "entries written or removed", lambda: source.writes),
        Metric.counter(
            "axoneme_lb_closed_sockets_total",
            "connections to backends that were gone, closed",
            lambda: source.closer.closed + source.mover.closed,
        ),
        Metric.counter(
            "axoneme_lb_left_sockets_total",
            "connections to backends that were gone, not known to be through a service",
            lambda: source.closer.left,
        ),
        Metric.counter(
            "axoneme_lb_moved_sockets_total",
            "UDP sockets whose backend was gone, connected again",
            lambda: source.mover.moved,
        ),
    ]


def _types(source: control.Control) -> Mapping[tuple[str, ...], float]:
    counts = Counter(made.service.type.value for made in source.engine.resolved.values())
    return {(name,): count for name, count in counts.items()}


def _entries(source: control.Control) -> Mapping[tuple[str, ...], float]:
    image = source.image
    return {
        ("services4",): image.size(4),
        ("services6",): image.size(6),
        ("backends",): len(image.backends),
        ("slots",): image.stretches.room.used,
    }


def _limits(source: control.Control) -> Mapping[tuple[str, ...], float]:
    sizes = source.image.sizes
    return {
        ("services4",): sizes.services,
        ("services6",): sizes.services,
        ("backends",): sizes.backends - 1,
        ("slots",): sizes.slots,
    }


def _refused(source: control.Control) -> Mapping[tuple[str, ...], float]:
    counts = Counter(error.limit for error in source.engine.refused.values())
    return {(name,): count for name, count in counts.items()}
