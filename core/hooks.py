"""The hook specifications: the whole contract between the core and its plugins.

Hook implementations are synchronous, have no side effects, and yield (or return a list of) frozen records from
`axoneme.core.records`. The order in which plugins are asked carries no meaning: what needs an order says so in its record.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from axoneme.core.datapath.maps import MapSpec
    from axoneme.core.plugin import PluginContext
    from axoneme.core.records import (
        ApiMethod,
        Command,
        ConfigSection,
        DropReason,
        HealthCheck,
        Metric,
        PluginInfo,
        ResourceKind,
        Service,
        Stage,
        TableSpec,
    )

PROJECT = "axoneme"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec(firstresult=True)
def axoneme_info() -> PluginInfo:
    """Who this plugin is. The one hook that every plugin must implement."""
    raise NotImplementedError


@hookspec(firstresult=True)
def axoneme_config() -> ConfigSection:
    """The class of the plugin's configuration section."""
    raise NotImplementedError


@hookspec
def axoneme_tables() -> Iterable[TableSpec]:
    """The tables that the plugin brings."""
    raise NotImplementedError


@hookspec
def axoneme_resources() -> Iterable[ResourceKind]:
    """The kinds of resource that the plugin understands."""
    raise NotImplementedError


@hookspec
def axoneme_maps(context: PluginContext) -> Iterable[MapSpec]:
    """The eBPF maps that the plugin owns. Only `name`, `config` and `settings` of the context are there yet."""
    raise NotImplementedError


@hookspec
def axoneme_stages(context: PluginContext) -> Iterable[Stage]:
    """The plugin's code in the kernel. Only `name`, `config` and `settings` of the context are there yet."""
    raise NotImplementedError


@hookspec
def axoneme_drop_reasons() -> Iterable[DropReason]:
    """The reasons for which the plugin's stages drop packets."""
    raise NotImplementedError


@hookspec
def axoneme_services(context: PluginContext) -> Iterable[Service]:
    """What runs while the plugin is enabled."""
    raise NotImplementedError


@hookspec
def axoneme_api(context: PluginContext) -> Iterable[ApiMethod]:
    """Methods that the plugin adds to the agent's local API."""
    raise NotImplementedError


@hookspec
def axoneme_commands() -> Iterable[Command]:
    """Commands that the plugin adds to the `axoneme` program. They run without an agent in the same process."""
    raise NotImplementedError


@hookspec
def axoneme_health(context: PluginContext) -> Iterable[HealthCheck]:
    """Checks for `axoneme status`, beyond the state of the plugin's services, which the core knows."""
    raise NotImplementedError


@hookspec
def axoneme_metrics(context: PluginContext) -> Iterable[Metric]:
    """Numbers that the agent shows."""
    raise NotImplementedError
