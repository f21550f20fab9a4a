"""The books: which workload has which number, addresses and identity, on disk and in the tables. Never the kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import cast

import attrs

from axoneme.core.state.persist import Numbers
from axoneme.core.state.table import State, Transaction
from axoneme.core.workloads.addresses import Pools, Range
from axoneme.core.workloads.endpoints import (
    ENDPOINTS,
    TABLES,
    WORKLOADS,
    Address,
    Endpoint,
    EndpointState,
    IpcacheEntry,
    IpcacheSource,
    Workload,
)
from axoneme.core.workloads.identities import FIRST, LAST, Identities, workload_labels
from axoneme.core.workloads.ipcache import Ipcache, host_prefix
from axoneme.core.workloads.records import Record, Records
from axoneme.core.workloads.undo import Undo
from axoneme.core.workloads.wiring import mac_address
from axoneme.core.workloads.wishes import WorkloadError, WorkloadOptions

#: Who says that the tables of this package are complete; see `WriteTable.expect`.
SOURCE = "workloads"

NamespaceLabels = Callable[[str], Mapping[str, str] | None]


class Registry:
    """The books of `Workloads`. Everything in it happens in the event loop's thread."""

    def __init__(self, state: State, options: WorkloadOptions, namespace_labels: NamespaceLabels) -> None:
        self._state = state
        self._options = options
        self._namespace_labels = namespace_labels
        self._workloads = state.writer(WORKLOADS.name, Workload)
        self.endpoints = state.writer(ENDPOINTS.name, Endpoint)
        for spec in TABLES:
            state.writer(spec.name).expect(SOURCE)
        self._pools = Pools(options.ipv4, options.ipv6)
        options.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Not on disk, as identities are: the records tell which are taken, and nobody else knows a node's endpoints.
        self._ids = Range(1, 0xFFFF)
        numbers = Numbers(options.folder / "identities.json", FIRST, LAST, what="identity")
        self.identities = Identities(state, numbers)
        self.ipcache = Ipcache(state, dual_stack_world=options.dual_stack_world)
        self._store = Records(options.folder / "endpoints")
        self.records: dict[int, Record] = {}

    def start(self) -> list[Record]:
        """Writes what is always true and returns what earlier agents wrote down."""
        self.identities.start()
        self.ipcache.start()
        records = self._store.load()
        self._ids.resume(record.id for record in records)
        self._pools.resume(address for record in records for address in record.addresses)
        self.records = {record.id: record for record in records}
        return records

    def started(self) -> None:
        """All workloads of earlier agents were taken over or removed."""
        self.identities.forget_unused()
        for spec in TABLES:
            self._state.writer(spec.name).mark_initialized(SOURCE)

    def plan(self, wish: Workload, undo: Undo) -> Record:
        """Gives a workload its number and addresses."""
        number = self._ids.allocate()
        if number is None:
            raise WorkloadError("there is no endpoint id left: all 65535 are taken", hint="remove workloads")
        undo.add("free the endpoint id", lambda: self._ids.release(number))
        ipv4, ipv6 = (
            self._take(version, wanted, undo) for version, wanted in ((4, wish.ipv4), (6, wish.ipv6))
        )
        return Record(
            id=number,
            name=wish.name,
            namespace=wish.namespace,
            labels=wish.labels,
            service_account=wish.service_account,
            named_ports=wish.named_ports,
            created_by=wish.created_by,
            netns=wish.netns,
            managed=wish.managed,
            asked_ipv4=wish.ipv4,
            asked_ipv6=wish.ipv6,
            ipv4=cast(IPv4Address | None, ipv4),
            ipv6=cast(IPv6Address | None, ipv6),
            ifname=f"{self._options.link_prefix}{number}",
            mac=mac_address(self._options.agent, number, "workload"),
            node_mac=mac_address(self._options.agent, number, "node"),
        )

    def save(self, record: Record) -> Record:
        """Writes a record down. Raises `PersistError`; then the older one still holds."""
        self._store.write(record)
        self.records[record.id] = record
        return record

    def forget(self, record: Record) -> None:
        self.records.pop(record.id, None)
        self._store.delete(record.id)

    def owner_of(self, netns: tuple[int, int]) -> Record | None:
        """Whose a namespace is, by its identity."""
        return next((record for record in self.records.values() if record.netns_identity == netns), None)

    def publish(self, *records: Record, reasons: Mapping[int, str] | None = None) -> list[Endpoint]:
        """Writes endpoints that are not in the tables yet into all tables at once.

        :param reasons: why some of them have failed, by number.
        """
        with self._state.transaction() as txn:
            return [self._publish(record, (reasons or {}).get(record.id, ""), txn) for record in records]

    def _publish(self, record: Record, reason: str, txn: Transaction) -> Endpoint:
        labels = self._labels(record)
        identity = self.identities.acquire(labels, txn)
        endpoint = record.endpoint(identity.number, labels, reason)
        self._write(record, endpoint, txn)
        return endpoint

    def relabel(self, record: Record) -> Endpoint:
        """Gives an endpoint what follows from its record and its namespace's labels now."""
        present, labels = self.endpoints.get(record.id), self._labels(record)
        if present is None:
            raise KeyError(record.uid)
        with self._state.transaction() as txn:
            number = present.identity
            if labels != present.labels:
                number = self.identities.acquire(labels, txn).number
                self.identities.release(present.identity, txn)
            endpoint = attrs.evolve(present, labels=labels, identity=number, named_ports=record.named_ports)
            self._write(record, endpoint, txn)
        return endpoint

    def _write(self, record: Record, endpoint: Endpoint, txn: Transaction) -> None:
        txn.upsert(self._workloads, record.workload())
        txn.upsert(self.endpoints, endpoint)
        self.ipcache.upsert(*_entries(endpoint), txn=txn)

    def set_state(self, number: int, state: EndpointState, reason: str = "") -> Endpoint | None:
        """Changes an endpoint's state in the table, if it is there."""
        present = self.endpoints.get(number)
        if present is None:
            return None
        endpoint = attrs.evolve(present, state=state, reason=reason)
        self.endpoints.upsert(endpoint)
        return endpoint

    def fail(self, record: Record, reason: str) -> None:
        self.set_state(record.id, EndpointState.FAILED, reason)

    def withdraw(self, record: Record) -> None:
        """Takes an endpoint out of all tables at once; nothing happens if it is not in them."""
        present = self.endpoints.get(record.id)
        if present is None:
            return
        with self._state.transaction() as txn:
            txn.delete(self._workloads, present.uid)
            txn.delete(self.endpoints, present.id)
            prefixes = [host_prefix(address) for address in present.addresses]
            self.ipcache.delete(IpcacheSource.LOCAL, *prefixes, txn=txn)
            self.identities.release(present.identity, txn)

    def free(self, record: Record) -> None:
        """Forgets an endpoint and frees what it had."""
        for address in record.addresses:
            self._release(address)
        self.forget(record)
        self._ids.release(record.id)

    def _take(self, version: int, wanted: Address | None, undo: Undo) -> Address | None:
        address = self._pools.take(version, wanted)
        undo.add("free the address", lambda: self._release(address))
        return address

    def _release(self, address: Address | None) -> None:
        if address is not None:
            self._pools.release(address)

    def _labels(self, record: Record) -> tuple[str, ...]:
        return workload_labels(
            record.labels,
            record.namespace,
            namespace_labels=self._namespace_labels(record.namespace),
            service_account=record.service_account,
            cluster=self._options.cluster,
        )


def _entries(endpoint: Endpoint) -> Iterator[IpcacheEntry]:
    for address in endpoint.addresses:
        yield IpcacheEntry(
            prefix=host_prefix(address), identity=endpoint.identity, source=IpcacheSource.LOCAL
        )
