"""Keeps the node's own addresses in the ipcache, whatever interface they come and go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from typing import TYPE_CHECKING

from axoneme.core import logs
from axoneme.core.errors import KernelError
from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import IPCACHE, Address, IpcacheEntry
from axoneme.core.workloads.ipcache import Ipcache

if TYPE_CHECKING:
    from axoneme.core.net.rtnl import Rtnl

log = logs.get(__name__)

#: Who says that the node's addresses are in the ipcache; see `WriteTable.expect`.
SOURCE = "host"


class HostAddresses:
    """A service: reads the addresses of the namespace that it runs in, and again whenever the kernel tells of a change.

    :param netns: see `WorkloadOptions.host_netns`.
    :param configured: further addresses that are this node's, for example of a load balancer in front of it.
    """

    def __init__(
        self, state: State, ipcache: Ipcache, configured: Iterable[Address | str] = (), netns: str = ""
    ) -> None:
        self._table = state.writer(IPCACHE.name, IpcacheEntry)
        self._table.expect(SOURCE)
        self._ipcache = ipcache
        self._configured = {ip_address(address) for address in configured}
        self._netns = netns
        self._changed = asyncio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until it is cancelled; see `axoneme.core.records.Service`."""
        from axoneme.core.net import host
        from axoneme.core.net.rtnl import opened_in

        loop = asyncio.get_running_loop()
        with opened_in(self._netns, host.ADDRESS_GROUPS) as news, opened_in(self._netns) as rtnl:
            loop.add_reader(news.fileno(), self._changed.set)
            try:
                self._update(host.node_addresses(rtnl))
                self._table.mark_initialized(SOURCE)
                ready()
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    if _address_changed(news):
                        self._update(host.node_addresses(rtnl))
            finally:
                loop.remove_reader(news.fileno())

    def _update(self, addresses: set[Address]) -> None:
        self._ipcache.set_hosts(addresses | self._configured)


def _address_changed(news: Rtnl) -> bool:
    """Whether one of the node's addresses may have changed; also when the kernel could not tell us all of it."""
    from axoneme.core.net import host

    try:
        return host.address_changes(news)
    except KernelError as error:
        log.info("addresses are read again", reason=str(error))
        return True
