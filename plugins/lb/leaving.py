"""Under which address workloads leave by which device, and where to they keep their own: the two maps of masquerading."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from axoneme.core import logs
from axoneme.core.datapath.endpoint_maps import words
from axoneme.core.net.devices import DEVICES, Device
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Health, Level

if TYPE_CHECKING:
    from axoneme.core.datapath.maps import Map
    from axoneme.core.net.model import Address, Network
    from axoneme.core.state.table import Table

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
    """A service: keeps `lb_addresses…` and `lb_native…` as the node's devices (table `devices`) and the configuration are."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._given: dict[int, dict[int, Address]] = {}
        self._refused = Refused()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until it is cancelled; see `axoneme.core.records.Service`."""
        self._write_native()
        watch = self._table.watch()
        try:
            async for batch in watch:
                if batch.initialized:
                    self._write_addresses()
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

    @property
    def _table(self) -> Table[Device]:
        return self._context.state.table(DEVICES.name, Device)

    def _used(self) -> list[Device]:
        return [device for device in self._table if device.used]

    def _write_addresses(self) -> None:
        for family in FAMILIES:
            given = addresses_of(self._used(), self._present(family), family)
            values = [{"a": words(address)} for address in given.values()]
            self._reconcile(f"lb_addresses{family}", list(given), values)
            self._given[family] = given

    def _present(self, family: int) -> dict[int, Address]:
        """Under which addresses connections leave now, by interface index."""
        keys, values = self._context.map(f"lb_addresses{family}").items()
        return {int(key): ip_address(value["a"].tobytes()) for key, value in zip(keys, values, strict=True)}

    def _reconcile(self, name: str, keys: list[Any], values: list[Any]) -> None:
        diff = self._context.map(name).reconcile(keys, values)
        if diff.total:
            log.info("masquerading_changed", map=name, entries=len(keys))
            self._context.raise_revision()

    def health(self) -> Health:
        settings = self._context.settings.datapath
        if not self._context.config.masquerade:
            return Health(level=Level.OK)
        devices = self._used()
        if not devices:
            why = "none is to be used (datapath.devices)" if not settings.devices else "none leads there"
            reason = f"workloads reach the world by no device of ours, under their own addresses: {why}"
            return Health(level=Level.OK, reason=reason)
        without = [
            device.name
            for device in devices
            if not any(device.ifindex in given for given in self._given.values())
        ]
        if without:
            return Health(level=Level.DEGRADED, reason=f"no address to leave by: {', '.join(without)}")
        if refused := self._refused.recent(self._context.map("counters")):
            reason = (
                f"{refused} new connections found no free port in the last minute or so: the node has those from 1024 "
                "to 29999 towards each port of a server"
            )
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
    devices: Iterable[Device], present: Mapping[int, Address], family: int
) -> dict[int, Address]:
    """The address under which connections leave by each device, by interface index.

    The one that it has already, as long as it is there: connections have it. Otherwise the best one.

    :param present: those that are in use.
    """
    given = dict[int, "Address"]()
    for device in devices:
        own = [address for address in device.addresses if address.version == family]
        if own:
            kept = present.get(device.ifindex)
            given[device.ifindex] = kept if kept in own else own[0]
    return given
