"""Hubble: every flow, with the tools that people already use. See README.md in this folder."""

from __future__ import annotations

from collections.abc import Iterable

from axoneme.core.hooks import hookimpl
from axoneme.core.plugin import PluginContext
from axoneme.core.records import ConfigSection, PluginInfo, Service


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

    return [Service(name="observer", run=observer.of(context).run)]
