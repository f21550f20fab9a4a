"""What runs while the plugin is enabled: from the tables of resources, endpoints and identities to the kernel's maps."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakValueDictionary

from axoneme.core import logs
from axoneme.core.events.rules import L7_RULES, RULES, L7Rules, Rule
from axoneme.core.histogram import Histogram
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Health, Level
from axoneme.core.state.resources import RESOURCES, Resource
from axoneme.core.state.table import Batch
from axoneme.core.state.watch import watch_many
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, IPCACHE, Endpoint
from axoneme.core.workloads.endpoints import Identity as IdentityRow
from axoneme.core.workloads.names import DNS_NAMES, FQDN_SELECTORS, DnsName, FqdnSelector
from axoneme.plugins.policy.config import PolicyConfig
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.fit import Shortfall
from axoneme.plugins.policy.maps import PolicyMaps
from axoneme.plugins.policy.model import L7, CidrGroup, Network, Policy, Protocol
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.services import KINDS, expand, known_services, names_services
from axoneme.plugins.policy.subject import Subject
from axoneme.plugins.policy.world import World, WorldChange, speaks_of_prefixes
from axoneme.plugins.policy.writer import HINT, MapWriter

log = logs.get(__name__)

#: Our name as a source of the ipcache table.
SOURCE = "policy"


class PolicyReconciler:
    """Keeps an engine up to date with the tables, and the kernel's maps with the engine."""

    def __init__(self, context: PluginContext) -> None:
        config: PolicyConfig = context.config
        self._context = context
        self._settings = config.settings
        self.engine = Engine(self._settings)
        self.last_duration = 0.0
        self.durations = Histogram(tuple(1e-5 * 10**power for power in range(8)))
        self._started = False
        self.writer: MapWriter | None = None
        self._policies: dict[Any, Policy] = {}
        self._groups: dict[Any, CidrGroup] = {}
        #: Services and endpoint slices, and the policies that name services.
        self._services: dict[Any, Resource] = {}
        self._serving: set[Any] = set()
        self._world_changed = False
        #: Endpoints whose policies the kernel has, and news of them.
        self._written: frozenset[int] = frozenset()
        self._progress = asyncio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Lives until cancelled. What it finds in the kernel is kept in force until everything is known."""
        self._start()
        state = self._context.state
        watches = (
            state.table(IDENTITIES.name, IdentityRow).watch(),
            state.table(ENDPOINTS.name, Endpoint).watch(),
            state.table(RESOURCES.name, Resource).watch(),
            state.table(DNS_NAMES.name, DnsName).watch(),
        )
        tables = (state.table(IDENTITIES.name), state.table(ENDPOINTS.name), state.table(RESOURCES.name))
        names = state.table(DNS_NAMES.name)
        ipcache = state.writer(IPCACHE.name)
        remove_gate = self._context.workloads.gate("policy", self._decided)
        ipcache.expect(SOURCE)  # so that nobody takes our prefixes out of the kernel before we named them
        try:
            async for identities, endpoints, resources, named in watch_many(*watches):
                self._take(identities, endpoints, resources)
                self._take_names(named)
                # Whoever learns names is waited for, but does not have to be there.
                if all(table.initialized for table in tables) and not names.awaited:
                    await self._update()
                    self._written = frozenset(self.engine.tables.subjects)
                    self._progress.set()
                    ready()
        finally:
            remove_gate()
            ipcache.release(SOURCE)
            for watch in watches:
                watch.close()

    async def _decided(self, endpoint: Endpoint) -> None:
        """Until the kernel has the endpoint's policies."""
        while endpoint.id not in self._written:
            self._progress.clear()
            await self._progress.wait()

    def _start(self) -> None:
        """A restart after a failure begins anew, from the tables and from what the kernel has."""
        self.engine, self._started = Engine(self._settings), False
        self._policies, self._groups = {}, {}
        self._services, self._serving = {}, set()
        context = self._context
        maps = (context.map(f"policy_{name}") for name in ("subjects", "peers", "verdicts"))
        self.writer = MapWriter(PolicyMaps(*maps), context.raise_revision)
        folder = context.settings.agent.state_dir
        self._world = World.open(context.state, context.workloads.ipcache, folder, self._behind)
        self._pending: dict[Any, Policy | None] = {}

    def _behind(self, prefix: Network) -> int | None:
        """The identity of exactly this prefix, or of the longest one around it."""
        words = _words(prefix)
        key = {"length": prefix.prefixlen, "address": {"a": words}}
        found = self._context.map(f"ipcache{prefix.version}").lookup(key)
        return None if found is None else int(found["identity"])

    # From the tables

    def _take(
        self,
        identities: Batch[IdentityRow] | None,
        endpoints: Batch[Endpoint] | None,
        resources: Batch[Resource] | None,
    ) -> None:
        """Enters changes; policies wait until the world that they speak of is known."""
        for identity in identities.changes if identities else ():
            if identity.new is None:
                self.engine.remove_identity(identity.row.number)
            else:
                self.engine.upsert_identity(Identity(identity.new.number, identity.new.labels))
        for endpoint in endpoints.changes if endpoints else ():
            if endpoint.new is None or not endpoint.new.labels:
                self.engine.remove_subject(endpoint.row.id)
            else:
                self.engine.upsert_subject(endpoint.new.id, subject_of(endpoint.new))
        for resource in resources.changes if resources else ():
            self._take_resource(resource.key, resource.new)

    def _take_names(self, named: Batch[DnsName] | None) -> None:
        for change in named.changes if named else ():
            enter = self._world.dns.remove if change.new is None else self._world.dns.add
            enter(change.row.name, change.row.address)

    def _take_resource(self, key: Any, row: Resource | None) -> None:
        parsed = row.parsed if row is not None else None
        if key[0] in KINDS:
            self._take_service(key, row)
        elif isinstance(parsed, CidrGroup) or key in self._groups:
            self._world_changed = True
            self._groups.pop(key, None)
            if isinstance(parsed, CidrGroup):
                self._groups[key] = parsed
        elif isinstance(parsed, Policy) or key in self._policies:
            new = parsed if isinstance(parsed, Policy) else None
            old = self._policies.pop(key, None)
            self._serving.discard(key)
            if new is not None:
                self._policies[key] = new
                if names_services(new):
                    self._serving.add(key)
            self._world_changed |= speaks_of_prefixes(old) or speaks_of_prefixes(new)
            self._pending[key] = new
            if old is not None and (new is None or new.key != old.key):
                self.engine.remove_policy(old.key)

    def _take_service(self, key: Any, row: Resource | None) -> None:
        self._services.pop(key, None)
        if row is not None:
            self._services[key] = row
        for name in self._serving:
            self._pending[name], self._world_changed = self._policies[name], True

    def _with_services(self) -> dict[Any, Policy]:
        """The policies, with the peers that their services stand for."""
        known = known_services(self._services.values()) if self._serving else []
        return self._policies | {key: expand(self._policies[key], known) for key in self._serving}

    # To the kernel

    async def _update(self) -> None:
        started = time.perf_counter()
        policies = self._with_services()
        change = self._world_change(policies.values())
        for identity in change.added.values():
            self.engine.upsert_identity(identity)
        if self._started and change.added:
            self._commit()
            await self._world.enter(change)
        for key, policy in self._pending.items():
            if policy is not None:
                self.engine.upsert_policy(policies[key])
        self._pending.clear()
        self._commit()
        if (
            not self._started
        ):  # the kernel's tables and addresses are those of the last run: nothing to keep in step
            self._started = True
            self._context.state.writer(IPCACHE.name).mark_initialized(SOURCE)
            await self._world.enter(change)
            self._world.forget_unused()
        if not change.is_empty:
            await self._world.leave(change)
            for identity in change.ended:
                self.engine.remove_identity(identity.number)
            self._commit()
            self._world.forget(change)
        self._note_rules()
        self.last_duration = time.perf_counter() - started
        self.durations.observe(self.last_duration, "local")

    def _world_change(self, policies: Iterable[Policy]) -> WorldChange:
        if not self._world_changed:
            return self._world.change_names()
        self._world_changed = False
        change = self._world.change(policies, self._groups.values())
        self._note_selectors()
        return change

    def _note_selectors(self) -> None:
        table = self._context.state.writer(FQDN_SELECTORS.name, FqdnSelector)
        wanted = self._world.dns.patterns
        table.upsert(*(FqdnSelector(pattern=one) for one in sorted(wanted)))
        table.delete(*(row.pattern for row in table if row.pattern not in wanted))

    def _commit(self) -> None:
        plan = self.engine.commit()
        self._note_l7()
        assert self.writer is not None, "it was started"
        self.writer.write(plan, self.engine.tables, self.engine.no_room)

    def _note_l7(self) -> None:
        """Before the kernel has a number, everybody can know what it stands for."""
        table = self._context.state.writer(L7_RULES.name, L7Rules)
        new = [number for number in self.engine.l7 if number not in table]
        if new:
            table.upsert(*(_l7_row(number, self.engine.l7[number]) for number in new))
            table.delete(*(row.number for row in table if row.number not in self.engine.l7))

    def _note_rules(self) -> None:
        rows, gone = self.engine.rules.changes()
        table = self._context.state.writer(RULES.name, Rule)
        table.upsert(*rows)
        table.delete(*gone)

    # For people

    @property
    def shortfall(self) -> Shortfall:
        """What the kernel's maps had no room for."""
        return Shortfall() if self.writer is None else self.writer.shortfall

    @property
    def updates(self) -> int:
        """How often the maps were written since the start."""
        return 0 if self.writer is None else self.writer.updates

    @property
    def last_write(self) -> float:
        """When the maps were written last, in seconds since 1970; 0 for never."""
        return 0.0 if self.writer is None else self.writer.last_write

    @property
    def writes(self) -> int:
        """How many entries were written or removed since the start."""
        return 0 if self.writer is None else self.writer.writes

    def health(self) -> Health:
        if self.writer is not None and self.writer.fault:
            return Health(level=Level.FAILED, reason=self.writer.fault)
        shortfall = self.shortfall
        if shortfall:
            level = Level.FAILED if shortfall.closed else Level.DEGRADED
            return Health(level=level, reason=f"no room in the kernel's tables: {shortfall}; {HINT}")
        errors = self.engine.errors()
        if errors:
            endpoint, error = min(errors.items())
            return Health(
                level=Level.DEGRADED, reason=f"endpoint {endpoint} and {len(errors) - 1} more: {error}"
            )
        if self.writer is None or not self.writer.synced:
            return Health(level=Level.UNKNOWN, reason="waiting for the first full state")
        nodes = sum(any(spec.node for spec in policy.specs) for policy in self._policies.values())
        if nodes:
            reason = f"{nodes} policies have a nodeSelector and no effect: there is no host firewall"
            return Health(level=Level.OK, reason=reason)
        return Health(level=Level.OK)


def _l7_row(number: int, l7: L7) -> L7Rules:
    return L7Rules(
        number=number,
        kind=l7.redirect,
        rules=l7.rules,
        wildcard=l7.wildcard,
        listener=l7.listener,
        context=l7.context,
    )


def subject_of(endpoint: Endpoint) -> Subject:
    ports = sorted((name, Protocol[port.protocol], port.port) for name, port in endpoint.named_ports.items())
    return Subject(endpoint.labels, tuple(ports))


def _words(prefix: Network) -> list[int]:
    size = prefix.max_prefixlen // 32
    number = int(prefix.network_address)
    return [(number >> 32 * (size - 1 - index)) & 0xFFFFFFFF for index in range(size)]


_running: WeakValueDictionary[int, PolicyReconciler] = WeakValueDictionary()


def of(context: PluginContext) -> PolicyReconciler:
    """The one reconciler of a context: services, health, metrics and API methods are about the same object."""
    found = _running.get(id(context))
    if found is None or found._context is not context:
        found = _running[id(context)] = PolicyReconciler(context)
    return found
