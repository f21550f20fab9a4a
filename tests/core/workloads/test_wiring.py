"""The network of an endpoint, as what has to be there."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.net.model import InterfaceAddress, Neighbour, Route
from axoneme.core.workloads.endpoints import mac_bytes
from axoneme.core.workloads.wiring import Wiring, mac_address

FOUR, SIX = ip_address("10.0.0.2"), ip_address("fd00::2")
MAC, NODE_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"


def wiring(*addresses: str) -> Wiring:
    ips = tuple(map(ip_address, addresses))
    return Wiring(ifname="axo1", alias="axoneme:a:1", mac=MAC, node_mac=NODE_MAC, addresses=ips, mtu=1500)


def test_inside() -> None:
    assert wiring("10.0.0.2", "fd00::2").inside(3) == (
        InterfaceAddress(3, FOUR, 32),
        InterfaceAddress(3, SIX, 128),
        Neighbour(3, ip_address("169.254.1.1"), NODE_MAC),
        Neighbour(3, ip_address("fe80::1"), NODE_MAC),
        Route(3, ip_network("0.0.0.0/0"), ip_address("169.254.1.1")),
        Route(3, ip_network("::/0"), ip_address("fe80::1")),
    )


def test_outside() -> None:
    assert wiring("10.0.0.2", "fd00::2").outside(9) == (
        Route(9, ip_network("10.0.0.2/32")),
        Route(9, ip_network("fd00::2/128")),
    )


@pytest.mark.parametrize(("addresses", "families"), [(("10.0.0.2",), {4}), (("fd00::2",), {6})])
def test_one_family(addresses: tuple[str, ...], families: set[int]) -> None:
    one = wiring(*addresses)
    routes = [fact for fact in (*one.inside(3), *one.outside(9)) if isinstance(fact, Route)]
    assert {route.destination.version for route in routes} == families
    assert any("ipv6" in name for name in one.outside_sysctls()) == (families == {6})


@given(st.text(min_size=1, max_size=20), st.integers(1, 0xFFFF))
def test_mac_addresses_are_local_unicast_and_each_sides_own(agent: str, number: int) -> None:
    made = {mac_address(agent, number, side) for side in ("workload", "node")}
    assert len(made) == 2
    assert all(mac_bytes(mac)[0] & 3 == 2 for mac in made)
    assert mac_address(agent, number, "node") in made


@pytest.mark.parametrize("text", ["", "02:00", "02:00:00:00:00:00:00", "zz:00:00:00:00:00"])
def test_what_is_no_mac_address(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        mac_bytes(text)
