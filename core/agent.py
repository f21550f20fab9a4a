"""The agent: everything together, as an object that other programs can embed.

    async with Agent(config) as agent:
        await agent.workloads.add("web", labels={"app": "web"})

Starting goes through stages, each timed. Stopping closes the services and leaves the maps, programs and links pinned:
traffic flows on under the last known state, and the next agent takes it over.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from attrs import evolve

from axoneme.core import building, builtin, logs, memory
from axoneme.core import config as configuration
from axoneme.core.config import Config
from axoneme.core.context import Context, Runtime
from axoneme.core.contributions import CORE
from axoneme.core.discovery import Found
from axoneme.core.errors import AxonemeError, PluginError, Where
from axoneme.core.events.stream import EventStream
from axoneme.core.garbage import collected
from axoneme.core.lifecycle import Assembly, Generation, Options, assemble
from axoneme.core.lock import StateLock
from axoneme.core.platform import Host, Platform
from axoneme.core.scope import Scope, to_the_end
from axoneme.core.settings import AgentSettings, Settings
from axoneme.core.supervisor import Clock, ServiceState, Supervised, Supervisor, settle

if TYPE_CHECKING:
    from axoneme.core.api.server import Server
    from axoneme.core.builtin import CoreParts
    from axoneme.core.datapath.datapath import Datapath
    from axoneme.core.records import ApiMethod, Metric
    from axoneme.core.state.ingest import FolderSource
    from axoneme.core.state.table import State
    from axoneme.core.workloads.workloads import Workloads

_log = logs.get(__name__)

#: What an embedder may hand over as configuration.
Source = Config | Mapping[str, Any] | Path | None


class Agent:
    """A mesh agent in this process and event loop.

    :param config: a `Config`, a mapping like the file's content, a file's path, or None for the default sources.
    :param plugins: plugins besides the configured ones: modules, or objects with hook implementations.
    :param no_plugins: load none, neither configured nor handed over.
    :param platform: what it stands on; None for this machine. `axoneme.core.testing.agent` has one without a kernel.
    :param clock: time for the supervisor, in tests.
    """

    def __init__(
        self,
        config: Source = None,
        plugins: Sequence[Any] = (),
        *,
        no_plugins: bool = False,
        platform: Platform | None = None,
        found: Mapping[str, tuple[Found, ...]] | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.config = _config(config)
        self.platform = platform or Host()
        #: Seconds that each stage of the start took.
        self.stages: dict[str, float] = {}
        #: What the last reload failed with, or None.
        self.reload_error: AxonemeError | None = None
        #: Called after each reload that changed something.
        self.on_reload: list[Callable[[], None]] = []
        self.started_at = 0.0
        self.runtime: Runtime | None = None
        self.generation: Generation | None = None
        self.source: FolderSource | None = None
        #: What the programs report, for everybody who listens.
        self.events = EventStream()
        self.parts: CoreParts | None = None
        self._options = Options(extra=plugins, no_plugins=no_plugins, found=found)
        self._supervisor = Supervisor(clock)
        self._scope = Scope("agent", patience=30.0)
        self._reloading = asyncio.Lock()
        self._server: Server | None = None

    # What it consists of

    @property
    def settings(self) -> Settings:
        return self.config.settings

    @property
    def state(self) -> State:
        return self._running().state

    @property
    def workloads(self) -> Workloads:
        return self._running().workloads

    @property
    def datapath(self) -> Datapath:
        return self._running().datapath

    @property
    def socket(self) -> Path:
        return self.settings.agent.run_dir / "axoneme.sock"

    @property
    def ready(self) -> bool:
        """Whether the programs are in force and every service is ready."""
        generation = self.generation
        return self.started_at > 0 and generation is not None and all(s.ready for s in generation.services)

    def _running(self) -> Runtime:
        if self.runtime is None:
            raise AxonemeError("the agent is not started", hint="use it inside `async with`")
        return self.runtime

    # Life

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Starts, and returns when all services are ready or failed once, at the latest after `agent.ready_timeout`.

        A failed start leaves nothing running; what an earlier agent pinned goes on.

        :raises LockedError: another agent uses the state folder.
        :raises AxonemeError: all else that the user can do something about.
        """
        if self._scope.closed or self.runtime is not None:
            raise AxonemeError("this agent was started before", hint="make a new one for each start")
        begin = time.perf_counter()
        try:
            await self._start()
        except BaseException:
            await self._abandon()
            raise
        self.started_at = time.time()
        seconds = time.perf_counter() - begin
        _log.info(
            "agent started", seconds=seconds, plugins=",".join(self._manager().enabled), ready=self.ready
        )

    async def stop(self) -> None:
        """Closes services and the API. Maps, programs and links stay. Who is cancelled while it closes is so afterwards.

        :raises ExceptionGroup: with all that did not close cleanly.
        """
        self.started_at = 0.0
        try:
            await to_the_end(self._scope.close())
        finally:
            self.runtime = None

    async def _abandon(self) -> None:
        """After a failed start. Its error is the one to be raised, so that those of closing are only logged."""
        try:
            await self.stop()
        except ExceptionGroup as group:
            _log.error("failed start left something behind", error=group)

    async def _start(self) -> None:
        with self._stage("folders"):
            _make_folders(self.settings.agent)
            lock = StateLock(self.settings.agent.state_dir)
            self._scope.push("lock", lock.close)
        with self._stage("host"):
            self.platform.prepare(self.settings)
            runtime = self.runtime = self._make_runtime()
        with self._stage("plugins"):
            assembly = self._assemble(self.config)
            self._declare(assembly)
        with self._stage("programs"):
            runtime.datapath.open()
            assembly, build = await building.build(runtime.datapath, assembly)
            # The datapath closes what it runs; a start that fails before that has this to close.
            self._scope.push("build", lambda: build.close() if runtime.datapath.active is None else None)
            memory.write_required(self.settings.agent.state_dir, assembly.manager)
        self.generation = Generation(1, assembly, build)
        self._scope.push("plugins", self._close_generation)
        with self._stage("workloads"):
            await runtime.workloads.restore()
            runtime.datapath.attach_host(await runtime.workloads.hub())
        with self._stage("api"):
            await self._serve()
        with self._stage("services"):
            await self._start_services(self.generation)
        with self._stage("attach"):
            runtime.datapath.activate(build)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.stages[name] = time.perf_counter() - begin
        _log.debug("stage done", stage=name, seconds=self.stages[name])

    def _make_runtime(self) -> Runtime:
        from axoneme.core.state.table import State

        datapath = self.platform.datapath(self.platform.kernel(), self.settings)
        self._scope.push("datapath", datapath.close)
        state = State(builtin.TABLES)
        workloads = self.platform.workloads(
            state, self.settings, on_link=self._on_link, on_unlink=self._on_unlink
        )
        self._scope.push("workloads", workloads.close)
        return Runtime(state, workloads, datapath, self.events, self.metrics, self._methods)

    async def _serve(self) -> None:
        from axoneme.core.api.server import Server

        self._server = Server(self.socket, self._methods, group=self.settings.agent.socket_group)
        await self._server.start()
        self._scope.push("api", self._server.stop)

    def metrics(self) -> list[Metric]:
        """The metrics of the core and of the plugins that run now."""
        return [p.record for p in self._generation().assembly.contributions.metrics]

    def _methods(self, name: str) -> ApiMethod | None:
        """The API method of this name, as it is in the current generation."""
        contributions = self._generation().assembly.contributions.api
        return next((p.record for p in contributions if p.record.name == name), None)

    async def _start_services(self, generation: Generation) -> None:
        # The core last: what plugins say of its tables as they start must be known before anything is pruned.
        names = [*generation.assembly.manager.enabled, CORE]
        services = generation.start(names, self._running(), self._supervisor)
        waiting = await settle(services, self.settings.agent.ready_timeout)
        for service in waiting:
            _log.warning("service not ready", service=service.name, reason=service.health().reason)
        manager = generation.assembly.manager
        for service in _failed(waiting):
            if service.plugin != CORE and manager.is_required(service.plugin):
                raise PluginError(
                    f"the plugin {service.plugin} is required and did not start: {service.reason}",
                    hint=f"repair it, or take {service.plugin} out of plugins.enabled",
                )

    # Assembling

    def _assemble(self, config: Config) -> Assembly:
        remembered = memory.read_required(self.settings.agent.state_dir)
        options = evolve(self._options, required=remembered)
        return assemble(
            config,
            options,
            lambda context: builtin.contributions(self, context),
            self.runtime,
            self.generation,
        )

    def _declare(self, assembly: Assembly) -> list[str]:
        """Makes the tables, tells the source the kinds; returns the names of new tables."""
        state, contributions = self._running().state, assembly.contributions
        before = set(state.names())
        for provided in contributions.tables:
            state.declare(provided.record)
        kinds = [provided.record for provided in contributions.resources]
        if self.source is None:
            from axoneme.core.state.ingest import FolderSource

            self.source = FolderSource(self.settings.agent.resources, state, kinds)
        elif kinds != list(self._kinds()):
            self.source.use(kinds)
        return [name for name in state.names() if name not in before]

    def _kinds(self) -> Iterator[Any]:
        return (p.record for p in self._generation().assembly.contributions.resources)

    # Reloading

    async def reload(self, *, force: bool = False) -> bool:
        """Makes the running agent what the configuration says now. Returns whether anything changed.

        The new generation is built and its services are started before anything of the old one ends; when any of that
        fails, the old one goes on as if nothing had been. Plugins that did not change are not touched. An unchanged
        configuration is a no-op, unless `force` is given or a plugin is failed and may have been repaired.

        :raises AxonemeError: why it was refused.
        """
        async with self._reloading:
            try:
                changed = await self._reload(force)
            except AxonemeError as error:
                self.reload_error = error
                _log.error("reload refused, the running configuration stays", error=error)
                raise
            self.reload_error = None
        if changed:
            collected()  # what the former plugins left
            for listener in self.on_reload:
                listener()
        return changed

    async def _reload(self, force: bool) -> bool:
        from axoneme.core.reload import Reload, check_changeable

        old, config = self._generation(), self.config.again()
        if config.digest == self.config.digest and not old.assembly.manager.failed and not force:
            _log.info("reload: nothing changed", generation=old.number)
            return False
        check_changeable(self.config, config)
        begin = time.perf_counter()
        self.generation = await Reload(self, old, config).run()
        self.config = config
        memory.write_required(self.settings.agent.state_dir, self._manager())
        seconds = time.perf_counter() - begin
        _log.info("reloaded", generation=self.generation.number, seconds=seconds)
        return True

    # Small things

    def _generation(self) -> Generation:
        if self.generation is None:
            raise AxonemeError("the agent is still starting", hint="try again in a moment")
        return self.generation

    def _manager(self) -> Any:
        return self._generation().assembly.manager

    async def _close_generation(self) -> None:
        generation = self._generation()
        if errors := await generation.close():
            raise ExceptionGroup("plugins did not close cleanly", errors)

    async def _on_link(self, ifindex: int) -> None:
        for endpoint in self.state.table("endpoints").by("ifindex", ifindex):
            self.datapath.attach_workload(endpoint.id, ifindex)

    async def _on_unlink(self, ifindex: int) -> None:
        for endpoint in self.state.table("endpoints").by("ifindex", ifindex):
            self.datapath.detach_workload(endpoint.id)

    def context(self, name: str) -> Context:
        """A plugin's context, for embedders that reach into their own plugins."""
        return self._generation().assembly.contexts[name]


def _failed(services: list[Supervised]) -> list[Supervised]:
    return [s for s in services if s.state in (ServiceState.WAITING, ServiceState.FAILED) or s.restarts]


def _config(source: Source) -> Config:
    if isinstance(source, Config):
        return source
    if isinstance(source, Mapping):
        return configuration.from_values(source)
    return configuration.load(source)


def _make_folders(settings: AgentSettings) -> None:
    """The agent's own folders, closed to others except for the one with the socket."""
    modes = {settings.state_dir: 0o700, settings.cache_dir: 0o700, settings.run_dir: 0o755}
    if settings.resources == AgentSettings().resources:
        modes[settings.resources] = 0o755  # a folder that was named by mistake must not seem to be empty
    for folder, mode in modes.items():
        try:
            folder.mkdir(mode=mode, parents=True, exist_ok=True)
        except OSError as error:
            raise AxonemeError(
                f"cannot make the folder: {os.strerror(error.errno or 0)}",
                where=Where(str(folder)),
                hint="run the agent as root, or choose folders of your own in the section agent",
            ) from error
