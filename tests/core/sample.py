"""Plugins for the tests of the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import attrs

from axoneme.core.datapath.layout import u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.hooks import hookimpl
from axoneme.core.records import (
    ApiMethod,
    ConfigSection,
    Health,
    HealthCheck,
    Level,
    Phase,
    PluginInfo,
    ResourceKind,
    Runs,
    Service,
    Stage,
    TableSpec,
)
from axoneme.core.structure import setting


@attrs.frozen(kw_only=True)
class Settings:
    size: int = setting(8, help="how many", minimum=1)
    stage: str = setting("", help="C to put into the program")
    fail: str = setting("", help="where to fail")


@attrs.frozen
class Row:
    name: str


class Sample:
    """A plugin with a bit of everything, which notes what happens to it."""

    def __init__(self, name: str = "sample", *, required: bool = False, alone: bool = False) -> None:
        self.name = name
        self.required = required
        self.alone = alone
        self.events: list[str] = []
        self.contexts: list[Any] = []

    @hookimpl
    def axoneme_info(self) -> PluginInfo:
        return PluginInfo(name=self.name, required=self.required)

    @hookimpl
    def axoneme_config(self) -> ConfigSection:
        return ConfigSection(schema=Settings)

    @hookimpl
    def axoneme_tables(self) -> Iterable[TableSpec]:
        yield TableSpec(name=f"{self.name}_rows", row=Row, key="name")

    @hookimpl
    def axoneme_resources(self) -> Iterable[ResourceKind]:
        kind = f"{self.name.capitalize()}Thing"
        yield ResourceKind(
            api_version="v1", kind=kind, namespaced=False, parse=lambda envelope: envelope.name
        )

    @hookimpl
    def axoneme_maps(self, context: Any) -> Iterable[MapSpec]:
        yield MapSpec(f"{self.name}_map", MapKind.HASH, u32, u32, context.config.size)

    @hookimpl
    def axoneme_stages(self, context: Any) -> Iterable[Stage]:
        if context.config.fail == "stages":
            raise ValueError("no stages today")
        if context.config.stage:
            yield Stage(
                name="count",
                source=context.config.stage,
                attach=("from_workload",),
                phase=Phase.OBSERVE,
                runs=Runs.EVERY,
                maps=(f"{self.name}_map",),
            )

    @hookimpl
    def axoneme_services(self, context: Any) -> Iterable[Service]:
        self.contexts.append(context)

        async def run(ready: Callable[[], None]) -> None:
            self.events.append(f"start {context.config.size}")
            if context.config.fail == "service":
                raise ValueError("no service today")
            context.map(f"{self.name}_map").update(1, context.config.size)
            ready()
            try:
                await asyncio.Event().wait()
            finally:
                self.events.append(f"stop {context.config.size}")

        yield Service(name="work", run=run, alone=self.alone)

    @hookimpl
    def axoneme_api(self, context: Any) -> Iterable[ApiMethod]:
        async def count(limit: int) -> Any:
            for number in range(limit):
                yield {"number": number}

        async def fail() -> None:
            raise RuntimeError("a bug")

        yield ApiMethod(name=f"{self.name}.size", call=lambda: {"size": context.config.size})
        yield ApiMethod(name=f"{self.name}.count", call=count, streams=True)
        yield ApiMethod(name=f"{self.name}.fail", call=fail)

    @hookimpl
    def axoneme_health(self, context: Any) -> Iterable[HealthCheck]:
        def check() -> Health:
            if context.config.fail == "check":
                raise ValueError("no check today")
            return Health(level=Level.OK)

        yield HealthCheck(name="self", check=check)
