"""The node itself: made to forward packets, and asked for its addresses."""

from __future__ import annotations

from axoneme.core.net import messages, sysctl
from axoneme.core.net.model import SCOPE_GLOBAL, Address, InterfaceAddress
from axoneme.core.net.rtnl import Rtnl

#: Multicast groups for `Rtnl`: addresses that come and go (RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR).
ADDRESS_GROUPS = 0x10 | 0x100
#: The same, and interfaces and routes (RTMGRP_LINK, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE).
DEVICE_GROUPS = ADDRESS_GROUPS | 0x1 | 0x40 | 0x400

_RP_FILTER = "net/ipv4/conf/all/rp_filter"
_FORWARDING = ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding")

#: All that `prepare_host` may change.
SYSCTLS = (*_FORWARDING, _RP_FILTER)


def prepare_host() -> list[str]:
    """Turns forwarding on for both families; returns the sysctls that had to be changed.

    A strict reverse path filter for all interfaces becomes a loose one (2, RFC 3704 2.4): what workloads send comes in by
    another interface than the one by which the host reaches them.

    They stay as they are when the agent ends: traffic of the workloads flows on without it, and others may rely on them by
    then.
    """
    wanted = _FORWARDING if sysctl.has_ipv6() else _FORWARDING[:1]
    changed = [name for name in wanted if sysctl.ensure(name, 1)]
    if sysctl.read(_RP_FILTER) == "1" and sysctl.ensure(_RP_FILTER, 2):
        changed.append(_RP_FILTER)
    return changed


def node_addresses(rtnl: Rtnl) -> set[Address]:
    """The addresses under which others know this node: of global scope, on any interface."""
    return {fact.address for fact in interface_addresses(rtnl)}


def interface_addresses(rtnl: Rtnl) -> list[InterfaceAddress]:
    """The same with their interfaces, in the kernel's order: an interface's primary address comes first."""
    facts = map(messages.read_address, rtnl.dump(messages.dump_addresses()))
    return [fact for fact in facts if fact.scope == SCOPE_GLOBAL]


def address_changes(rtnl: Rtnl) -> bool:
    """Whether a node's own address may have come or gone since the last call. See `Rtnl.notifications` for errors."""
    return any(
        messages.read_address(message).scope == SCOPE_GLOBAL
        for kind, message in rtnl.notifications()
        if kind in (messages.RTM_NEWADDR, messages.RTM_DELADDR)
    )
