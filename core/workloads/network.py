"""Makes, compares and removes workloads' networks in the kernel. Synchronous: `Workloads` calls it in a thread.

Every function either does the whole of what it says or leaves nothing behind. The number of requests for one workload
does not depend on how many there are.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from attrs import frozen

from axoneme.core import logs
from axoneme.core.errors import AxonemeError, KernelError
from axoneme.core.net import messages, namespaces, sysctl
from axoneme.core.net.messages import Request
from axoneme.core.net.model import Address, Fact, InterfaceAddress, Link, Neighbour, Route, Veth
from axoneme.core.net.namespaces import Namespace
from axoneme.core.net.rtnl import ADDRESS6_GROUP, LINK_GROUP, Rtnl, RtnlError, is_missing, until
from axoneme.core.workloads.hub import Hub
from axoneme.core.workloads.wiring import INSIDE, Wiring

log = logs.get(__name__)

ETHERNET_MTU = 1500

_LOOPBACK = 1  # the index of `lo` in every namespace


class NetworkError(KernelError):
    """A workload's network that cannot be made."""


class ForeignLinkError(NetworkError):
    """The name of a host-side interface is somebody else's."""


class LostInterfaceError(NetworkError):
    """The workload's side of its interface is not where it was."""


@frozen
class Seen:
    """What is on the host: looked at once for all workloads."""

    links: Mapping[str, Link]
    facts: frozenset[Fact]


class WorkloadNetwork:
    """The host's side of all workloads' networks. One thread at a time."""

    def __init__(self) -> None:
        self._rtnl = Rtnl()
        self._hub = 0

    def close(self) -> None:
        self._rtnl.close()

    def make_namespace(self, name: str) -> str:
        """A namespace of our own with its loopback up; returns its path. Raises `NamespaceError` when there is one."""
        return namespaces.create(name, _prepare_namespace)

    def delete_namespace(self, path: str) -> None:
        """Nothing happens when there is none."""
        namespaces.delete(path)

    def connect(self, wiring: Wiring, netns: Namespace) -> Link:
        """Makes the pair, with both sides down. Returns the host's side.

        Raises `ForeignLinkError` when there is an interface of this name, `NetworkError` when the namespace has one.
        """
        link = self._create_pair(wiring, netns)
        try:
            self._rtnl.request([messages.set_alias(link.ifindex, wiring.alias)])
        except BaseException:
            self._abandon(link.ifindex)
            raise
        return link

    def ensure_hub(self, hub: Hub) -> int:
        """Makes the hub, or adopts and completes the one that is there; returns its index.

        Raises `ForeignLinkError` when there is an interface of this name that is not ours.
        """
        link = self.find_link(hub.name)
        if link is None:
            link = self._create_hub(hub)
        elif link.alias != hub.alias:
            raise ForeignLinkError(
                f"there is an interface {hub.name} already", hint="do two agents share a link prefix?"
            )
        there = _facts(self._rtnl)
        _set_sysctls(hub.sysctls())
        requests = [messages.set_up(link.peer), messages.set_up(link.ifindex, resolves=False)]
        requests += [_making(fact) for fact in hub.facts(link.ifindex) if fact not in there]
        self._rtnl.request(requests)
        self._hub = link.ifindex
        return link.ifindex

    def _create_hub(self, hub: Hub) -> Link:
        veth = Veth(
            name=hub.name,
            mac=hub.mac,
            peer_name=hub.peer,
            peer_mac=hub.peer_mac,
            peer_netns=None,
            mtu=hub.mtu,
        )
        replies, errors = self._rtnl.attempt([messages.create_veth(veth), messages.get_link(name=hub.name)])
        if errors[0] is not None:
            raise errors[0]
        link = messages.read_link(replies[1][0])
        self._rtnl.request([messages.set_alias(link.ifindex, hub.alias)])
        return link

    def prune_routes(self, wanted: Iterable[Wiring], seen: Seen) -> list[str]:
        """Removes routes through the hub that no workload has any more; returns them, in words."""
        known = {fact for wiring in wanted for fact in wiring.outside(self._hub)}
        # The kernel has a route of its own to each of the hub's addresses.
        own = {
            fact for fact in seen.facts if isinstance(fact, InterfaceAddress) and fact.ifindex == self._hub
        }
        known |= {Route(self._hub, ip_network(fact.address)) for fact in own}
        stale = [
            fact
            for fact in seen.facts
            if isinstance(fact, Route) and fact.ifindex == self._hub and fact not in known
            and fact.destination.prefixlen == fact.destination.max_prefixlen
        ]  # fmt: skip
        self._rtnl.attempt([messages.delete(fact) for fact in stale])
        return [str(fact.destination) for fact in stale]

    def disconnect(self, wiring: Wiring, ifindex: int) -> None:
        """Removes a workload's routes and its pair (index 0: there is none). Nothing happens when they are gone."""
        _, errors = self._rtnl.attempt([messages.delete(fact) for fact in wiring.outside(self._hub)])
        if ifindex:
            self.delete_link(ifindex)
        for error in errors:
            if error is not None and not is_missing(error):
                raise error

    def activate(self, wiring: Wiring, link: Link, netns: Namespace) -> None:
        """Brings both sides up with all that belongs to them, and waits until they can send and receive.

        Raises `NetworkError` when another route is in the way: the host's, or one that the namespace has of its own. What
        was made until then goes with the link.
        """
        self._activate_outside(wiring, link.ifindex)
        try:
            netns.visit(lambda: _activate_inside(wiring, link.peer))
        except RtnlError as error:
            if error.errno != errno.EEXIST:
                raise
            raise NetworkError(
                f"network namespace {netns.path} has a network of its own: {error.message}",
                hint="give a namespace without a default route",
            ) from error
        if not until(lambda: _is_running(self._rtnl, link.ifindex), LINK_GROUP):
            log.warning("link does not run yet", link=wiring.ifname)

    def _activate_outside(self, wiring: Wiring, ifindex: int) -> None:
        _set_sysctls(wiring.outside_sysctls())
        try:
            self._rtnl.request([messages.set_up(ifindex), *map(_making, wiring.outside(self._hub))])
        except RtnlError as error:
            if error.errno != errno.EEXIST:
                raise
            raise NetworkError(
                f"the host has another route already: {error.message}",
                hint="does another agent use the same pool?",
            ) from error

    def delete_link(self, ifindex: int) -> None:
        """Removes a pair. Nothing happens when there is none."""
        try:
            self._rtnl.request([messages.delete_link(ifindex)])
        except RtnlError as error:
            if not is_missing(error):
                raise

    def find_link(self, name: str) -> Link | None:
        try:
            return messages.read_link(self._rtnl.request([messages.get_link(name=name)])[0][0])
        except RtnlError as error:
            if is_missing(error):
                return None
            raise

    def default_mtu(self) -> int:
        """The MTU towards the world: of the interface with the default route, the smaller one if the families differ."""
        facts = [
            fact
            for version in (4, 6)
            for fact in map(messages.read_route, self._rtnl.dump(messages.dump_routes(version)))
        ]
        devices = {fact.ifindex for fact in facts if fact is not None and fact.destination.prefixlen == 0}
        replies, _ = self._rtnl.attempt([messages.get_link(ifindex=ifindex) for ifindex in sorted(devices)])
        return min((messages.read_link(reply[0]).mtu for reply in replies if reply), default=ETHERNET_MTU)

    def look(self) -> Seen:
        """All interfaces, routes, permanent neighbours and addresses of the host."""
        links = map(messages.read_link, self._rtnl.dump(messages.dump_links()))
        return Seen({link.name: link for link in links}, frozenset(_facts(self._rtnl)))

    def repair(self, wiring: Wiring, link: Link, netns: Namespace, seen: Seen) -> list[str]:
        """Adds what is missing of a connected workload's network; returns that, in words. Touches nothing else.

        Raises `LostInterfaceError` when the workload's side is not there any more.
        """
        missing = netns.visit(lambda: _repair_inside(wiring, link.peer))
        requests = [] if link.up else [messages.set_up(link.ifindex)]
        requests += [_making(fact) for fact in wiring.outside(self._hub) if fact not in seen.facts]
        if requests:
            _set_sysctls(wiring.outside_sysctls())
            self._rtnl.request(requests)
        return missing + [request.what for request in requests]

    def _abandon(self, ifindex: int) -> None:
        """Removes a pair after a failure, whose error is the one to be seen."""
        try:
            self.delete_link(ifindex)
        except AxonemeError as error:
            log.error("half-made link could not be removed", error=error, ifindex=ifindex)

    def _create_pair(self, wiring: Wiring, netns: Namespace) -> Link:
        veth = Veth(
            name=wiring.ifname,
            mac=wiring.node_mac,
            peer_name=INSIDE,
            peer_mac=wiring.mac,
            peer_netns=netns.descriptor,
            mtu=wiring.mtu,
        )
        # Asking by name is harmless when the first request failed; anything else would reach a stranger's interface.
        requests = [messages.create_veth(veth), messages.get_link(name=wiring.ifname)]
        replies, (error, _) = self._rtnl.attempt(requests)
        if error is None:
            return messages.read_link(replies[1][0])
        if error.errno != errno.EEXIST:
            raise error
        if replies[1]:
            raise ForeignLinkError(f"there is an interface {wiring.ifname} already") from error
        raise NetworkError(
            f"network namespace {netns.path} has an interface {INSIDE} already",
            hint="give a namespace without one",
        ) from error


def open_workload_namespace(path: str) -> Namespace:
    """The namespace at a path. Raises `NamespaceError`, and `NetworkError` when it is the host's own."""
    namespace = namespaces.open_namespace(path)
    if namespace.identity == namespaces.host_identity():
        namespace.close()
        raise NetworkError(
            f"{path} is the host's own network namespace", hint="a workload needs one of its own"
        )
    return namespace


def _prepare_namespace() -> None:
    with Rtnl() as rtnl:
        rtnl.request([messages.set_up(_LOOPBACK)])
    if sysctl.has_ipv6():
        # For interfaces that the workload makes itself; ours is set on its own in any case.
        _set_sysctls({f"net/ipv6/conf/default/{key}": 0 for key in ("accept_dad", "accept_ra")})


def _activate_inside(wiring: Wiring, ifindex: int) -> None:
    """In the workload's namespace: its interface, with everything."""
    _set_sysctls(wiring.inside_sysctls())
    with Rtnl() as rtnl:
        facts = wiring.inside(ifindex)
        rtnl.request([messages.set_up(ifindex), *map(_making, facts)])
        # The kernel hands both to workers of its own: sending after the link came up, receiving at an IPv6 address.
        ready = until(lambda: _is_running(rtnl, ifindex), LINK_GROUP)
        ready &= until(lambda: _are_own(rtnl, wiring.addresses), ADDRESS6_GROUP)
        if not ready:
            log.warning("workload's interface does not run yet", link=wiring.ifname)


def _is_running(rtnl: Rtnl, ifindex: int) -> bool:
    """Since Linux 6.8 the question alone brings it about, if the link is up on both sides."""
    return messages.read_link(rtnl.request([messages.get_link(ifindex=ifindex)])[0][0]).running


def _are_own(rtnl: Rtnl, addresses: Iterable[Address]) -> bool:
    replies, _ = rtnl.attempt([messages.get_route(address) for address in addresses])
    return all(any(map(messages.leads_here, reply)) for reply in replies)


def _repair_inside(wiring: Wiring, ifindex: int) -> list[str]:
    with Rtnl() as rtnl:
        link = _own_link(rtnl, wiring, ifindex)
        there = _facts(rtnl)
        requests = [] if link.up else [messages.set_up(ifindex)]
        requests += [_making(fact) for fact in wiring.inside(ifindex) if fact not in there]
        if requests:
            rtnl.request(requests)
        return [request.what for request in requests]


def _own_link(rtnl: Rtnl, wiring: Wiring, ifindex: int) -> Link:
    try:
        link = messages.read_link(rtnl.request([messages.get_link(ifindex=ifindex)])[0][0])
    except RtnlError as error:
        raise LostInterfaceError("its interface is not in its namespace any more") from error
    if link.mac != wiring.mac:
        raise LostInterfaceError(
            f"its interface is not in its namespace any more: {link.name} is another one"
        )
    return link


def _facts(rtnl: Rtnl) -> set[Fact]:
    """The addresses, permanent neighbours and routes of the namespace that the socket is in."""
    found: set[Fact | None] = set(map(messages.read_address, rtnl.dump(messages.dump_addresses())))
    found |= set(map(messages.read_neighbour, rtnl.dump(messages.dump_neighbours())))
    for version in (4, 6):
        found |= set(map(messages.read_route, rtnl.dump(messages.dump_routes(version))))
    return {fact for fact in found if fact is not None}


def _making(fact: Fact) -> Request:
    """Routes of others are an error; a neighbour that the kernel learnt by itself meanwhile is not."""
    return messages.replace(fact) if isinstance(fact, Neighbour) else messages.add(fact)


def _set_sysctls(wanted: Mapping[str, int]) -> None:
    for name, value in wanted.items():
        sysctl.write(name, value)


__all__ = [
    "ForeignLinkError",
    "LostInterfaceError",
    "NetworkError",
    "Seen",
    "WorkloadNetwork",
    "open_workload_namespace",
]
