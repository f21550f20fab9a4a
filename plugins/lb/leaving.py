"""Under which address workloads leave by which device, and where to they keep their own: the two maps of masquerading."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from axoneme.core import logs
from axoneme.core.datapath.endpoint_maps import words
from axoneme.core.datapath.placement import device_indexes
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Health, Level
from axoneme.core.workloads.endpoints import IPCACHE, IpcacheEntry, IpcacheSource

if TYPE_CHECKING:
    from axoneme.core.datapath.maps import Map
    from axoneme.core.net.model import Address, InterfaceAddress, Network

log = logs.get(__name__)

FAMILIES = (4, 6)
#: `NO_MAPPING_FOR_NAT_MASQUERADE` (core/datapath/reasons.py).
NO_PORT = 167
#: Seconds between two marks of the counter.
WINDOW = 60.0


class Refused:
    """How many connections lately found all ports taken, from the counter of that reason for a drop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[float, int] | None = None
        self._before = 0

    def recent(self, counters: Map) -> int:
        """Packets since the mark before the last one; marks are `WINDOW` seconds apart."""
        now, total = self._clock(), sum(_count(counters, direction) for direction in (0, 1))
        if self._seen is None:
            self._seen, self._before = (now, total), total
        elif now - self._seen[0] >= WINDOW:
            self._before, self._seen = self._seen[1], (now, total)
        return total - self._before


def _count(counters: Map, direction: int) -> int:
    """The programs' counters have a slot per reason and direction, and a value per CPU."""
    found = counters.lookup(NO_PORT * 2 + direction)
    return 0 if found is None else int(found["packets"].sum())


class Leaving:
    """A service: keeps `lb_addresses…` and `lb_native…` as the node's devices and the configuration are.

    The node's addresses in the ipcache tell when to look at the devices again; which device has which is asked of the kernel.
    """

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._given: dict[int, dict[int, Address]] = {}
        self._refused = Refused()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until it is cancelled; see `axoneme.core.records.Service`."""
        table = self._context.state.table(IPCACHE.name, IpcacheEntry)
        self._write_native()
        watch = table.watch()
        try:
            async for batch in watch:
                if batch.reset or any(_is_host(change.row) for change in batch.changes):
                    await asyncio.to_thread(self._write_addresses)
                if batch.initialized:
                    ready()
        finally:
            watch.close()

    def _write_native(self) -> None:
        for family in FAMILIES:
            prefixes = [prefix for prefix in self._native() if prefix.version == family]
            rows = [
                {"length": each.prefixlen, "address": {"a": words(each.network_address)}} for each in prefixes
            ]
            self._reconcile(f"lb_native{family}", rows, [1] * len(rows))

    def _native(self) -> set[Network]:
        """The workloads' own addresses are never hidden from each other."""
        pools = self._context.settings.pools
        return {
            *self._context.config.native,
            *(pool for pool in (pools.ipv4, pools.ipv6) if pool is not None),
        }

    def _write_addresses(self) -> None:
        devices = device_indexes(self._context.settings.datapath).values()
        self._given = {family: addresses_of(devices, _node_addresses(), family) for family in FAMILIES}
        for family, given in self._given.items():
            values = [{"a": words(address)} for address in given.values()]
            self._reconcile(f"lb_addresses{family}", list(given), values)

    def _reconcile(self, name: str, keys: list[Any], values: list[Any]) -> None:
        diff = self._context.map(name).reconcile(keys, values)
        if diff.total:
            log.info("masquerading_changed", map=name, entries=len(keys))
            self._context.raise_revision()

    def health(self) -> Health:
        settings = self._context.settings.datapath
        if not self._context.config.masquerade:
            return Health(level=Level.OK)
        if not settings.devices:
            reason = "workloads reach the world only where there is a way back to them: name the devices in datapath.devices"
            return Health(level=Level.OK, reason=reason)
        without = [
            name
            for name, index in device_indexes(settings).items()
            if not any(index in given for given in self._given.values())
        ]
        if without:
            return Health(level=Level.DEGRADED, reason=f"no address to leave by: {', '.join(without)}")
        if refused := self._refused.recent(self._context.map("counters")):
            reason = f"{refused} new connections found no free port in the last minute or so: too many go to one place"
            return Health(level=Level.DEGRADED, reason=reason)
        return Health(level=Level.OK)


_running: WeakValueDictionary[int, Leaving] = WeakValueDictionary()


def of(context: PluginContext) -> Leaving:
    """The one object of a context: the service and the health check are about the same."""
    found = _running.get(id(context))
    if found is None or found._context is not context:
        found = _running[id(context)] = Leaving(context)
    return found


def addresses_of(
    devices: Iterable[int], addresses: Iterable[InterfaceAddress], family: int
) -> dict[int, Address]:
    """The first global address of each device, in the kernel's order, by interface index."""
    wanted, given = set(devices), dict[int, "Address"]()
    for each in addresses:
        if each.ifindex in wanted and each.address.version == family and each.ifindex not in given:
            given[each.ifindex] = each.address
    return given


def _is_host(row: IpcacheEntry) -> bool:
    return row.source is IpcacheSource.HOST


def _node_addresses() -> list[InterfaceAddress]:
    from axoneme.core.net import host
    from axoneme.core.net.rtnl import Rtnl

    with Rtnl(0) as rtnl:
        return host.interface_addresses(rtnl)
