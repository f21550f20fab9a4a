"""Load balancing: services translated at the socket, at the packet, and at the edge. See README.md in this folder."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from axoneme.core.hooks import hookimpl
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
    imported,
)

if TYPE_CHECKING:
    from axoneme.core.datapath.maps import MapSpec


@hookimpl
def axoneme_info() -> PluginInfo:
    return PluginInfo(name="lb", summary="services, translated at the socket, the packet and the edge")


@hookimpl
def axoneme_config() -> ConfigSection:
    from axoneme.plugins.lb.config import LbConfig

    return ConfigSection(schema=LbConfig)


@hookimpl
def axoneme_tables() -> Iterable[TableSpec]:
    from axoneme.plugins.lb.tables import TABLES

    return TABLES


@hookimpl
def axoneme_resources() -> Iterable[ResourceKind]:
    from axoneme.plugins.lb.kinds import resource_kinds

    return resource_kinds()


@hookimpl
def axoneme_services(context: PluginContext) -> Iterable[Service]:
    from axoneme.plugins.lb import control, leaving

    made = control.of(context)
    return [
        Service(name="addresses", run=leaving.of(context).run, alone=True),
        Service(name="services", run=made.run, alone=True),
        Service(name="sockets", run=made.closer.run),
        Service(name="datagrams", run=made.mover.run),
        Service(name="health-checks", run=made.checks.run),
        Service(name="loads", run=made.loads.run),
        Service(name="namespaces", run=made.follow_namespaces),
    ]


@hookimpl
def axoneme_api(context: PluginContext) -> Iterable[ApiMethod]:
    from axoneme.plugins.lb import api

    return api.methods(context)


@hookimpl
def axoneme_metrics(context: PluginContext) -> Iterable[Metric]:
    from axoneme.plugins.lb import metrics

    return metrics.metrics(context)


#: Commands: group, name, file and attribute in `cli`, summary.
_COMMANDS = (
    (("service",), "list", "services:service_list", "List services by frontend, with their backends."),
    (("service",), "get", "services:service_get", "Show one service."),
    (
        ("service",),
        "explain",
        "services:service_explain",
        "Say which backends get connections, and why the others do not.",
    ),
    (("service",), "add", "local:service_add", "Add a service without a file."),
    (("service",), "delete", "local:service_delete", "Delete services that were added so."),
    (("bpf", "lb"), "list", "maps:lb_list", "List what the kernel's maps of services hold."),
    (("bpf", "lb", "maglev"), "list", "maps:maglev_list", "List consistent hashing tables."),
    (("bpf", "lb", "maglev"), "get", "maps:maglev_get", "Show one of them."),
    (("lb", "pool"), "list", "pools:pool_list", "List pools of addresses for services."),
    (("lb", "maglev"), "list", "maps:maglev_list", "List consistent hashing tables."),
    (("lb", "maglev"), "get", "maps:maglev_get", "Show one of them."),
)


@hookimpl
def axoneme_commands() -> Iterable[Command]:
    return [
        Command(name=name, group=group, load=imported(f"axoneme.plugins.lb.cli.{path}"), summary=summary)
        for group, name, path, summary in _COMMANDS
    ]


@hookimpl
def axoneme_health(context: PluginContext) -> Iterable[HealthCheck]:
    from axoneme.plugins.lb import control, leaving

    return [
        HealthCheck(name="services", check=control.of(context).health),
        HealthCheck(name="masquerading", check=leaving.of(context).health),
    ]


@hookimpl
def axoneme_maps(context: PluginContext) -> Iterable[MapSpec]:
    from axoneme.plugins.lb.maps import specs

    return specs(context.config.sizes)


@hookimpl
def axoneme_stages(context: PluginContext) -> Iterable[Stage]:
    from axoneme.plugins.lb import edge, programs

    return [*programs.stages(context.config), *edge.stages(context.config)]


@hookimpl
def axoneme_drop_reasons() -> Iterable[DropReason]:
    return [
        DropReason(number=158, name="SERVICE_BACKEND_NOT_FOUND", text="Service backend not found"),
        DropReason(number=177, name="DENIED_BY_LB_SRC_RANGE_CHECK", text="Denied by LB src range check"),
    ]
