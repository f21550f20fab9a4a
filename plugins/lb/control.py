"""What runs while the plugin is enabled: from the tables of resources, workloads and addresses to the kernel's maps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar
from weakref import WeakValueDictionary

from attrs import evolve

from axoneme.core import logs
from axoneme.core.garbage import uncollected
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Health, Level
from axoneme.core.state.reconciler import Reconciler
from axoneme.core.state.resources import RESOURCES, Resource
from axoneme.core.state.table import Transaction, WriteTable
from axoneme.core.state.watch import Batch, Watch, watch_many
from axoneme.core.workloads.endpoints import (
    ENDPOINTS,
    IPCACHE,
    WORKLOADS,
    Endpoint,
    EndpointState,
    IpcacheEntry,
    IpcacheSource,
)
from axoneme.core.workloads.endpoints import Workload as WorkloadRow
from axoneme.plugins.lb import writer
from axoneme.plugins.lb.backends import Workload
from axoneme.plugins.lb.catalog import Catalog
from axoneme.plugins.lb.closing import Closer
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.engine import Changes, Engine
from axoneme.plugins.lb.health_check import HealthServer, Local
from axoneme.plugins.lb.image import Image
from axoneme.plugins.lb.kinds import KINDS
from axoneme.plugins.lb.loads import Loads
from axoneme.plugins.lb.maps import Algorithm
from axoneme.plugins.lb.model import Address, Name
from axoneme.plugins.lb.moving import Mover
from axoneme.plugins.lb.namespaces import NamespaceOperations
from axoneme.plugins.lb.pools import Addresses
from axoneme.plugins.lb.resolve import Resolved, Surroundings
from axoneme.plugins.lb.rows import BackendKey
from axoneme.plugins.lb.selection import Rule, wanted
from axoneme.plugins.lb.store import GivenAddresses, LocalRecord, LocalServices
from axoneme.plugins.lb.tables import BACKENDS, SERVICES, BackendsRow, ServiceRow

log = logs.get(__name__)
T = TypeVar("T")

INPUTS: Final = (RESOURCES.name, WORKLOADS.name, ENDPOINTS.name, IPCACHE.name)
#: The loop gets its turn at least so often (in seconds) while many services change.
SLICE: Final = 0.01
#: From so many changes on, nothing is gained by looking for garbage among them.
MANY: Final = 1000


class Control:
    """Keeps an engine up to date with the tables, and maps and public tables with the engine."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self.config: LbConfig = context.config
        #: Counters for metrics.
        self.updates = 0
        self.writes = 0
        self.last_duration = 0.0
        #: Whether it knows the local services and keeps the kernel's maps: not before it is started, nor once it is replaced.
        self.running = False
        self.closer = Closer(context)
        self.mover = Mover(context, lambda key: bool(self.image.backends.number(key)))
        self.checks = HealthServer(self._checked)
        self.loads = Loads(context, self._counted)
        self._wake = asyncio.Event()
        self._begin()

    def _begin(self) -> None:
        """A restart after a failure begins anew, from the tables and from what the kernel has."""
        settings, config = self._context.settings, self.config
        self.locals = LocalServices(settings.agent.state_dir)
        self._given = GivenAddresses(settings.agent.state_dir)
        addresses = Addresses(classes=frozenset(config.load_balancer_classes))
        around = Surroundings(config.defaults(settings.node.node_name()))
        self.catalog = Catalog(around, addresses)
        self.image = Image(config.sizes)
        self.engine = Engine(self.catalog, self.image)
        self._workloads: dict[str, WorkloadRow] = {}
        self._hosts: dict[Any, Address] = {}
        self._synced = self._initialized = False

    async def run(self, ready: Callable[[], None]) -> None:
        """Lives until cancelled. What it finds in the kernel is kept in force until everything is known."""
        self._begin()
        self.image = self.engine.image = Image(self.config.sizes, writer.read(self._context.map))
        self.catalog.addresses.remember(self._given.load())
        for name, local in self.locals.load().items():
            self.catalog.set_local(name, local)
        self.running = True
        state = self._context.state
        watches: tuple[Watch[Any], ...] = (
            state.table(RESOURCES.name, Resource).watch(),
            state.table(WORKLOADS.name, WorkloadRow).watch(),
            state.table(ENDPOINTS.name, Endpoint).watch(),
            state.table(IPCACHE.name, IpcacheEntry).watch(),
        )
        timer: asyncio.TimerHandle | None = None
        try:
            async for batches in watch_many(*watches, wake=self._wake):
                with uncollected(sum(len(batch.changes) for batch in batches if batch is not None) > MANY):
                    self._take(*batches)
                self._initialized = all(state.table(name).initialized for name in INPUTS)
                if self._initialized:
                    await self._update()
                    ready()
                if timer is not None:
                    timer.cancel()
                timer = self._next_look()
        finally:
            self.running = False
            if timer is not None:
                timer.cancel()
            for watch in watches:
                watch.close()

    def _next_look(self) -> asyncio.TimerHandle | None:
        """Wakes the loop when something that fell out of use has rested."""
        due = self.image.due
        if due is None:
            return None
        return asyncio.get_running_loop().call_later(max(0.0, due - time.monotonic()), self._wake.set)

    # From the tables

    def _take(
        self,
        resources: Batch[Resource] | None,
        workloads: Batch[WorkloadRow] | None,
        endpoints: Batch[Endpoint] | None,
        hosts: Batch[IpcacheEntry] | None,
    ) -> None:
        for change in resources.changes if resources else ():
            if change.row.kind in KINDS:
                old, new = change.old, change.new
                self.catalog.set_resource(
                    None if old is None else old.parsed, None if new is None else new.parsed
                )
        for workload in workloads.changes if workloads else ():
            self._take_workload(workload.row, workload.new)
        moved: set[bytes] = set()
        for endpoint in endpoints.changes if endpoints else ():
            moved.update(self._take_endpoint(endpoint.row, endpoint.new))
        for host in hosts.changes if hosts else ():
            self._take_host(host.key, host.new)
        if moved:
            self.engine.touch_addresses(moved)
        if moved or hosts:
            self._look_around()

    def _take_workload(self, row: WorkloadRow, new: WorkloadRow | None) -> None:
        if new is None:
            self._workloads.pop(row.uid, None)
        else:
            self._workloads[row.uid] = new
            for endpoint in self._context.state.table(ENDPOINTS.name, Endpoint).by("uid", row.uid):
                self._take_endpoint(endpoint, endpoint)

    def _take_endpoint(self, row: Endpoint, new: Endpoint | None) -> set[bytes]:
        """Returns the addresses that came or went."""
        workload = None
        if new is not None and new.state is EndpointState.READY:
            known = self._workloads.get(new.uid)
            workload = Workload(
                new.id,
                new.namespace,
                new.name,
                new.addresses,
                {} if known is None else known.labels,
                {(name, port.protocol): port.port for name, port in new.named_ports.items()},
            )
        return {address.packed for address in self.catalog.set_workload(row.id, workload)}

    def _take_host(self, key: Any, new: IpcacheEntry | None) -> None:
        if new is not None and new.source is IpcacheSource.HOST and new.prefix.num_addresses == 1:
            self._hosts[key] = new.prefix.network_address
        else:
            self._hosts.pop(key, None)

    def _look_around(self) -> None:
        hosts = sorted(self._hosts.values(), key=lambda one: (one.version, int(one)))
        allowed = self.config.node_port_addresses
        ports = tuple(
            one
            for one in hosts
            if not one.is_link_local and (not allowed or any(one in net for net in allowed))
        )
        own = frozenset((*hosts, *(a for one in self.catalog.workloads.values() for a in one.addresses)))
        around = evolve(self.catalog.around, node_addresses=ports, hosts=frozenset(hosts), own=own)
        self.catalog.set_surroundings(around)

    # To the kernel

    async def _update(self) -> None:
        started, turn = time.perf_counter(), time.monotonic()
        self.image.expire(turn)
        if self.engine.refused:
            self.engine.retry()
        with uncollected(len(self.catalog.dirty) > MANY):
            worked = await self._work(turn)
            if not self._synced:
                self._forget_strangers()
                await self._work(turn)
                self._bury(self.engine.unknown(self.image.prune()))  # who went while nobody looked
            self._flush()
        if worked:
            self.checks.look()
        if not self._synced:
            self._synced = True
            for table in (SERVICES, BACKENDS):
                self._context.state.writer(table.name).mark_initialized("lb")
        self.last_duration = time.perf_counter() - started

    async def _work(self, turn: float) -> bool:
        """Resolves what is dirty; whether anything was. The loop has had its turn at that time."""
        worked = False
        for _ in self.engine.work():
            worked = True
            if time.monotonic() - turn > SLICE:
                await asyncio.sleep(0)
                turn = time.monotonic()
        return worked

    def _forget_strangers(self) -> None:
        """Services that went while nobody looked: the addresses that they were given, and their rows. It is known by now who
        shares with whom."""
        for name in set(self.catalog.addresses.given) - set(self.catalog.names()):
            self.catalog.addresses.release(name)
        self.catalog.touch_waiting()
        for table in (self._context.state.writer(SERVICES.name), self._context.state.writer(BACKENDS.name)):
            table.delete(*(key for key in map(table.key, table) if key not in self.engine.resolved))

    def _flush(self) -> None:
        writes = self.image.take_writes(time.monotonic())
        if writes.size:
            writer.write(self._context.map, writes)
            if not all(map(any, writes.backends.values())):  # a row of zeros: somebody is gone
                self._context.raise_revision()  # so that what was sent there is moved, where it can be
            self.updates += 1
            self.writes += writes.size
        self.mover.look(self.image.backends.take_gone())
        changes = self.engine.take_changes()
        self._publish(changes)
        self._bury(changes.dead)
        self._given.save(self.catalog.addresses.given)

    def _bury(self, dead: Iterable[BackendKey]) -> None:
        if self.config.close_sockets:
            self.closer.bury(dead)

    def _publish(self, changes: Changes) -> None:
        state = self._context.state
        services, backends = state.writer(SERVICES.name, ServiceRow), state.writer(BACKENDS.name, BackendsRow)
        with state.transaction() as txn:
            _replace(txn, services, changes.services)
            _replace(txn, backends, changes.backends)

    # For the other services of the plugin

    async def follow_namespaces(self, ready: Callable[[], None]) -> None:
        """A service: which workload each network namespace is."""
        operations = NamespaceOperations(lambda: self._context.map("lb_namespaces"))
        table = self._context.state.table(ENDPOINTS.name, Endpoint)
        await Reconciler(table, operations, name="lb namespaces").run(ready)

    def _checked(self) -> dict[int, Local]:
        """Services that ask for a health check, by port."""
        found = {}
        for name in self.catalog.checked:
            made = self.engine.resolved.get(name)
            if made is not None:
                found[made.service.health_check_port] = Local(name, _local_backends(made))
        return found

    def _counted(self) -> dict[bytes, int]:
        """Backends of services that choose by the number of connections."""
        found = {}
        for made in self.engine.resolved.values():
            for row in made.demand.rows.values():
                if row.balance.algorithm is Algorithm.LEAST_CONNECTIONS:
                    found.update({key: self.image.backends.number(key) for key, _ in row.members})
        return {key: number for key, number in found.items() if number}

    # For people

    async def add_local(self, record: LocalRecord) -> None:
        """Raises `ValueError` for what is wrong with it, `PersistError` when it cannot be written down."""
        self.catalog.set_local(record.key, self.locals.add(record))
        self._wake.set()

    async def delete_local(self, name: tuple[str, str]) -> bool:
        """False when there is none. Raises `PersistError`."""
        found = self.locals.delete(name)
        if found:
            self.catalog.set_local(name, None)
            self._wake.set()
        return found

    def health(self) -> Health:
        refused = self.engine.refused
        if refused:
            name, error = min(refused.items())
            more = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            return Health(level=Level.DEGRADED, reason=f"{'/'.join(name)}{more}: {error}")
        if self.checks.problems:
            port, why = min(self.checks.problems.items())
            return Health(
                level=Level.DEGRADED, reason=f"cannot listen at the health check port {port}: {why}"
            )
        for pool, other in self.catalog.addresses.conflicts().items():
            reason = f"the address pool {pool} overlaps with {other}: nothing is given from it"
            return Health(level=Level.DEGRADED, reason=reason)
        if not self._synced:
            return Health(level=Level.UNKNOWN, reason="waiting for the first full state")
        return Health(level=Level.OK)


def _replace(txn: Transaction, table: WriteTable[T], rows: Mapping[Name, T | None]) -> None:
    """Rows by their keys, None for those that are gone."""
    txn.upsert(table, *(row for row in rows.values() if row is not None))
    for key, row in rows.items():
        if row is None:
            txn.delete(table, key)


def _local_backends(made: Resolved) -> dict[int, int]:
    """How many are on this node and get connections as long as others are left, by the families of the service."""
    rule = Rule(local_only=True, publish_not_ready=made.service.publish_not_ready)
    local = {one.address for candidates in made.backends.values() for one in candidates if wanted(one, rule)}
    return {
        family: sum(address.version == family for address in local)
        for family in made.service.own_families or (4, 6)
    }


_running: WeakValueDictionary[int, Control] = WeakValueDictionary()


def of(context: PluginContext) -> Control:
    """The one control of a context: services, health, metrics and API methods are about the same object."""
    found = _running.get(id(context))
    if found is None or found._context is not context:
        found = _running[id(context)] = Control(context)
    return found
