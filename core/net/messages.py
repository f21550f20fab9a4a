"""rtnetlink requests and replies: our values to and from pyroute2's message classes.

Importing this module loads pyroute2 (some 10 MiB), so it is imported where the network is really touched, and never by
commands. Only its message classes are used: its sockets make a round trip per request, each on an event loop of its own.

Numbers and layouts: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from attrs import frozen
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: TID253 this module is about pyroute2, imported lazily
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: TID253
from pyroute2.netlink.rtnl.ndmsg import ndmsg  # noqa: TID253
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: TID253

from axoneme.core.net.model import Fact, InterfaceAddress, Link, Neighbour, Network, Route, Veth

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

NLM_F_DUMP, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x300, 0x100, 0x200, 0x400

_IFF_UP = 1
_IFA_F_NODAD = 2
_NUD_PERMANENT = 0x80
_RTNH_F_ONLINK = 4
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST = 254, 4, 1

_HEADER = 16  # sizeof(struct nlmsghdr); the socket makes its own


@frozen
class Request:
    """One request: `body` is what follows the netlink header, `what` names it in errors (`add route 10.0.0.1/32`)."""

    type: int
    flags: int
    body: bytes
    what: str


def _request(kind: int, flags: int, message: Any, what: str) -> Request:
    message.encode()
    return Request(kind, flags, bytes(message.data[_HEADER:]), what)


def _family(version: int) -> int:
    return int(socket.AF_INET if version == 4 else socket.AF_INET6)


def get_link(*, name: str = "", ifindex: int = 0) -> Request:
    """Asks for one interface, by name or index; the reply is one message, or ENODEV."""
    message = ifinfmsg()
    message["index"] = ifindex
    message["attrs"] = [("IFLA_IFNAME", name)] if name else []
    return _request(RTM_GETLINK, 0, message, f"get link {name or ifindex}")


def dump_links() -> Request:
    return _request(RTM_GETLINK, NLM_F_DUMP, ifinfmsg(), "list links")


def create_veth(veth: Veth) -> Request:
    peer = [
        ("IFLA_IFNAME", veth.peer_name),
        ("IFLA_ADDRESS", veth.peer_mac),
        ("IFLA_MTU", veth.mtu),
        ("IFLA_NET_NS_FD", veth.peer_netns),
    ]
    data = {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}
    message = ifinfmsg()
    message["attrs"] = [
        ("IFLA_IFNAME", veth.name),
        ("IFLA_ADDRESS", veth.mac),
        ("IFLA_MTU", veth.mtu),
        ("IFLA_LINKINFO", {"attrs": [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", data)]}),
    ]
    return _request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message, f"create link {veth.name}")


def set_alias(ifindex: int, alias: str) -> Request:
    message = ifinfmsg()
    message["index"] = ifindex
    message["attrs"] = [("IFLA_IFALIAS", alias)]
    return _request(RTM_SETLINK, 0, message, f"set alias of link {ifindex}")


def set_up(ifindex: int) -> Request:
    message = ifinfmsg()
    message["index"], message["flags"], message["change"] = ifindex, _IFF_UP, _IFF_UP
    return _request(RTM_NEWLINK, 0, message, f"set link {ifindex} up")


def delete_link(ifindex: int) -> Request:
    message = ifinfmsg()
    message["index"] = ifindex
    return _request(RTM_DELLINK, 0, message, f"delete link {ifindex}")


def add(fact: Fact) -> Request:
    """Makes an address, a neighbour or a route; EEXIST when something is there already under the same key."""
    flags = NLM_F_CREATE | NLM_F_EXCL
    if isinstance(fact, InterfaceAddress):
        return _request(
            RTM_NEWADDR, flags, _address(fact), f"add address {fact.address}/{fact.prefix_length}"
        )
    if isinstance(fact, Neighbour):
        return _request(RTM_NEWNEIGH, flags, _neighbour(fact), f"add neighbour {fact.address}")
    return _request(RTM_NEWROUTE, flags, _route(fact), f"add route {fact.destination}")


def replace(fact: Fact) -> Request:
    """As `add`, but what is there under the same key gives way. For neighbours: the cache may know the address already."""
    made = add(fact)
    flags = NLM_F_CREATE | NLM_F_REPLACE
    return Request(made.type, flags, made.body, made.what.replace("add", "set", 1))


def delete(fact: Fact) -> Request:
    made = add(fact)
    return Request(made.type + 1, 0, made.body, made.what.replace("add", "delete", 1))


def _address(fact: InterfaceAddress) -> Any:
    message = ifaddrmsg()
    message["family"], message["index"] = _family(fact.address.version), fact.ifindex
    message["prefixlen"], message["scope"] = fact.prefix_length, fact.scope
    message["flags"] = _IFA_F_NODAD if fact.address.version == 6 else 0
    message["attrs"] = [("IFA_LOCAL", str(fact.address)), ("IFA_ADDRESS", str(fact.address))]
    return message


def _neighbour(fact: Neighbour) -> Any:
    message = ndmsg()
    message["family"], message["ifindex"] = _family(fact.address.version), fact.ifindex
    message["state"] = _NUD_PERMANENT
    message["attrs"] = [("NDA_DST", str(fact.address)), ("NDA_LLADDR", fact.mac)]
    return message


def _route(fact: Route) -> Any:
    message = rtmsg()
    destination, version = fact.destination, fact.destination.version
    message["family"], message["dst_len"] = _family(version), destination.prefixlen
    message["table"], message["proto"], message["type"] = _RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST
    message["scope"] = 253 if version == 4 and fact.gateway is None else 0
    message["flags"] = _RTNH_F_ONLINK if fact.gateway is not None else 0
    attrs: list[tuple[str, Any]] = [("RTA_OIF", fact.ifindex)]
    if destination.prefixlen:
        attrs.append(("RTA_DST", str(destination.network_address)))
    if fact.gateway is not None:
        attrs.append(("RTA_GATEWAY", str(fact.gateway)))
    message["attrs"] = attrs
    return message


def dump_addresses(ifindex: int = 0) -> Request:
    """All addresses, or on kernels that can tell (4.20) those of one interface."""
    message = ifaddrmsg()
    message["index"] = ifindex
    return _request(RTM_GETADDR, NLM_F_DUMP, message, "list addresses")


def dump_neighbours() -> Request:
    return _request(RTM_GETNEIGH, NLM_F_DUMP, ndmsg(), "list neighbours")


def dump_routes(version: int) -> Request:
    """The IPv4 (4) or IPv6 (6) routes of all tables."""
    message = rtmsg()
    message["family"] = _family(version)
    return _request(RTM_GETROUTE, NLM_F_DUMP, message, f"list IPv{version} routes")


def _decoded(kind: Callable[[bytes], Any], data: bytes) -> tuple[Any, dict[str, Any]]:
    message = kind(data)
    message.decode()
    return message, {item[0]: item[1] for item in message["attrs"]}


def read_link(data: bytes) -> Link:
    """A whole RTM_NEWLINK message → its link."""
    message, attrs = _decoded(ifinfmsg, data)
    info = attrs.get("IFLA_LINKINFO")
    return Link(
        ifindex=message["index"],
        name=attrs.get("IFLA_IFNAME", ""),
        mac=attrs.get("IFLA_ADDRESS", ""),
        up=bool(message["flags"] & _IFF_UP),
        mtu=attrs.get("IFLA_MTU", 0),
        alias=attrs.get("IFLA_IFALIAS", ""),
        kind=(info.get_attr("IFLA_INFO_KIND") or "") if info is not None else "",
        peer=attrs.get("IFLA_LINK", 0),
        elsewhere="IFLA_LINK_NETNSID" in attrs,
    )


def read_address(data: bytes) -> InterfaceAddress:
    """A whole RTM_NEWADDR or RTM_DELADDR message → the interface's own address (not its peer's)."""
    message, attrs = _decoded(ifaddrmsg, data)
    address = ip_address(attrs.get("IFA_LOCAL") or attrs["IFA_ADDRESS"])
    return InterfaceAddress(message["index"], address, message["prefixlen"], message["scope"])


def read_neighbour(data: bytes) -> Neighbour | None:
    """A whole RTM_NEWNEIGH message → the neighbour, None if it is not a permanent one of an IP address."""
    message, attrs = _decoded(ndmsg, data)
    if not message["state"] & _NUD_PERMANENT or message["family"] not in (socket.AF_INET, socket.AF_INET6):
        return None
    return Neighbour(message["ifindex"], ip_address(attrs["NDA_DST"]), attrs.get("NDA_LLADDR", ""))


def read_route(data: bytes) -> Route | None:
    """A whole RTM_NEWROUTE message → the route, None if it is not a unicast one of the main table with one next hop."""
    message, attrs = _decoded(rtmsg, data)
    if attrs.get("RTA_TABLE", message["table"]) != _RT_TABLE_MAIN or message["type"] != _RTN_UNICAST:
        return None
    if "RTA_OIF" not in attrs:
        return None
    gateway = attrs.get("RTA_GATEWAY")
    network = _network(message["family"], attrs.get("RTA_DST"), message["dst_len"])
    return Route(attrs["RTA_OIF"], network, ip_address(gateway) if gateway else None)


def _network(family: int, address: str | None, length: int) -> Network:
    if family == socket.AF_INET:
        return IPv4Network((address or "0.0.0.0", length))  # noqa: S104 a destination, nothing is bound
    return IPv6Network((address or "::", length))
