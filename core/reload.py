"""One change from a generation to the next, with the way back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from axoneme.core import building, logs
from axoneme.core.config import Config
from axoneme.core.contributions import CORE
from axoneme.core.errors import ConfigError, PluginError
from axoneme.core.lifecycle import Generation
from axoneme.core.scope import Scope
from axoneme.core.supervisor import Supervised, settle

if TYPE_CHECKING:
    from axoneme.core.agent import Agent

_log = logs.get(__name__)


#: Settings that a reload can change; all others of these sections need a new start.
_CHANGEABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "agent": ("log", "ready_timeout", "watch_config"),
    "node": (),
    "pools": (),
    "datapath": ("strategy", "max_verified_instructions", "conntrack_entries", "timeouts"),
    "events": ("store",),
}


class Reload:
    """Builds the new generation beside the old one, swaps the programs, retires the old one.

    Every step notes how it is undone. Until the programs are swapped, everything can be. Services that must be alone
    (`Service.alone`) end before their successors begin; meanwhile the kernel goes on with what it has.
    """

    def __init__(self, agent: Agent, old: Generation, config: Config) -> None:
        self._agent = agent
        self._old = old
        self._config = config
        self._undo = Scope("reload")
        self._held: list[Supervised] = []

    async def run(self) -> Generation:
        """The new generation, in force. Raises whatever refused it, after everything was undone."""
        try:
            new = await self._prepare()
        except BaseException:
            await self._take_back()
            raise
        await self._commit(new)
        return new

    async def _prepare(self) -> Generation:
        agent, runtime = self._agent, self._agent.runtime
        assert runtime is not None, "only a started agent reloads"
        self._undo.push("former services", self._resume)  # the last thing: they find all as it was
        assembly = agent._assemble(self._config)
        _refuse_failures(assembly.manager.failed, self._old.assembly.manager.failed)
        self._undo.push("tables and kinds", lambda: self._restore_state(tables))
        tables: list[str] = []
        tables += agent._declare(assembly)
        await self._resources_read()
        before = runtime.datapath.settings
        self._undo.push("datapath settings", lambda: setattr(runtime.datapath, "settings", before))
        runtime.datapath.settings = self._config.settings.datapath
        assembly, build = await building.build(runtime.datapath, assembly, self._old.assembly.manager.failed)
        self._undo.push("programs", lambda: build.close(keep=self._old.build))
        new = Generation(self._old.number + 1, assembly, build)
        names = new.carry_over(self._old)
        await self._hold(names)
        self._undo.push("services", lambda: self._close(new, names))
        services = new.start(names, runtime, agent._supervisor)
        waiting = await settle(services, self._config.settings.agent.ready_timeout)
        _refuse_failures({s.plugin: s.reason for s in waiting if s.reason}, {})
        runtime.datapath.activate(build)
        return new

    async def _resources_read(self) -> None:
        """Plugins that start now find the objects of their kinds in the tables. A source that is stuck is not waited for."""
        assert self._agent.source is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.settings.agent.ready_timeout):
                await self._agent.source.applied()

    async def _hold(self, names: list[str]) -> None:
        self._held = self._old.alone(names)
        for service in reversed(self._held):
            await service.hold()

    def _resume(self) -> None:
        for service in self._held:
            service.resume()

    async def _commit(self, new: Generation) -> None:
        """From here on there is no way back: what goes wrong is logged."""
        old, runtime = self._old, self._agent.runtime
        assert runtime is not None
        gone = [name for name, instance in old.instances.items() if new.instances.get(name) is not instance]
        for name in new.instances:
            context = new.assembly.contexts[name]
            context.bind(runtime, new.build)
            if name == CORE:
                context.settings = self._config.settings
        for error in await old.close(gone):
            _log.error("retired plugin did not close cleanly", error=error)
        kept = {provided.record.name for provided in new.assembly.contributions.tables}
        for provided in old.assembly.contributions.tables:
            if provided.record.name not in kept:
                runtime.state.remove(provided.record.name)

    def _restore_state(self, tables: list[str]) -> None:
        runtime, source = self._agent.runtime, self._agent.source
        assert runtime is not None
        if source is not None:
            source.use([provided.record for provided in self._old.assembly.contributions.resources])
        for name in tables:
            runtime.state.remove(name)

    async def _close(self, new: Generation, names: list[str]) -> None:
        for error in await new.close(names):
            _log.error("new plugin did not close cleanly", error=error)

    async def _take_back(self) -> None:
        try:
            await self._undo.close()
        except ExceptionGroup as group:
            _log.error("reload not undone completely", error=group)
        await settle(self._held, self._config.settings.agent.ready_timeout)


def _refuse_failures(failed: dict[str, str], known: dict[str, str]) -> None:
    """Raises `PluginError` for plugins that were not failed before."""
    fresh = {name: reason for name, reason in failed.items() if name not in known}
    if fresh:
        listed = "; ".join(f"{name}: {reason}" for name, reason in sorted(fresh.items()))
        raise PluginError(
            f"the new configuration is not used, since a plugin fails: {listed}",
            hint="repair or disable it; the running configuration stays in force",
        )


def check_changeable(old: Config, new: Config) -> None:
    """Raises `ConfigError` when a setting differs that only a new start can change."""
    for section, changeable in _CHANGEABLE.items():
        before, after = getattr(old.settings, section), getattr(new.settings, section)
        for attribute in type(before).__attrs_attrs__:
            name = attribute.name
            if name not in changeable and getattr(before, name) != getattr(after, name):
                raise ConfigError(
                    f"{section}.{name} cannot change while the agent runs",
                    where=new.where((section, name)),
                    hint="restart the agent; traffic flows on meanwhile",
                )
