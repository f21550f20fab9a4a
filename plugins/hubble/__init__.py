"""Hubble: every flow, with the tools that people already use. See README.md in this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from axoneme.core.hooks import hookimpl
from axoneme.core.plugin import PluginContext
from axoneme.core.records import (
    ApiMethod,
    Command,
    ConfigSection,
    HealthCheck,
    PluginInfo,
    Service,
    TableSpec,
    imported,
)

if TYPE_CHECKING:
    import click


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
    from axoneme.plugins.hubble.export import service as export
    from axoneme.plugins.hubble.server import service

    services = [
        Service(name="observer", run=observer.of(context).run),
        Service(name="server", run=service.of(context).run),
        *export.services(context),
    ]
    from axoneme.plugins.hubble.ui import service as ui

    services.append(Service(name="ui", run=ui.of(context).run))
    if context.config.metrics.enabled:
        from axoneme.plugins.hubble.metrics import service as metrics

        measured = metrics.of(context)
        services += [
            Service(name="metrics", run=measured.count),
            Service(name="metrics-pods", run=measured.forget),
            Service(name="metrics-http", run=measured.server.run),
        ]
        if context.config.metrics.dynamic is not None:
            services.append(Service(name="metrics-file", run=measured.follow))
    return services


@hookimpl
def axoneme_tables() -> Iterable[TableSpec]:
    from axoneme.plugins.hubble import peers

    return [peers.PEERS]


@hookimpl
def axoneme_api(context: PluginContext) -> Iterable[ApiMethod]:
    from axoneme.plugins.hubble.ui import service as ui

    return [
        ApiMethod(
            name="hubble.ui", call=ui.of(context).open, summary="where the page is; starts it if need be"
        )
    ]


@hookimpl
def axoneme_health(context: PluginContext) -> Iterable[HealthCheck]:
    from axoneme.plugins.hubble.server import service

    checks = [HealthCheck(name="certificates", check=service.of(context).health)]
    if context.config.metrics.dynamic is not None:
        from axoneme.plugins.hubble.metrics import service as metrics

        checks.append(HealthCheck(name="metrics", check=metrics.of(context).health))
    return checks


@hookimpl
def axoneme_commands() -> Iterable[Command]:
    def command(path: str) -> Callable[[], click.Command]:
        return imported(f"axoneme.plugins.hubble.{path}")

    group = ("hubble",)
    return [
        Command(name="ui", load=command("ui.cli:ui"), summary="Show who talks to whom, in a browser."),
        Command(
            name="status",
            group=group,
            load=command("cli.commands:status"),
            summary="Show how a Hubble server is.",
        ),
        Command(
            name="relay",
            group=group,
            load=command("relay.cli:relay"),
            summary="Serve the flows of many nodes.",
        ),
        Command(name="top", group=group, load=command("cli.top:top"), summary="Watch who talks most."),
        Command(name="observe", group=group, load=command("cli.observe:observe"), summary="Show flows."),
        Command(
            name="nodes",
            group=(*group, "list"),
            load=command("cli.commands:list_nodes"),
            summary="List nodes.",
        ),
        Command(
            name="namespaces",
            group=(*group, "list"),
            load=command("cli.commands:list_namespaces"),
            summary="List namespaces.",
        ),
        Command(
            name="peers",
            group=(*group, "watch"),
            load=command("cli.commands:watch_peers"),
            summary="Watch nodes come and go.",
        ),
    ]
