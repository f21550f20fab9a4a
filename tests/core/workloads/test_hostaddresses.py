"""The node's own addresses are in the ipcache, also those that come later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from axoneme.core.net import messages
from axoneme.core.net.model import InterfaceAddress
from axoneme.core.net.rtnl import Rtnl
from axoneme.core.state.table import State
from axoneme.core.testing.namespaces import Namespaces, within
from axoneme.core.workloads.endpoints import IPCACHE, TABLES, IpcacheEntry
from axoneme.core.workloads.hostaddresses import HostAddresses
from axoneme.core.workloads.identities import HOST, WORLD
from axoneme.core.workloads.ipcache import Ipcache

pytestmark = pytest.mark.kernel


def change(netns: str, verb: Callable[[InterfaceAddress], messages.Request], *addresses: str) -> None:
    def run() -> None:
        with Rtnl() as rtnl:
            rtnl.request(
                [verb(InterfaceAddress(1, ip, ip.max_prefixlen)) for ip in map(ip_address, addresses)]
            )

    within(netns, run)


async def test_they_come_and_go(namespaces: Namespaces) -> None:
    name = namespaces.make()
    state = State(TABLES)
    cache, table = Ipcache(state), state.table(IPCACHE.name, IpcacheEntry)
    cache.start()
    service = HostAddresses(state, cache, ["192.0.2.200"], netns=name)
    assert table.awaited == {"host"}
    change(name, messages.add, "192.0.2.1", "2001:db8::1")
    ready = asyncio.Event()

    def identity(address: str) -> int:
        entry = cache.lookup(ip_address(address))
        assert entry is not None
        return entry.identity

    async def until(address: str, wanted: int) -> None:
        watch = table.watch()
        async for _ in watch:
            if identity(address) == wanted:
                return

    async with asyncio.TaskGroup() as group:
        running = group.create_task(service.run(ready.set))
        await ready.wait()
        assert table.initialized
        assert {identity(a) for a in ("192.0.2.1", "2001:db8::1", "192.0.2.200")} == {HOST}
        assert identity("192.0.2.2") == WORLD
        change(name, messages.add, "192.0.2.2")
        await until("192.0.2.2", HOST)
        change(name, messages.delete, "192.0.2.1")
        await until("192.0.2.1", WORLD)
        assert identity("192.0.2.200") == HOST
        running.cancel()
