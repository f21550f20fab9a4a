"""Hubble: every flow, with the tools that people already use. See README.md in this folder."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.core.hooks import hookimpl
from axoneme.core.plugin import PluginContext
from axoneme.core.records import ConfigSection, HealthCheck, PluginInfo, Service, TableSpec


@hookimpl
def axoneme_info() -> PluginInfo:
    return PluginInfo(name="hubble", summary="sees every flow, over Cilium's Hubble API")


@hookimpl
def axoneme_config() -> ConfigSection:
    from axoneme.plugins.hubble.config import HubbleConfig

    return ConfigSection(schema=HubbleConfig)


@hookimpl
def axoneme_services(context: PluginContext) -> Iterable[Service]:
    from axoneme.plugins.hubble import observer
    from axoneme.plugins.hubble.server import service

    return [
        Service(name="observer", run=observer.of(context).run),
        Service(name="server", run=service.of(context).run),
    ]


@hookimpl
def axoneme_tables() -> Iterable[TableSpec]:
    from axoneme.plugins.hubble import peers

    return [peers.PEERS]


@hookimpl
def axoneme_health(context: PluginContext) -> Iterable[HealthCheck]:
    from axoneme.plugins.hubble.server import service

    return [HealthCheck(name="certificates", check=service.of(context).health)]
