"""rtnetlink requests and replies: our values to bytes, and back.

Written out here because it is little and is done often: pyroute2, which knows all of rtnetlink, takes 10 MiB of memory and
0.1 s of the agent's start, and fifteen times as long for a message. The tests compare what is made here with what it makes.

Numbers and layouts: rtnetlink(7), linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/neighbour.h.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from attrs import frozen

from axoneme.core.net.model import (
    SCOPE_GLOBAL,
    Address,
    DefaultRoute,
    DeviceAddress,
    Fact,
    InterfaceAddress,
    Link,
    Neighbour,
    Network,
    Route,
    Veth,
)

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK = 16, 17, 18, 19
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

NLM_F_DUMP, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x300, 0x100, 0x200, 0x400

_IFF_UP, _IFF_LOOPBACK, _IFF_RUNNING, _IFF_NOARP = 1, 8, 0x40, 0x80
_ARPHRD_ETHER = 1
_IFA_F_SECONDARY, _IFA_F_NODAD, _IFA_F_OPTIMISTIC, _IFA_F_DADFAILED = 1, 2, 4, 8
_IFA_F_DEPRECATED, _IFA_F_TENTATIVE = 0x20, 0x40
_NUD_PERMANENT = 0x80
_RTNH_F_DEAD, _RTNH_F_ONLINK = 1, 4
_RT_TABLE_MAIN, _RTPROT_STATIC, _RTN_UNICAST, _RTN_LOCAL = 254, 4, 1, 2
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253

# Types of attributes
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK, _IFLA_MASTER = 1, 3, 4, 5, 10
_IFLA_LINKINFO, _IFLA_IFALIAS = 18, 20
_IFLA_NET_NS_FD, _IFLA_LINK_NETNSID = 28, 37
_IFLA_INFO_KIND, _IFLA_INFO_DATA, _VETH_INFO_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_NDA_DST, _NDA_LLADDR = 1, 2
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PREFSRC, _RTA_MULTIPATH, _RTA_TABLE, _RTA_VIA = 1, 4, 5, 7, 9, 15, 18
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

_NLMSGHDR_SIZE = 16
_ATTRIBUTE = struct.Struct("=HH")  # struct rtattr: length, type
_U32 = struct.Struct("=I")
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDRMSG = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_NDMSG = struct.Struct("=B3xiHBB")  # family, index, state, flags, type
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst and src length, tos, table, protocol, scope, type, flags
_RTNEXTHOP = struct.Struct("=HBBi")  # length, flags, hops, index

_FAMILY = {4: int(socket.AF_INET), 6: int(socket.AF_INET6)}


@frozen
class Request:
    """One request: `body` is what follows the netlink header, `what` names it in errors (`add route 10.0.0.1/32`)."""

    type: int
    flags: int
    body: bytes
    what: str


def _attribute(kind: int, data: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, number: int) -> bytes:
    return _attribute(kind, _U32.pack(number))


def _mac(kind: int, mac: str) -> bytes:
    return _attribute(kind, bytes.fromhex(mac.replace(":", "")))


def _link(ifindex: int = 0, flags: int = 0) -> bytes:
    return _IFINFOMSG.pack(0, 0, ifindex, flags, flags)


def get_link(*, name: str = "", ifindex: int = 0) -> Request:
    """Asks for one interface, by name or index; the reply is one message, or ENODEV."""
    body = _link(ifindex) + (_text(_IFLA_IFNAME, name) if name else b"")
    return Request(RTM_GETLINK, 0, body, f"get link {name or ifindex}")


def dump_links() -> Request:
    return Request(RTM_GETLINK, NLM_F_DUMP, _link(), "list links")


def create_veth(veth: Veth) -> Request:
    """Makes both halves at once, each where it belongs."""
    peer = _half(veth.peer_name, veth.peer_mac, veth.mtu)
    if veth.peer_netns is not None:
        peer += _number(_IFLA_NET_NS_FD, veth.peer_netns)
    data = _attribute(_IFLA_INFO_DATA, _attribute(_VETH_INFO_PEER, peer))
    info = _attribute(_IFLA_LINKINFO, _text(_IFLA_INFO_KIND, "veth") + data)
    body = _half(veth.name, veth.mac, veth.mtu) + info
    return Request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, body, f"create link {veth.name}")


def _half(name: str, mac: str, mtu: int) -> bytes:
    return _link() + _text(_IFLA_IFNAME, name) + _mac(_IFLA_ADDRESS, mac) + _number(_IFLA_MTU, mtu)


def set_alias(ifindex: int, alias: str) -> Request:
    body = _link(ifindex) + _attribute(_IFLA_IFALIAS, alias.encode())
    return Request(RTM_SETLINK, 0, body, f"set alias of link {ifindex}")


def set_up(ifindex: int, *, resolves: bool = True) -> Request:
    """Brings an interface up; one that does not resolve addresses sends everything to nobody in particular."""
    flags = _IFF_UP if resolves else _IFF_UP | _IFF_NOARP
    return Request(RTM_NEWLINK, 0, _link(ifindex, flags), f"set link {ifindex} up")


def delete_link(ifindex: int) -> Request:
    return Request(RTM_DELLINK, 0, _link(ifindex), f"delete link {ifindex}")


def add(fact: Fact) -> Request:
    """Makes an address, a neighbour or a route; EEXIST when something is there already under the same key."""
    flags = NLM_F_CREATE | NLM_F_EXCL
    if isinstance(fact, InterfaceAddress):
        return Request(RTM_NEWADDR, flags, _address(fact), f"add address {fact.address}/{fact.prefix_length}")
    if isinstance(fact, Neighbour):
        return Request(RTM_NEWNEIGH, flags, _neighbour(fact), f"add neighbour {fact.address}")
    return Request(RTM_NEWROUTE, flags, _route(fact), f"add route {fact.destination}")


def replace(fact: Fact) -> Request:
    """As `add`, but what is there under the same key gives way. For neighbours: the cache may know the address already."""
    made = add(fact)
    return Request(made.type, NLM_F_CREATE | NLM_F_REPLACE, made.body, made.what.replace("add", "set", 1))


def delete(fact: Fact) -> Request:
    made = add(fact)
    return Request(made.type + 1, 0, made.body, made.what.replace("add", "delete", 1))


def _address(fact: InterfaceAddress) -> bytes:
    version, packed = fact.address.version, fact.address.packed
    flags = _IFA_F_NODAD if version == 6 else 0
    head = _IFADDRMSG.pack(_FAMILY[version], fact.prefix_length, flags, fact.scope, fact.ifindex)
    return head + _attribute(_IFA_LOCAL, packed) + _attribute(_IFA_ADDRESS, packed)


def _neighbour(fact: Neighbour) -> bytes:
    head = _NDMSG.pack(_FAMILY[fact.address.version], fact.ifindex, _NUD_PERMANENT, 0, 0)
    return head + _attribute(_NDA_DST, fact.address.packed) + _mac(_NDA_LLADDR, fact.mac)


def _route(fact: Route) -> bytes:
    destination, version = fact.destination, fact.destination.version
    scope = _RT_SCOPE_LINK if version == 4 and fact.gateway is None else _RT_SCOPE_UNIVERSE
    flags = 0 if fact.gateway is None else _RTNH_F_ONLINK
    head = _RTMSG.pack(
        _FAMILY[version],
        destination.prefixlen,
        0,
        0,
        _RT_TABLE_MAIN,
        _RTPROT_STATIC,
        scope,
        _RTN_UNICAST,
        flags,
    )
    attributes = _number(_RTA_OIF, fact.ifindex)
    if destination.prefixlen:
        attributes += _attribute(_RTA_DST, destination.network_address.packed)
    if fact.gateway is not None:
        attributes += _attribute(_RTA_GATEWAY, fact.gateway.packed)
    return head + attributes


def dump_addresses(ifindex: int = 0) -> Request:
    """All addresses, or on kernels that can tell (4.20) those of one interface."""
    return Request(RTM_GETADDR, NLM_F_DUMP, _IFADDRMSG.pack(0, 0, 0, 0, ifindex), "list addresses")


def dump_neighbours() -> Request:
    return Request(RTM_GETNEIGH, NLM_F_DUMP, _NDMSG.pack(0, 0, 0, 0, 0), "list neighbours")


def dump_routes(version: int, *, main: bool = False) -> Request:
    """The IPv4 (4) or IPv6 (6) routes of all tables, or on kernels that can tell (4.20) those of the main one."""
    body = _RTMSG.pack(_FAMILY[version], 0, 0, 0, _RT_TABLE_MAIN if main else 0, 0, 0, 0, 0)
    return Request(RTM_GETROUTE, NLM_F_DUMP, body, f"list IPv{version} routes")


def get_route(address: Address) -> Request:
    """Asks which way an address is; the reply is one message, or an error when there is none."""
    family, bits = _FAMILY[address.version], address.max_prefixlen
    body = _RTMSG.pack(family, bits, 0, 0, 0, 0, 0, 0, 0) + _attribute(_RTA_DST, address.packed)
    return Request(RTM_GETROUTE, 0, body, f"get route to {address}")


def leads_here(data: bytes) -> bool:
    """Whether a whole RTM_NEWROUTE message says that an address is this namespace's own."""
    return bool(_RTMSG.unpack_from(data, _NLMSGHDR_SIZE)[7] == _RTN_LOCAL)


def _attributes(data: bytes, at: int) -> dict[int, bytes]:
    """The attributes from an offset to the end, by type."""
    found: dict[int, bytes] = {}
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found


def _string(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _integer(data: bytes | None, default: int = 0) -> int:
    return int(_U32.unpack(data)[0]) if data is not None and len(data) == _U32.size else default


def _ip(packed: bytes) -> Address:
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def read_link(data: bytes) -> Link:
    """A whole RTM_NEWLINK message → its link."""
    _, kind, ifindex, flags, _ = _IFINFOMSG.unpack_from(data, _NLMSGHDR_SIZE)
    attributes = _attributes(data, _NLMSGHDR_SIZE + _IFINFOMSG.size)
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""), 0)
    return Link(
        ifindex=ifindex,
        name=_string(attributes.get(_IFLA_IFNAME, b"")),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        up=bool(flags & _IFF_UP),
        running=bool(flags & _IFF_RUNNING),
        mtu=_integer(attributes.get(_IFLA_MTU)),
        alias=_string(attributes.get(_IFLA_IFALIAS, b"")),
        kind=_string(info.get(_IFLA_INFO_KIND, b"")),
        peer=_integer(attributes.get(_IFLA_LINK)),
        elsewhere=_IFLA_LINK_NETNSID in attributes,
        master=_integer(attributes.get(_IFLA_MASTER)),
        loopback=bool(flags & _IFF_LOOPBACK),
        ethernet=kind == _ARPHRD_ETHER,
    )


def is_about_link(data: bytes) -> bool:
    """Whether a whole RTM_NEWLINK or RTM_DELLINK message is about the interface itself, not its part in a bridge."""
    return bool(_IFINFOMSG.unpack_from(data, _NLMSGHDR_SIZE)[0] == socket.AF_UNSPEC)


def read_address(data: bytes) -> InterfaceAddress:
    """A whole RTM_NEWADDR or RTM_DELADDR message → the interface's own address (not its peer's)."""
    _, length, _, scope, ifindex = _IFADDRMSG.unpack_from(data, _NLMSGHDR_SIZE)
    attributes = _attributes(data, _NLMSGHDR_SIZE + _IFADDRMSG.size)
    packed = attributes.get(_IFA_LOCAL) or attributes[_IFA_ADDRESS]
    return InterfaceAddress(ifindex, _ip(packed), length, scope)


def read_device_address(data: bytes) -> DeviceAddress | None:
    """A whole RTM_NEWADDR message → the address and whether it is to be used; None unless it is of global scope."""
    fact = read_address(data)
    if fact.scope != SCOPE_GLOBAL:
        return None
    attributes = _attributes(data, _NLMSGHDR_SIZE + _IFADDRMSG.size)
    flags = _integer(attributes.get(_IFA_FLAGS), _IFADDRMSG.unpack_from(data, _NLMSGHDR_SIZE)[2])
    waits = flags & _IFA_F_TENTATIVE and not flags & _IFA_F_OPTIMISTIC
    return DeviceAddress(
        ifindex=fact.ifindex,
        address=fact.address,
        prefix_length=fact.prefix_length,
        ready=not waits and not flags & _IFA_F_DADFAILED,
        deprecated=bool(flags & _IFA_F_DEPRECATED),
        secondary=bool(flags & _IFA_F_SECONDARY),
    )


def read_neighbour(data: bytes) -> Neighbour | None:
    """A whole RTM_NEWNEIGH message → the neighbour, None if it is not a permanent one of an IP address."""
    family, ifindex, state, _, _ = _NDMSG.unpack_from(data, _NLMSGHDR_SIZE)
    attributes = _attributes(data, _NLMSGHDR_SIZE + _NDMSG.size)
    if not state & _NUD_PERMANENT or family not in _FAMILY.values() or _NDA_DST not in attributes:
        return None
    return Neighbour(ifindex, _ip(attributes[_NDA_DST]), attributes.get(_NDA_LLADDR, b"").hex(":"))


def read_route(data: bytes) -> Route | None:
    """A whole RTM_NEWROUTE message → the route, None if it is not a unicast one of the main table with one next hop."""
    family, length, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(data, _NLMSGHDR_SIZE)
    if table != _RT_TABLE_MAIN or kind != _RTN_UNICAST:  # most of a dump: local and multicast ones
        return None
    attributes = _attributes(data, _NLMSGHDR_SIZE + _RTMSG.size)
    table = _integer(attributes.get(_RTA_TABLE), table)
    if table != _RT_TABLE_MAIN or _RTA_OIF not in attributes:
        return None
    gateway = attributes.get(_RTA_GATEWAY)
    network = _network(family, attributes.get(_RTA_DST), length)
    return Route(_integer(attributes[_RTA_OIF]), network, None if gateway is None else _ip(gateway))


def read_defaults(data: bytes) -> list[DefaultRoute]:
    """A whole RTM_NEWROUTE message → its next hops that live, if it is a default route of the main table."""
    family, length, _, _, table, _, _, kind, flags = _RTMSG.unpack_from(data, _NLMSGHDR_SIZE)
    if length or table != _RT_TABLE_MAIN or kind != _RTN_UNICAST or family not in _FAMILY.values():
        return []
    attributes = _attributes(data, _NLMSGHDR_SIZE + _RTMSG.size)
    hops = [
        (flags, _integer(attributes.get(_RTA_OIF)), attributes),
        *_hops(attributes.get(_RTA_MULTIPATH, b"")),
    ]
    source = attributes.get(_RTA_PREFSRC)
    return [
        DefaultRoute(
            ifindex=ifindex,
            version=4 if family == _FAMILY[4] else 6,
            gateway=_gateway(own),
            source=None if source is None else _ip(source),
        )
        for state, ifindex, own in hops
        if ifindex and not state & _RTNH_F_DEAD
    ]


def _hops(data: bytes) -> list[tuple[int, int, dict[int, bytes]]]:
    """Flags, interface and attributes of each next hop in RTA_MULTIPATH."""
    found, at = [], 0
    while at + _RTNEXTHOP.size <= len(data):
        length, flags, _, ifindex = _RTNEXTHOP.unpack_from(data, at)
        if length < _RTNEXTHOP.size:
            break
        found.append((flags, ifindex, _attributes(data[: at + length], at + _RTNEXTHOP.size)))
        at += (length + 3) & ~3
    return found


def _gateway(attributes: dict[int, bytes]) -> Address | None:
    """The next hop's address; that of IPv4 may be an IPv6 one (RTA_VIA: a family, then the address)."""
    packed = attributes.get(_RTA_GATEWAY) or attributes.get(_RTA_VIA, b"")[2:]
    return _ip(packed) if len(packed) in (4, 16) else None


def _network(family: int, address: bytes | None, length: int) -> Network:
    if family == _FAMILY[4]:
        return IPv4Network((address or bytes(4), length))
    return IPv6Network((address or bytes(16), length))
