"""Requests, byte for byte, as pyroute2 makes them; strange replies do no harm."""

from __future__ import annotations

import struct
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.ndmsg import ndmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from axoneme.core.net import messages
from axoneme.core.net.model import InterfaceAddress, Neighbour, Route, Veth

MAC, PEER_MAC = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
indexes = st.integers(1, 2**31 - 1)
addresses = st.ip_addresses()
macs = st.binary(min_size=6, max_size=6).map(lambda data: data.hex(":"))
networks = st.one_of(
    st.builds(lambda a, n: ip_network((a, n), strict=False), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda a, n: ip_network((a, n), strict=False), st.ip_addresses(v=6), st.integers(0, 128)),
)


def encoded(message: Any, attributes: list[tuple[str, Any]], **fields: int) -> bytes:
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data[16:])


def family(version: int) -> int:
    return 2 if version == 4 else 10


def test_a_pair() -> None:
    veth = Veth(name="axo1", mac=MAC, peer_name="eth0", peer_mac=PEER_MAC, peer_netns=7, mtu=1400)
    peer = [
        ("IFLA_IFNAME", "eth0"),
        ("IFLA_ADDRESS", PEER_MAC),
        ("IFLA_MTU", 1400),
        ("IFLA_NET_NS_FD", 7),
    ]
    info = {
        "attrs": [
            ("IFLA_INFO_KIND", "veth"),
            ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]}),
        ]
    }
    wanted = [("IFLA_IFNAME", "axo1"), ("IFLA_ADDRESS", MAC), ("IFLA_MTU", 1400), ("IFLA_LINKINFO", info)]
    assert messages.create_veth(veth).body == encoded(ifinfmsg(), wanted)


def test_links() -> None:
    assert messages.get_link(name="axo1").body == encoded(ifinfmsg(), [("IFLA_IFNAME", "axo1")])
    assert messages.get_link(ifindex=5).body == encoded(ifinfmsg(), [], index=5)
    assert messages.set_up(5).body == encoded(ifinfmsg(), [], index=5, flags=1, change=1)
    assert messages.delete_link(5).body == encoded(ifinfmsg(), [], index=5)


@given(indexes, addresses, st.sampled_from((0, 253)))
def test_addresses(ifindex: int, address: Any, scope: int) -> None:
    made = messages.add(InterfaceAddress(ifindex, address, 24, scope))
    wanted = [("IFA_LOCAL", str(address)), ("IFA_ADDRESS", str(address))]
    flags = 2 if address.version == 6 else 0
    fields = {
        "family": family(address.version),
        "prefixlen": 24,
        "flags": flags,
        "scope": scope,
        "index": ifindex,
    }
    assert made.body == encoded(ifaddrmsg(), wanted, **fields)
    assert messages.read_address(bytes(16) + made.body) == InterfaceAddress(ifindex, address, 24, scope)


@given(indexes, addresses, macs)
def test_neighbours(ifindex: int, address: Any, mac: str) -> None:
    made = messages.add(Neighbour(ifindex, address, mac))
    wanted = [("NDA_DST", str(address)), ("NDA_LLADDR", mac)]
    fields = {"family": family(address.version), "ifindex": ifindex, "state": 0x80}
    assert made.body == encoded(ndmsg(), wanted, **fields)
    assert messages.read_neighbour(bytes(16) + made.body) == Neighbour(ifindex, address, mac)


@given(indexes, networks, st.booleans())
def test_routes(ifindex: int, network: Any, by_gateway: bool) -> None:
    gateway = ip_address("169.254.1.1" if network.version == 4 else "fe80::1") if by_gateway else None
    made = messages.add(Route(ifindex, network, gateway))
    wanted: list[tuple[str, Any]] = [("RTA_OIF", ifindex)]
    wanted += [("RTA_DST", str(network.network_address))] if network.prefixlen else []
    wanted += [("RTA_GATEWAY", str(gateway))] if gateway else []
    fields = {
        "family": family(network.version),
        "dst_len": network.prefixlen,
        "table": 254,
        "proto": 4,
        "type": 1,
    }
    fields |= {"scope": 253 if network.version == 4 and not gateway else 0, "flags": 4 if gateway else 0}
    assert made.body == encoded(rtmsg(), wanted, **fields)
    assert messages.read_route(bytes(16) + made.body) == Route(ifindex, network, gateway)


def test_verbs() -> None:
    fact = Route(1, ip_network("10.0.0.0/8"))
    assert [messages.add(fact).what, messages.replace(fact).what, messages.delete(fact).what] == [
        "add route 10.0.0.0/8",
        "set route 10.0.0.0/8",
        "delete route 10.0.0.0/8",
    ]
    assert messages.delete(fact).type == messages.RTM_DELROUTE


@pytest.mark.parametrize(
    ("table", "kind", "attributes"),
    [
        (255, 2, struct.pack("=HHI", 8, 4, 1)),  # local
        (100, 1, struct.pack("=HHI", 8, 4, 1)),  # another table
        (254, 1, b""),  # several next hops, or none
        (254, 1, struct.pack("=HHIHHI", 8, 4, 1, 8, 15, 2004)),  # the table's full number is in an attribute
    ],
)
def test_routes_that_are_none_of_ours(table: int, kind: int, attributes: bytes) -> None:
    head = struct.pack("=BBBBBBBBI", 2, 32, 0, 0, table, 4, 0, kind, 0)
    assert messages.read_route(bytes(16) + head + attributes) is None


@given(st.binary(max_size=100))
def test_any_attributes_can_be_read(data: bytes) -> None:
    link = messages.read_link(bytes(16) + struct.pack("=BxHiII", 0, 0, 3, 1, 0) + data)
    assert (link.ifindex, link.up) == (3, True)
