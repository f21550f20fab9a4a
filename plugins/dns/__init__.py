"""DNS: workloads' questions pass a proxy that allows names and learns addresses. See README.md in this folder."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.core.hooks import hookimpl
from axoneme.core.plugin import PluginContext
from axoneme.core.records import (
    ApiMethod,
    Command,
    ConfigSection,
    HealthCheck,
    Metric,
    PluginInfo,
    Service,
    Stage,
    imported,
)


@hookimpl
def axoneme_info() -> PluginInfo:
    return PluginInfo(name="dns", summary="which names workloads may ask for, and the addresses of toFQDNs")


@hookimpl
def axoneme_config() -> ConfigSection:
    from axoneme.plugins.dns.config import DnsConfig

    return ConfigSection(schema=DnsConfig)


@hookimpl
def axoneme_stages(context: PluginContext) -> Iterable[Stage]:
    from axoneme.core.datapath.proxies import Proxy, proxy_stages

    return proxy_stages(Proxy.DNS)


@hookimpl
def axoneme_services(context: PluginContext) -> Iterable[Service]:
    from axoneme.plugins.dns import service

    return [Service(name="dns", run=service.of(context).run, alone=True)]


@hookimpl
def axoneme_api(context: PluginContext) -> Iterable[ApiMethod]:
    from axoneme.plugins.dns import api

    return api.methods(context)


@hookimpl
def axoneme_commands() -> Iterable[Command]:
    return [
        Command(
            name="list",
            group=("dns",),
            load=imported("axoneme.plugins.dns.cli:names"),
            summary="List the names that workloads asked for.",
        ),
        Command(
            name="lookups",
            group=("dns",),
            load=imported("axoneme.plugins.dns.cli:lookups"),
            summary="Show the last questions, and what became of them.",
        ),
    ]


@hookimpl
def axoneme_health(context: PluginContext) -> Iterable[HealthCheck]:
    from axoneme.plugins.dns import service

    return [HealthCheck(name="dns", check=service.of(context).health)]


@hookimpl
def axoneme_metrics(context: PluginContext) -> Iterable[Metric]:
    from axoneme.plugins.dns import metrics

    return metrics.metrics(context)
