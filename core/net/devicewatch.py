"""Follows the node's devices: interfaces, their addresses and default routes, as the kernel tells of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from axoneme.core import logs
from axoneme.core.errors import KernelError
from axoneme.core.net.devices import DEVICES, Device, Seen, choose, missing
from axoneme.core.records import Health, Level
from axoneme.core.state.table import State

if TYPE_CHECKING:
    from axoneme.core.net.model import DefaultRoute, DeviceAddress, Link
    from axoneme.core.net.rtnl import Rtnl

log = logs.get(__name__)

#: Who says that the table is complete; see `WriteTable.expect`.
SOURCE: Final = "host"

#: Seconds that a change waits for what belongs to it: an interface comes before its addresses, and those before its routes.
DEBOUNCE: Final = 0.1
#: Seconds after which what was refused is tried again: nobody tells when a stranger's program is gone.
RETRY: Final = 30.0


class Looking:
    """The namespace as it is, kept up to date by what the kernel tells; for one thread.

    Nothing is read again that may be large without need. A change of an interface, of which each workload has one, tells all of
    it. Routes, of which a router has a million, are read when a default route came or went, or the device of one changed
    its state, since the kernel does not tell which routes went with it.

    :param news: a socket of the groups `host.DEVICE_GROUPS`.
    :param rtnl: another one, for questions.
    """

    def __init__(self, news: Rtnl, rtnl: Rtnl) -> None:
        self._news, self._rtnl = news, rtnl
        self._links: dict[int, Link] = {}
        self._addresses: list[DeviceAddress] = []
        self._defaults: list[DefaultRoute] = []
        self._outward: set[int] = set()
        #: Interfaces that went since somebody looked, in case that one of the same index has come.
        self.gone: set[int] = set()

    @property
    def seen(self) -> Seen:
        return Seen(links=dict(self._links), addresses=tuple(self._addresses), defaults=tuple(self._defaults))

    def read(self) -> None:
        """Everything anew. Raises `KernelError`."""
        from axoneme.core.net import messages

        links = map(messages.read_link, self._rtnl.dump(messages.dump_links()))
        self._links = {link.ifindex: link for link in links}
        self._read_addresses()
        self._read_defaults()

    def follow(self) -> None:
        """What the kernel told since the last call. Raises `KernelError` if it cannot be asked."""
        from axoneme.core.net import messages

        try:
            told = self._news.notifications()
        except KernelError as error:
            log.info("devices are read again", reason=str(error))
            self.gone |= self._links.keys()
            self.read()
            return
        routes = addresses = False
        for kind, message in told:
            if kind in (messages.RTM_NEWLINK, messages.RTM_DELLINK):
                routes |= self._link(kind == messages.RTM_NEWLINK, message)
            addresses |= kind in (messages.RTM_NEWADDR, messages.RTM_DELADDR)
            routes |= kind in (messages.RTM_NEWROUTE, messages.RTM_DELROUTE)
        if addresses:
            self._read_addresses()
        if routes:
            self._read_defaults()

    def _link(self, there: bool, message: bytes) -> bool:
        """Takes over what one message says; whether default routes may have gone with it, of which the kernel says nothing."""
        from axoneme.core.net import messages

        if not messages.is_about_link(message):
            return False
        link = messages.read_link(message)
        before = self._links.get(link.ifindex)
        if there:
            self._links[link.ifindex] = link
        else:
            self._links.pop(link.ifindex, None)
            self.gone.add(link.ifindex)
        changed = not there or before is None or (before.up, before.running) != (link.up, link.running)
        return changed and link.ifindex in self._outward

    def _read_addresses(self) -> None:
        from axoneme.core.net import messages

        found = map(messages.read_device_address, self._rtnl.dump(messages.dump_addresses()))
        self._addresses = [each for each in found if each is not None]

    def _read_defaults(self) -> None:
        from axoneme.core.net import messages

        self._defaults = [
            route
            for version in (4, 6)
            for message in self._routes(version)
            for route in messages.read_defaults(message)
            if route.version == version
        ]
        self._outward |= {route.ifindex for route in self._defaults}

    def _routes(self, version: int) -> list[bytes]:
        from axoneme.core.net import messages
        from axoneme.core.net.rtnl import RtnlError, is_missing

        try:
            return self._rtnl.dump(messages.dump_routes(version, main=True))
        except RtnlError as error:
            if is_missing(error):  # nobody ever made such a table
                return []
            raise


class DeviceWatch:
    """A service: keeps the table `devices`, and gives the devices that are used to the datapath.

    :param wanted: `datapath.devices`.
    :param use: takes the devices that are used, and attaches and detaches what differs.
    :param refused: what of it was not possible, by place: that is tried again.
    :param netns: the namespace that is followed; empty: the one that it runs in.
    """

    def __init__(
        self,
        state: State,
        wanted: Collection[str],
        use: Callable[[Sequence[Device]], None],
        refused: Callable[[], Mapping[str, str]] = dict,
        netns: str = "",
    ) -> None:
        self._table = state.writer(DEVICES.name, Device)
        self._table.expect(SOURCE)
        self._state = state
        self._wanted = wanted
        self._use = use
        self._refused = refused
        self._netns = netns
        self._changed = asyncio.Event()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until it is cancelled; see `axoneme.core.records.Service`."""
        from axoneme.core.net import host
        from axoneme.core.net.rtnl import opened_in

        loop = asyncio.get_running_loop()
        with opened_in(self._netns, host.DEVICE_GROUPS) as news, opened_in(self._netns) as rtnl:
            news.only_default_routes()
            loop.add_reader(news.fileno(), self._changed.set)
            try:
                looking = Looking(news, rtnl)
                looking.read()
                self._apply(looking)
                self._table.mark_initialized(SOURCE)
                ready()
                while True:
                    await self._wait()
                    looking.follow()
                    self._apply(looking)
            finally:
                loop.remove_reader(news.fileno())

    async def _wait(self) -> None:
        """Until something changed, and a moment for what belongs to it; or until something refused is worth another try."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RETRY if self._refused() else None):
                await self._changed.wait()
            await asyncio.sleep(DEBOUNCE)
        self._changed.clear()

    def _apply(self, looking: Looking) -> None:
        devices = choose(self._wanted, looking.seen)
        before = {row.ifindex: row for row in self._table}
        used = [device for device in devices if device.used]
        again = any(device.ifindex in looking.gone for device in used)
        looking.gone.clear()
        now = {device.ifindex: device for device in devices}
        if now == before and not again and not self._refused():
            return
        _log_changes(before, now)
        # Programs first: whoever reads the table finds them there.
        self._use(used)
        with self._state.transaction() as transaction:
            for index in before.keys() - now.keys():
                transaction.delete(self._table, index)
            for device in devices:
                transaction.upsert(self._table, device)


def health(wanted: Collection[str], devices: Collection[Device], refused: Mapping[str, str]) -> Health:
    """Degraded when a device that is named is missing, or the kernel or a stranger refuses a program.

    That no device leads out of this node is a state of the node, and no fault.
    """
    said = [f"there is no device {name}" for name in missing(wanted, devices)]
    said += [f"{place}: {reason}" for place, reason in sorted(refused.items())]
    if said:
        return Health(level=Level.DEGRADED, reason="; ".join(said))
    if wanted and not any(device.used for device in devices):
        return Health(level=Level.OK, reason="no device leads out of this node")
    return Health(level=Level.OK)


def _log_changes(before: dict[int, Device], now: dict[int, Device]) -> None:
    for index in before.keys() | now.keys():
        old, new = before.get(index), now.get(index)
        if new is not None and new.used and not (old and old.used):
            log.info("device used", device=new.name, why=new.why)
        elif old is not None and old.used and not (new and new.used):
            log.info("device not used any more", device=old.name, why=new.why if new else "it is gone")
