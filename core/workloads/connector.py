"""The asynchronous side of `WorkloadNetwork`: one thread that speaks to the kernel, and steps that are never left half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import attrs

from axoneme.core.workloads.hub import hub_of
from axoneme.core.workloads.records import Record
from axoneme.core.workloads.wiring import Wiring, wiring_of
from axoneme.core.workloads.wishes import WorkloadOptions

if TYPE_CHECKING:
    from axoneme.core.net.model import Link
    from axoneme.core.workloads.network import Seen, WorkloadNetwork

P = ParamSpec("P")
T = TypeVar("T")


class Connector:
    """Connects endpoints to the network as their records say."""

    def __init__(self, options: WorkloadOptions) -> None:
        self.agent = options.agent
        self._options = options
        self._mtu = options.mtu
        self._thread: ThreadPoolExecutor | None = None
        self._network: WorkloadNetwork | None = None

    async def network(self) -> WorkloadNetwork:
        """The network, opened at its first use."""
        if self._network is None:
            from axoneme.core.workloads.network import WorkloadNetwork

            self._network = await self.call(WorkloadNetwork)
            self._mtu = self._mtu or await self.call(self._network.default_mtu)
        return self._network

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Calls a function in the thread. When the caller is cancelled, it is so only after the function is through.

        So what the function has made is known when the time comes to undo it.
        """
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "axoneme-net", self._enter_host)
        future = asyncio.get_running_loop().run_in_executor(self._thread, lambda: function(*args, **kwargs))
        cancelled: asyncio.CancelledError | None = None
        while not future.done():
            try:
                await asyncio.wait((future,))
            except asyncio.CancelledError as error:
                cancelled = error
        result = future.result()
        if cancelled is not None:
            raise cancelled
        return result

    def _enter_host(self) -> None:
        """In the thread, before everything else. Threads that it starts begin where it is."""
        from axoneme.core.net.namespaces import stay_in

        if self._options.host_netns:
            stay_in(self._options.host_netns)

    async def close(self) -> None:
        if self._network is not None:
            network, self._network = self._network, None
            await self.call(network.close)
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    async def is_free(self, ifname: str) -> bool:
        """Whether there is no interface of this name on the host."""
        return await self.call((await self.network()).find_link, ifname) is None

    async def make_namespace(self, record: Record) -> None:
        network = await self.network()
        try:
            await self.call(network.make_namespace, record.netns.rpartition("/")[2])
        except asyncio.CancelledError:  # it was made all the same, and the caller does not know
            await self.call(network.delete_namespace, record.netns)
            raise

    async def delete_namespace(self, record: Record) -> None:
        await self.call((await self.network()).delete_namespace, record.netns)

    async def connect(self, record: Record, check: Callable[[tuple[int, int]], None]) -> Record:
        """Makes an endpoint's interface, not up yet; returns the record with what is known of it now.

        :param check: gets the identity of the namespace before anything is made, and raises if that should not be.
        """
        from axoneme.core.workloads.network import open_workload_namespace

        network = await self.network()
        netns = await self.call(open_workload_namespace, record.netns)
        try:
            check(netns.identity)
            try:
                link = await self.call(network.connect, self._wiring(record), netns)
            except asyncio.CancelledError:  # as above
                await self._forget_link(record)
                raise
        finally:
            netns.close()
        device, inode = netns.identity
        return attrs.evolve(
            record, ifindex=link.ifindex, peer=link.peer, netns_device=device, netns_inode=inode
        )

    async def _forget_link(self, record: Record) -> None:
        made = await self.own_link(record)
        if made is not None:
            await self.disconnect(record, made.ifindex)

    async def activate(self, record: Record) -> None:
        """Brings an endpoint's interface up, with all that belongs to it; traffic can flow then."""
        from axoneme.core.net.model import Link
        from axoneme.core.workloads.network import open_workload_namespace

        network = await self.network()
        link = Link(ifindex=record.ifindex, name=record.ifname, peer=record.peer)

        def activate() -> None:
            netns = open_workload_namespace(record.netns)
            try:
                network.activate(self._wiring(record), link, netns)
            finally:
                netns.close()

        await self.call(activate)

    async def hub(self) -> int:
        """The index of the hub, made if there is none."""
        network = await self.network()
        return await self.call(network.ensure_hub, hub_of(self._options, self._mtu))

    async def disconnect(self, record: Record, ifindex: int) -> None:
        """Removes an endpoint's routes and interface."""
        await self.call((await self.network()).disconnect, self._wiring(record), ifindex)

    async def prune_routes(self, records: Iterable[Record], seen: Seen) -> list[str]:
        """See `WorkloadNetwork.prune_routes`."""
        wanted = [self._wiring(record) for record in records]
        return await self.call((await self.network()).prune_routes, wanted, seen)

    async def delete_link(self, ifindex: int) -> None:
        await self.call((await self.network()).delete_link, ifindex)

    async def own_link(self, record: Record) -> Link | None:
        """An endpoint's interface on the host, if it is there and bears its mark."""
        link = await self.call((await self.network()).find_link, record.ifname)
        return link if link is not None and link.alias == self._wiring(record).alias else None

    async def look(self) -> Seen:
        return await self.call((await self.network()).look)

    async def repair(self, record: Record, link: Link, seen: Seen) -> list[str]:
        """See `WorkloadNetwork.repair`."""
        from axoneme.core.workloads.network import open_workload_namespace

        network = await self.network()

        def repair() -> list[str]:
            netns = open_workload_namespace(record.netns)
            try:
                return network.repair(self._wiring(record), link, netns, seen)
            finally:
                netns.close()

        return await self.call(repair)

    def _wiring(self, record: Record) -> Wiring:
        return wiring_of(record, self.agent, self._mtu)
