"""The table of devices follows the kernel: interfaces, addresses and default routes that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import AsyncIterator, Callable, Collection, Sequence

import pytest
from attrs import field, mutable

from axoneme.core.net import host
from axoneme.core.net.devices import DEVICES, Device
from axoneme.core.net.devicewatch import DeviceWatch, Looking, health
from axoneme.core.net.rtnl import Rtnl, opened_in
from axoneme.core.records import Level
from axoneme.core.state.table import State, Table
from axoneme.core.testing.namespaces import Namespaces

pytestmark = pytest.mark.kernel


@mutable
class Watched:
    """A namespace whose devices somebody watches."""

    netns: str
    table: Table[Device]
    uses: list[list[str]] = field(factory=list)

    @property
    def used(self) -> list[str]:
        return sorted(device.name for device in self.table if device.used)

    async def until(self, holds: Callable[[], bool]) -> None:
        watch = self.table.watch()
        try:
            async with asyncio.timeout(10):
                async for _ in watch:
                    if holds():
                        return
        finally:
            watch.close()


@contextlib.asynccontextmanager
async def watched(netns: str, wanted: Collection[str] = ("auto",)) -> AsyncIterator[Watched]:
    state, ready = State([DEVICES]), asyncio.Event()
    made = Watched(netns, state.table(DEVICES.name, Device))

    def use(devices: Sequence[Device]) -> None:
        made.uses.append(sorted(device.name for device in devices))

    service = DeviceWatch(state, wanted, use, netns=netns)
    async with asyncio.TaskGroup() as group:
        running = group.create_task(service.run(ready.set))
        await ready.wait()
        assert made.table.initialized
        yield made
        running.cancel()


async def test_devices_come_and_go(namespaces: Namespaces) -> None:
    name = namespaces.make()
    async with watched(name) as seen:
        assert [device.name for device in seen.table] == ["lo"]
        assert seen.uses == [[]]
        pair(name, "wan")
        ip(name, "addr add 192.0.2.2/24 dev wan")
        await seen.until(lambda: any(device.addresses for device in seen.table))
        assert seen.used == []
        ip(name, "route add default via 192.0.2.1")
        await seen.until(lambda: seen.used == ["wan"])
        assert seen.uses[-1] == ["wan"]
        # Down, the kernel forgets the route and does not tell of that.
        ip(name, "link set wan down")
        await seen.until(lambda: seen.used == [])
        ip(name, "link set wan up")
        await seen.until(lambda: any("without" in device.why for device in seen.table))
        # Several next hops; the other device has none of its own.
        pair(name, "two")
        ip(name, "addr add 198.51.100.2/24 dev two")
        ip(name, "route add default nexthop via 192.0.2.1 nexthop via 198.51.100.1")
        await seen.until(lambda: seen.used == ["two", "wan"])
        ip(name, "link set two name other")
        await seen.until(lambda: seen.used == ["other", "wan"])
        # One next hop dies with its device, and lives again with it, of which the kernel does not tell either.
        ip(name, "link set other down")
        await seen.until(lambda: seen.used == ["wan"])
        ip(name, "link set other up")
        await seen.until(lambda: seen.used == ["other", "wan"])
        # With a device goes the whole route that had a next hop there.
        ip(name, "link del wan")
        await seen.until(lambda: seen.used == [])
        assert all(device.name != "wan" for device in seen.table)


async def test_one_that_goes_and_comes_between_two_looks_is_another_one(namespaces: Namespaces) -> None:
    """Its programs went with it, though every fact about it is the same."""
    name = namespaces.make()
    pair(name, "wan")
    async with watched(name, ["wan"]) as seen:
        before = len(seen.uses)
        ip(name, "link del wan")
        pair(name, "wan")
        async with asyncio.timeout(10):
            while len(seen.uses) == before:  # noqa: ASYNC110 -- the table need not change
                await asyncio.sleep(0.01)
        assert seen.uses[-1] == ["wan"]


async def test_what_is_named_and_missing_is_said(namespaces: Namespaces) -> None:
    name = namespaces.make()
    async with watched(name, ["eth7", "wan*"]) as seen:
        rows = seen.table.all()
        said = health(["eth7", "wan*"], rows, {})
        assert (said.level, said.reason) == (Level.DEGRADED, "there is no device eth7")
        assert health(["auto"], rows, {}).level is Level.OK
        assert "no device leads out" in health(["auto"], rows, {}).reason
        assert health([], rows, {}).reason == ""
        assert health(["auto"], rows, {"XDP of a": "busy"}).level is Level.DEGRADED


def test_of_routes_only_the_default_ones_are_told_of(namespaces: Namespaces) -> None:
    name = namespaces.make()
    with opened_in(name, host.DEVICE_GROUPS) as news, opened_in(name) as rtnl:
        news.only_default_routes()
        pair(name, "wan")
        looking = Looking(news, rtnl)
        looking.follow()
        assert "wan" in {link.name for link in looking.seen.links.values()}
        for destination in ("198.51.100.0/24", "2001:db8::/32"):
            ip(name, f"route add {destination} dev wan")
        assert routes_told(news) == []
        for destination in ("0.0.0.0/0", "::/0"):
            ip(name, f"route add {destination} dev wan")
        assert len(routes_told(news)) == 2
        looking.read()
        assert {route.version for route in looking.seen.defaults} == {4, 6}


def routes_told(news: Rtnl) -> list[int]:
    return [kind for kind, _ in news.notifications() if kind in (24, 25)]


def ip(netns: str, words: str) -> None:
    family = ["-6"] if "::" in words else []
    subprocess.run(["ip", "-n", netns, *family, *words.split()], check=True)


def pair(netns: str, name: str) -> None:
    """A device that is up, with the same index and address each time it is made."""
    index = {"wan": 77, "two": 78}[name]
    ip(netns, f"link add {name} index {index} address 02:00:00:00:00:77 type veth peer name {name}-end")
    ip(netns, f"link set {name}-end up")
    ip(netns, f"link set {name} up")
