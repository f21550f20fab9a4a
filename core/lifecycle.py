"""Generations: what runs under one configuration, and how one of them is made from the one before it.

    assemble     asks the plugins what they bring; starts nothing
    Generation   the assembly with its programs and running services

A plugin that did not change (same code, same section, same core settings) is carried over: its context, its services and
what they know stay as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen, mutable

from axoneme.core import logs
from axoneme.core.config import Config
from axoneme.core.context import Context, Runtime
from axoneme.core.contributions import CORE, Contributions
from axoneme.core.discovery import Found
from axoneme.core.errors import AxonemeError, ConfigError
from axoneme.core.manager import PluginManager
from axoneme.core.scope import Scope
from axoneme.core.structure import plain
from axoneme.core.supervisor import Supervised, Supervisor

if TYPE_CHECKING:
    from axoneme.core.datapath.build import Build

#: What the core brings, given the context that stands for it.
CoreContributions = Callable[[Context], Contributions]

_log = logs.get(__name__)

_NAMED: Final = re.compile(r"\b(?:plugin|stage) ([a-z][a-z0-9_-]{1,30})\b")


@frozen(kw_only=True)
class Options:
    """What an agent was started with, besides its configuration."""

    extra: Sequence[Any] = ()
    no_plugins: bool = False
    required: Collection[str] = ()
    found: Mapping[str, tuple[Found, ...]] | None = None


@frozen(kw_only=True, eq=False)
class Assembly:
    """Everything that the plugins brought, nothing of it started.

    :param contexts: by plugin; the core's own under `core`.
    :param sections: the plugins' structured configuration sections.
    :param fingerprints: equal for a plugin in two assemblies: it did not change.
    """

    config: Config
    manager: PluginManager
    contexts: Mapping[str, Context]
    sections: Mapping[str, Any]
    fingerprints: Mapping[str, str]
    contributions: Contributions

    def without_failed(self) -> Assembly:
        """The same without what came from plugins that failed since. Raises `PluginError` for a required one."""
        from attrs import evolve

        self.manager.check_required()
        return evolve(self, contributions=self.contributions.only(self.manager.enabled))


def assemble(
    config: Config,
    options: Options,
    core: CoreContributions,
    runtime: Runtime | None,
    previous: Generation | None = None,
) -> Assembly:
    """Loads the enabled plugins and collects what they bring.

    :param runtime: without one (for commands that only look) the hooks that need a running agent are not called.
    :raises ConfigErrors: unknown plugins, wrong sections.
    :raises PluginError: conflicts, and required plugins that failed.
    """
    enabled = config.settings.plugins.enabled
    required = {*options.required, *config.settings.plugins.required}
    manager = PluginManager(
        (), found=options.found, extra=options.extra, no_plugins=options.no_plugins, required=required
    )
    config.check_sections(manager.found)
    manager.load(enabled)
    sections = _sections(config, manager)
    fingerprints = _fingerprints(config, manager, sections)
    contexts = _contexts(config, sections, fingerprints, runtime, previous)
    contributions = core(contexts[CORE]).plus(_declared(manager, contexts))
    if runtime is not None:
        contributions = contributions.plus(_provided(manager, contexts))
    assembly = Assembly(
        config=config,
        manager=manager,
        contexts=contexts,
        sections=sections,
        fingerprints=fingerprints,
        contributions=contributions,
    ).without_failed()
    assembly.contributions.check()
    return assembly


def _sections(config: Config, manager: PluginManager) -> dict[str, Any]:
    """The plugins' sections. One that is wrong is the user's mistake, not the plugin's failure, and stops everything."""
    schemas = manager.config_schemas()
    for name in manager.enabled:
        if name not in schemas and config.settings.plugins.sections.get(name):
            raise ConfigError(f"the plugin {name} has no settings", where=config.where(("plugins", name)))
    return {name: config.section(name, schema) for name, schema in schemas.items()}


def _fingerprints(config: Config, manager: PluginManager, sections: Mapping[str, Any]) -> dict[str, str]:
    common = json.dumps(shared_settings(config), sort_keys=True)
    # The core's own services read the settings anew each time and are never started twice.
    result = {CORE: CORE}
    for name in manager.enabled:
        own = json.dumps(plain(sections.get(name)), sort_keys=True)
        result[name] = _digest(common, own, str(id(manager.plugin(name))))
    return result


def shared_settings(config: Config) -> dict[str, Any]:
    """The settings that concern every plugin."""
    settings: dict[str, Any] = plain(config.settings)
    del settings["plugins"]
    for name in ("log", "ready_timeout", "watch_config"):
        del settings["agent"][name]
    return settings


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _contexts(
    config: Config,
    sections: Mapping[str, Any],
    fingerprints: Mapping[str, str],
    runtime: Runtime | None,
    previous: Generation | None,
) -> dict[str, Context]:
    """A context for each plugin: the one that it has already if it did not change."""
    contexts = {}
    for name, fingerprint in fingerprints.items():
        if previous is not None and previous.runs(name, fingerprint):
            contexts[name] = previous.assembly.contexts[name]
            continue
        contexts[name] = Context(name, sections.get(name), config.settings)
        if runtime is not None:
            contexts[name].bind(runtime, None)
    return contexts


def _declared(manager: PluginManager, contexts: Mapping[str, Context]) -> Contributions:
    return Contributions(
        tables=tuple(manager.tables()),
        resources=tuple(manager.resources()),
        maps=tuple(manager.maps(contexts.__getitem__)),
        stages=tuple(manager.stages(contexts.__getitem__)),
        drop_reasons=tuple(manager.drop_reasons()),
    )


def _provided(manager: PluginManager, contexts: Mapping[str, Context]) -> Contributions:
    return Contributions(
        services=tuple(manager.services(contexts.__getitem__)),
        api=tuple(manager.api(contexts.__getitem__)),
        health=tuple(manager.health(contexts.__getitem__)),
        metrics=tuple(manager.metrics(contexts.__getitem__)),
    )


@mutable(eq=False)
class Instance:
    """A plugin that runs."""

    name: str
    fingerprint: str
    scope: Scope
    services: list[Supervised] = field(factory=list)


@mutable(eq=False)
class Generation:
    """What runs under one configuration."""

    number: int
    assembly: Assembly
    build: Build
    instances: dict[str, Instance] = field(factory=dict)

    @property
    def services(self) -> list[Supervised]:
        return [service for instance in self.instances.values() for service in instance.services]

    def runs(self, name: str, fingerprint: str) -> bool:
        instance = self.instances.get(name)
        return instance is not None and instance.fingerprint == fingerprint

    def start(self, names: Iterable[str], runtime: Runtime, supervisor: Supervisor) -> list[Supervised]:
        """Starts the services of these plugins, with this generation's maps."""
        started = []
        for name in names:
            self.assembly.contexts[name].bind(runtime, self.build)
            instance = Instance(name, self.assembly.fingerprints[name], Scope(name))
            self.instances[name] = instance
            for provided in self.assembly.contributions.services:
                if provided.plugin == name:
                    instance.services.append(supervisor.start(name, provided.record, instance.scope))
            started += instance.services
        return started

    def carry_over(self, previous: Generation) -> list[str]:
        """Takes over the plugins that did not change; returns the names of the others."""
        wanted = [CORE, *self.assembly.manager.enabled]
        for name in wanted:
            if previous.runs(name, self.assembly.fingerprints[name]):
                self.instances[name] = previous.instances[name]
        return [name for name in wanted if name not in self.instances]

    def alone(self, names: Iterable[str]) -> list[Supervised]:
        """The services of these plugins, as far as they run, that must not run beside their successors."""
        instances = [self.instances[name] for name in names if name in self.instances]
        return [each for instance in instances for each in instance.services if each.service.alone]

    async def close(self, names: Iterable[str] | None = None) -> list[Exception]:
        """Closes these plugins, or all, the last started first; returns what went wrong."""
        errors: list[Exception] = []
        chosen = set(self.instances if names is None else names)
        for name in [name for name in reversed(self.instances) if name in chosen]:
            try:
                await self.instances.pop(name).scope.close()
            except ExceptionGroup as group:
                errors.append(group)
        return errors


def blamed(error: AxonemeError, plugins: Collection[str]) -> str | None:
    """The plugin that an error of the datapath is about, if it says so: by its file, or by its message."""
    named = getattr(error, "plugin", None)
    if named in plugins:
        return str(named)
    if error.where is not None and (owner := error.where.file.partition("/")[0]) in plugins:
        return owner
    found = _NAMED.search(error.message)
    return found[1] if found and found[1] in plugins else None
