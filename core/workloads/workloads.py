"""The workloads of this node: added, removed, and taken over again after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from ipaddress import IPv4Address, IPv6Address

import attrs

from axoneme.core import logs
from axoneme.core.net import namespaces
from axoneme.core.state.persist import PersistError
from axoneme.core.state.table import State
from axoneme.core.workloads import wishes
from axoneme.core.workloads.connector import Connector
from axoneme.core.workloads.endpoints import WORKLOADS, Endpoint, EndpointState, NamedPort, Workload
from axoneme.core.workloads.records import Record
from axoneme.core.workloads.registry import NamespaceLabels, Registry
from axoneme.core.workloads.undo import Undo
from axoneme.core.workloads.wishes import WorkloadError, WorkloadOptions

__all__ = ["WorkloadError", "WorkloadOptions", "Workloads"]

log = logs.get(__name__)

_LINK_ATTEMPTS = 64

#: Seconds that a new workload waits at most for each of those who decide about it.
GATE_PATIENCE = 2.0

#: Waits until something is decided about an endpoint.
Gate = Callable[[Endpoint], Awaitable[None]]


async def _nothing(ifindex: int) -> None:
    """What happens with a link when nobody says what else should."""


class Workloads:
    """The workloads of this node, and who they are.

    Everything is written down before it is made and can be taken over by the next agent. Additions and removals are
    carried out one after the other; the kernel is spoken to in a thread, so that the event loop goes on meanwhile.

    :param on_link: awaited with the index of a host-side interface after its endpoint is in the tables and before the
        interface goes up; also for each one that `restore` takes over (which then is up already). If it raises, what was
        being added is undone.
    :param on_unlink: awaited before an interface is removed.
    :param namespace_labels: the labels of a namespace; None for a namespace that has nothing but its name.
    """

    def __init__(
        self,
        state: State,
        options: WorkloadOptions,
        *,
        on_link: Callable[[int], Awaitable[None]] = _nothing,
        on_unlink: Callable[[int], Awaitable[None]] = _nothing,
        namespace_labels: NamespaceLabels = lambda namespace: None,
    ) -> None:
        self._options = options
        self._on_link = on_link
        self._on_unlink = on_unlink
        self._registry = Registry(state, options, namespace_labels)
        self._connector = Connector(options)
        self._gates: dict[str, Gate] = {}
        self._workloads = state.table(WORKLOADS.name, Workload)
        self._lock = asyncio.Lock()
        self.identities = self._registry.identities
        self.ipcache = self._registry.ipcache

    def gate(self, name: str, wait: Gate) -> Callable[[], None]:
        """Lets nobody call a workload ready before `wait(endpoint)` returned; for whoever has to decide about it first.

        What takes longer than `GATE_PATIENCE` is not waited for: the workload is closed until then, as every workload that
        nothing was decided about. Returns a function that takes the gate away.
        """
        self._gates[name] = wait

        def remove() -> None:
            if self._gates.get(name) is wait:
                del self._gates[name]

        return remove

    async def _pass_gates(self, endpoint: Endpoint) -> None:
        for name, wait in list(self._gates.items()):
            try:
                async with asyncio.timeout(GATE_PATIENCE):
                    await wait(endpoint)
            except TimeoutError:
                log.warning("workload is closed for now", workload=endpoint.uid, waits_for=name)

    def list(self) -> list[Endpoint]:
        """All endpoints, by namespace and name."""
        return sorted(self._registry.endpoints.all(), key=lambda row: (row.namespace, row.name))

    def get(self, name: str, namespace: str = "default") -> Endpoint | None:
        found = self._registry.endpoints.by("uid", f"{namespace}/{name}")
        return found[0] if found else None

    def workload(self, name: str, namespace: str = "default") -> Workload | None:
        """What was asked for."""
        return self._workloads.get(f"{namespace}/{name}")

    async def add(
        self,
        name: str,
        namespace: str = "default",
        labels: Mapping[str, str] | None = None,
        *,
        netns: str | None = None,
        ipv4: IPv4Address | str | None = None,
        ipv6: IPv6Address | str | None = None,
        named_ports: Mapping[str, NamedPort] | None = None,
        service_account: str = "",
        created_by: str = "",
    ) -> Endpoint:
        """Connects a workload; returns its endpoint when traffic can flow.

        Adding one that is there changes its labels, named ports and service account, if they differ; it is not
        interrupted. Raises `WorkloadError` when it is there with another namespace or address, and another
        `AxonemeError` when it cannot be made; then nothing of it is left.

        :param netns: the path or name of an existing network namespace, which is used but never removed; without one the
            workload gets a namespace of its own, which is removed with it.
        """
        wish = wishes.checked(
            name,
            namespace,
            labels or {},
            default_netns=self._options.namespace_prefix,
            netns=netns,
            ipv4=ipv4,
            ipv6=ipv6,
            named_ports=named_ports or {},
            service_account=service_account,
            created_by=created_by,
        )
        async with self._lock:
            present = self.get(name, namespace)
            if present is not None and present.state is EndpointState.READY:
                return self._change(present, wish)
            if present is not None:
                await self._remove(self._registry.records[present.id])
            return await self._create(wish)

    async def remove(self, name: str, namespace: str = "default") -> bool:
        """Disconnects a workload; False when there is none of this name.

        Its addresses and its number are not given to others soon. Raises `AxonemeError` when the kernel refuses; the
        endpoint is then `failed`, with the reason, and can be removed again.
        """
        async with self._lock:
            endpoint = self.get(name, namespace)
            if endpoint is None:
                return False
            await self._remove(self._registry.records[endpoint.id])
            return True

    async def refresh_labels(self, namespace: str) -> None:
        """Gives the workloads of a namespace the identities that follow from the namespace's labels as they are now."""
        async with self._lock:
            for record in list(self._registry.records.values()):
                if record.namespace == namespace:
                    self._registry.relabel(record)

    async def hub(self) -> int:
        """The index of the device through which the host reaches its workloads; it is made if there is none."""
        async with self._lock:
            return await self._connector.hub()

    async def remove_hub(self) -> None:
        """Removes that device. For when no workload is left and no agent follows."""
        async with self._lock:
            await self._connector.delete_link(await self._connector.hub())

    async def restore(self) -> None:
        """Takes over what earlier agents left, repairs what is broken, removes what is unfinished or nobody's.

        A workload whose interface and namespace are as they should be is not touched: its traffic flows on. To be called
        once, before anything is added; afterwards the tables are initialised.
        """
        from axoneme.core.workloads.restore import restore

        async with self._lock:
            await restore(self._registry, self._connector, self._on_link)

    async def close(self) -> None:
        """Lets go of the kernel; the workloads stay as they are."""
        async with self._lock:
            await self._connector.close()

    async def _create(self, wish: Workload) -> Endpoint:
        undo = Undo()
        try:
            return await self._build(await self._plan(wish, undo), undo)
        except BaseException:
            await undo.run()
            raise

    async def _plan(self, wish: Workload, undo: Undo) -> Record:
        for _ in range(_LINK_ATTEMPTS):
            record = self._registry.plan(wish, undo)
            if await self._connector.is_free(record.ifname):
                return record
            # Another agent's, probably; a freed number rests, so the next one is another.
            await undo.run()
        raise WorkloadError(
            f"interfaces up to {record.ifname} are there already", hint="do two agents share a link prefix?"
        )

    async def _build(self, record: Record, undo: Undo) -> Endpoint:
        registry, connector = self._registry, self._connector
        if record.managed and namespaces.identity_of(record.netns) is not None:
            # Before anything is written down: what is on record as being made is removed after a crash.
            raise WorkloadError(
                f"there is a network namespace {record.netns} already",
                hint="use it with the netns option, or remove it with `ip netns delete`",
            )
        undo.add("forget the record", lambda: registry.forget(record))
        registry.save(record)
        if record.managed:
            await connector.make_namespace(record)
            undo.add("delete the namespace", lambda: connector.delete_namespace(record))
        record = await connector.connect(record, self._check_unused)
        undo.add("delete the link", lambda: connector.disconnect(record, record.ifindex))
        registry.publish(record)
        undo.add("withdraw the endpoint", lambda: registry.withdraw(record))
        await self._on_link(record.ifindex)
        undo.add("take leave of the link", lambda: self._on_unlink(record.ifindex))
        await connector.activate(record)
        if (made := registry.endpoints.get(record.id)) is not None:
            await self._pass_gates(made)
        registry.save(attrs.evolve(record, state=EndpointState.READY))
        endpoint = registry.set_state(record.id, EndpointState.READY)
        assert endpoint is not None
        log.info("workload added", workload=endpoint.uid, endpoint=endpoint.id, identity=endpoint.identity)
        return endpoint

    def _check_unused(self, netns: tuple[int, int]) -> None:
        other = self._registry.owner_of(netns)
        if other is not None:
            raise WorkloadError(f"network namespace {other.netns} is that of workload {other.uid} already")

    def _change(self, present: Endpoint, wish: Workload) -> Endpoint:
        record = self._registry.records[present.id]
        changed = wishes.changed(record, wish)
        if changed != record:
            self._registry.save(changed)
        return self._registry.relabel(changed)

    async def _remove(self, record: Record) -> None:
        self._registry.set_state(record.id, EndpointState.REMOVING)
        try:
            self._registry.save(attrs.evolve(record, state=EndpointState.REMOVING))
        except PersistError as error:  # a full disk must not keep a workload alive
            log.warning("removal not written down", workload=record.uid, error=str(error))
        try:
            await self._disconnect(record)
        except BaseException as error:
            self._registry.set_state(record.id, EndpointState.FAILED, logs.describe(error))
            raise
        self._registry.withdraw(record)
        self._registry.free(record)
        log.info("workload removed", workload=record.uid, endpoint=record.id)

    async def _disconnect(self, record: Record) -> None:
        link = await self._connector.own_link(record)
        if link is not None:
            await self._on_unlink(link.ifindex)
        # Its routes are the hub's: they are there even when somebody removed the interface.
        await self._connector.disconnect(record, link.ifindex if link is not None else 0)
        if record.managed and namespaces.identity_of(record.netns) == record.netns_identity:
            await self._connector.delete_namespace(record)
