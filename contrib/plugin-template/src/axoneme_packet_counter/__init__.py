"""Counts packets and bytes per workload. The hook implementations, and nothing else: they say what the plugin brings.

The agent imports this module when the plugin is enabled, and so does every `axoneme` command, for `axoneme_commands`.
Hence the imports inside the hooks: only what is asked for is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from axoneme.core.hooks import hookimpl
from axoneme.core.plugin import PluginContext
from axoneme.core.records import (
    ApiMethod,
    Command,
    ConfigSection,
    HealthCheck,
    Metric,
    MetricType,
    Phase,
    PluginInfo,
    Runs,
    Service,
    Stage,
)

if TYPE_CHECKING:
    import click

    from axoneme.core.datapath.maps import MapSpec


@hookimpl
def axoneme_info() -> PluginInfo:
    return PluginInfo(name="packet-counter", summary="packets and bytes per workload and direction")


@hookimpl
def axoneme_config() -> ConfigSection:
    from axoneme_packet_counter.config import PacketCounterConfig

    return ConfigSection(schema=PacketCounterConfig)


@hookimpl
def axoneme_maps(context: PluginContext) -> Iterable[MapSpec]:
    from axoneme_packet_counter.counts import counts_map

    return [counts_map(context.config.workloads)]


@hookimpl
def axoneme_stages(context: PluginContext) -> Iterable[Stage]:
    return [
        Stage(
            name="count",
            source=Path(__file__).parent / "stages" / "count.c",
            attach=("from_workload", "to_workload", "from_network"),
            phase=Phase.OBSERVE,
            runs=Runs.EVERY,
            maps=("packet_counts",),
        )
    ]


@hookimpl
def axoneme_services(context: PluginContext) -> Iterable[Service]:
    from axoneme_packet_counter import services

    yield Service(name="forget", run=lambda ready: services.forget(context, ready))
    if context.config.log_interval:
        yield Service(name="log", run=lambda ready: services.log_busiest(context, ready))


@hookimpl
def axoneme_api(context: PluginContext) -> Iterable[ApiMethod]:
    from axoneme_packet_counter.counts import top

    def call(count: int | None = None) -> list[dict[str, object]]:
        return top(context, count)

    return [ApiMethod(name="packet-counter.top", call=call, summary="the workloads with the most bytes")]


@hookimpl
def axoneme_commands() -> Iterable[Command]:
    def load() -> click.Command:
        from axoneme_packet_counter.cli import top

        return top

    summary = "Show the workloads with the most bytes."
    return [Command(name="top", group=("packet-counter",), load=load, summary=summary)]


@hookimpl
def axoneme_health(context: PluginContext) -> Iterable[HealthCheck]:
    from axoneme_packet_counter.counts import health

    return [HealthCheck(name="room", check=lambda: health(context))]


@hookimpl
def axoneme_metrics(context: PluginContext) -> Iterable[Metric]:
    from axoneme_packet_counter.counts import packets

    return [
        Metric(
            name="axoneme_packet_counter_packets_total",
            type=MetricType.COUNTER,
            help="packets of the workloads of this node",
            read=lambda: packets(context),
            labels=("workload", "direction"),
        )
    ]
