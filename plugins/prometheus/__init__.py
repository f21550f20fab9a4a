"""Prometheus: the numbers of the agent and all its plugins, on a port of their own. See README.md in this folder."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.core.hooks import hookimpl
from axoneme.core.plugin import PluginContext
from axoneme.core.records import ConfigSection, PluginInfo, Service


@hookimpl
def axoneme_info() -> PluginInfo:
    return PluginInfo(name="prometheus", summary="serves the agent's metrics under Cilium's names")


@hookimpl
def axoneme_config() -> ConfigSection:
    from axoneme.plugins.prometheus.config import PrometheusConfig

    return ConfigSection(schema=PrometheusConfig)


@hookimpl
def axoneme_services(context: PluginContext) -> Iterable[Service]:
    from axoneme.plugins.prometheus import exposition

    return [Service(name="metrics", run=exposition.server(context).run)]
