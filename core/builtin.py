"""What the core itself brings to a generation, in the same records as any plugin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from axoneme.core.context import Context
from axoneme.core.contributions import CORE, Contributions, Provided
from axoneme.core.events.rules import L7_RULES, RULES
from axoneme.core.net.devices import DEVICES, Device
from axoneme.core.records import Health, HealthCheck, Metric, Service
from axoneme.core.state.resources import RESOURCE_FILES, RESOURCES
from axoneme.core.workloads.endpoints import TABLES as WORKLOAD_TABLES
from axoneme.core.workloads.names import DNS_NAMES, FQDN_SELECTORS

if TYPE_CHECKING:
    from axoneme.core.agent import Agent
    from axoneme.core.events.store.recorder import Recorder
    from axoneme.core.records import DropReason
    from axoneme.core.state.ingest import FolderSource
    from axoneme.core.workloads.endpoints import Endpoint

TABLES = (
    RESOURCES,
    RESOURCE_FILES,
    *WORKLOAD_TABLES,
    DNS_NAMES,
    FQDN_SELECTORS,
    RULES,
    L7_RULES,
    DEVICES,
)


def contributions(agent: Agent, context: Context) -> Contributions:
    """Tables, maps, services and methods of the core.

    :param context: the core's own, which always has the maps of the build that is to run.
    """
    from axoneme.core.api.connection_methods import ConnectionMethods
    from axoneme.core.api.datapath_methods import DatapathMethods
    from axoneme.core.api.methods import AgentMethods
    from axoneme.core.datapath.reasons import REASONS
    from axoneme.core.datapath.tables import CRC32C_ZEROS

    parts = CoreParts.of(agent, context)
    return Contributions(
        tables=_core(TABLES),
        maps=_core([*agent.datapath.core_maps(), CRC32C_ZEROS]),
        drop_reasons=_core(REASONS),
        services=_core(parts.services()),
        api=_core(
            [
                *AgentMethods(agent).records(),
                *DatapathMethods(agent).records(),
                *ConnectionMethods(parts.collector).records(),
            ]
        ),
        health=_core(parts.health()),
        metrics=_core(parts.metrics()),
    )


def _core(records: Any) -> tuple[Provided[Any], ...]:
    return tuple(Provided(CORE, record) for record in records)


class CoreParts:
    """The core's running parts. Like a plugin's, they live as long as the agent."""

    def __init__(self, agent: Agent, context: Context) -> None:
        from axoneme.core.datapath.collector import Collector
        from axoneme.core.datapath.endpoint_maps import EndpointOperations, IpcacheOperations
        from axoneme.core.state.reconciler import Reconciler

        self._agent, self._context = agent, context
        self._network = agent.platform.services(agent._running(), context.settings)
        state = context.state
        operations = EndpointOperations(context.map, context.raise_revision)
        self.endpoints = Reconciler(state.table("endpoints"), operations, name="endpoints")

        async def written(endpoint: Endpoint) -> None:
            operations.write(endpoint)  # idempotent: whoever comes first, this or the reconciler

        agent.workloads.gate("endpoints", written)
        self.ipcache = Reconciler(
            state.table("ipcache"), IpcacheOperations(context.map, context.raise_revision), name="ipcache"
        )
        self.collector = Collector(
            context.map, lambda: context.settings.datapath.timeouts, agent.events.publish, self._samples
        )
        self.recorder = self._recorder()

    @classmethod
    def of(cls, agent: Agent, context: Context) -> CoreParts:
        if agent.parts is None:
            agent.parts = cls(agent, context)
        return agent.parts

    def services(self) -> list[Service]:
        return [
            *self._network,
            Service(name="resources", run=self._resources),
            Service(name="endpoints", run=self.endpoints.run),
            Service(name="ipcache", run=self.ipcache.run),
            Service(name="events", run=self._events),
            Service(name="connections", run=self.collector.run),
            Service(name="event-store", run=self.recorder.run),
        ]

    def _recorder(self) -> Recorder:
        from axoneme.core.events.store.recorder import Recorder

        agent, settings = self._agent, self._context.settings

        def reasons() -> dict[int, DropReason]:
            build = agent.datapath.active
            return {one.number: one for one in build.blueprint.reasons} if build else {}

        return Recorder(
            agent.events,
            self._context.state,
            reasons,
            lambda: agent.settings.events.store,
            settings.agent.state_dir / "events",
            settings.node.node_name(),
        )

    def _samples(self) -> float:
        from axoneme.core.datapath.abi import EventType

        wanted = self._agent.events.wants(EventType.UPDATE)
        return self._context.settings.datapath.sample_interval if wanted else 0.0

    async def _resources(self, ready: Callable[[], None]) -> None:
        await self._source().run(ready)

    def _source(self) -> FolderSource:
        assert self._agent.source is not None, "tables are declared before services start"
        return self._agent.source

    async def _events(self, ready: Callable[[], None]) -> None:
        from axoneme.core.datapath.abi import EVENT
        from axoneme.core.datapath.reasons import LOST_EVENTS
        from axoneme.core.datapath.ring import RingReader

        def losses() -> int:
            counters = self._context.map("counters")
            slots = (counters.lookup(2 * LOST_EVENTS + direction) for direction in (0, 1))
            return sum(int(slot["packets"].sum()) for slot in slots)

        ring = RingReader(self._context.map("events"), EVENT, losses)
        try:
            await self._agent.events.run(ring, ready)
        finally:
            ring.close()

    def health(self) -> list[HealthCheck]:
        return [
            HealthCheck(name="resources", check=lambda: self._source().health()),
            HealthCheck(name="endpoints", check=self.endpoints.health),
            HealthCheck(name="ipcache", check=self.ipcache.health),
            HealthCheck(name="connections", check=self.collector.health),
            HealthCheck(name="devices", check=self._devices),
            HealthCheck(name="event-store", check=self.recorder.health),
        ]

    def _devices(self) -> Health:
        from axoneme.core.net.devicewatch import health

        datapath, rows = self._agent.datapath, self._context.state.table(DEVICES.name, Device)
        return health(self._context.settings.datapath.devices, rows.all(), datapath.uplinks.refused)

    def metrics(self) -> list[Metric]:
        from axoneme.core.metrics import CoreMetrics

        return [*CoreMetrics(self._agent, self.collector).records(), *self.recorder.metrics()]
