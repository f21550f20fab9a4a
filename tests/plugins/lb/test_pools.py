"""Addresses out of pools: who gets which, who shares, and what is said to those who get none."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from axoneme.plugins.lb.model import AddressPool, Block, Pool, Port, Requirement, Service, ServiceType
from axoneme.plugins.lb.pools import Addresses


def pool(name: str, *cidrs: str, **more: Any) -> AddressPool:
    networks = [ip_network(cidr) for cidr in cidrs]
    return AddressPool(name=name, blocks=tuple(Block(one[0], one[-1]) for one in networks), **more)


def service(name: str, *requested: str, key: str = "", across: tuple[str, ...] = (), **more: Any) -> Service:
    wish = Pool(tuple(ip_address(one) for one in requested), key, across)
    values: dict[str, Any] = {"namespace": "default", "ports": (Port(80),), **more}
    return Service(name=name, type=ServiceType.LOAD_BALANCER, pool=wish, **values)


def pools(*given: AddressPool) -> Addresses:
    return Addresses(pools={one.name: one for one in given})


def assigned(addresses: Addresses, one: Service) -> list[str]:
    return [str(address) for address in addresses.assign(one)[0]]


def said(addresses: Addresses, one: Service) -> list[str]:
    return [problem.message for problem in addresses.assign(one)[1]]


def test_each_gets_an_address_keeps_it_and_leaves_it_to_others() -> None:
    addresses = pools(pool("blue", "192.0.2.0/31"))
    assert assigned(addresses, service("a")) == ["192.0.2.0"]
    assert assigned(addresses, service("b")) == ["192.0.2.1"]
    assert assigned(addresses, service("a")) == ["192.0.2.0"]
    assert said(addresses, service("c")) == ["no pool has a free IPv4 address for it"]
    addresses.release(("default", "a"))
    assert assigned(addresses, service("c")) == ["192.0.2.0"]


def test_requested_addresses() -> None:
    addresses = pools(pool("blue", "192.0.2.0/28", "2001:db8::/64"))
    assert assigned(addresses, service("a", "192.0.2.7", "2001:db8::7")) == ["192.0.2.7", "2001:db8::7"]
    assert said(addresses, service("b", "192.0.2.7")) == ["192.0.2.7 belongs to default/a"]
    assert said(addresses, service("c", "198.51.100.1")) == [
        "198.51.100.1 is in no pool that is for this service"
    ]


def test_families_are_those_of_the_service() -> None:
    addresses = pools(pool("blue", "192.0.2.0/28", "2001:db8::/64"))
    assert assigned(addresses, service("dual", families=(6, 4))) == ["2001:db8::", "192.0.2.0"]
    assert assigned(addresses, service("six", cluster_ips=(ip_address("fd00::1"),))) == ["2001:db8::1"]
    assert assigned(addresses, service("none")) == ["192.0.2.1"]


def test_pools_that_are_not_for_it() -> None:
    red = pool("red", "192.0.2.0/28", selector=(Requirement("color", "In", ("red",)),))
    named = pool(
        "named",
        "198.51.100.0/28",
        selector=(Requirement("io.kubernetes.service.namespace", "In", ("default",)),),
    )
    addresses = pools(red, pool("off", "203.0.113.0/28", disabled=True))
    assert said(addresses, service("a")) == ["there is no pool for it"]
    assert assigned(addresses, service("a", labels={"color": "red"})) == ["192.0.2.0"]
    assert assigned(pools(red, named), service("a")) == ["198.51.100.0"]
    strange = service("a", load_balancer_class="example.org/other", labels={"color": "red"})
    assert said(addresses, strange) == ["loadBalancerClass 'example.org/other' is not ours"]


def test_sharing_needs_the_key_other_ports_and_permission_across_namespaces() -> None:
    addresses = pools(pool("blue", "192.0.2.0/28"))
    first = service("a", key="k")
    assert assigned(addresses, first) == ["192.0.2.0"]
    assert assigned(addresses, service("b", key="k", ports=(Port(81),))) == ["192.0.2.0"]
    assert assigned(addresses, service("c", key="k")) == ["192.0.2.1"], "the same port"
    assert assigned(addresses, service("d", key="l", ports=(Port(82),))) == ["192.0.2.2"]
    other = service("e", key="k", ports=(Port(83),), namespace="other")
    assert assigned(addresses, other) == ["192.0.2.3"]
    friend = service("f", key="k", across=("other",), ports=(Port(84),))
    assert assigned(addresses, friend) == ["192.0.2.0"]
    welcome = service("g", key="k", across=("*",), ports=(Port(85),), namespace="third")
    assert assigned(addresses, welcome) == ["192.0.2.4"]


def test_pools_that_overlap_and_pools_that_change() -> None:
    addresses = pools(pool("a", "192.0.2.0/30"), pool("b", "192.0.2.2/31"), pool("c", "198.51.100.0/30"))
    assert addresses.conflicts() == {"b": "a"}
    assert assigned(addresses, service("s", "192.0.2.2")) == ["192.0.2.2"]
    addresses.pools["a"] = pool("a", "203.0.113.0/30")
    assert addresses.conflicts() == {}
    del addresses.pools["b"]
    assert assigned(addresses, service("s")) == ["203.0.113.0"], "its old one is in no pool any more"


def test_what_was_given_before_a_restart_is_not_given_to_others() -> None:
    addresses = pools(pool("blue", "192.0.2.0/30"))
    addresses.remember({("default", "late"): (ip_address("192.0.2.0"),)})
    assert assigned(addresses, service("early")) == ["192.0.2.1"]
    assert assigned(addresses, service("late")) == ["192.0.2.0"]


def test_who_has_an_address_keeps_it_when_its_pool_gives_nothing_any_more() -> None:
    addresses = pools(pool("blue", "192.0.2.0/30"), pool("six", "2001:db8::/64"))
    asking = service("asking", "192.0.2.1")
    assert assigned(addresses, service("a")) == ["192.0.2.0"]
    assert assigned(addresses, asking) == ["192.0.2.1"]
    off, first = pool("blue", "192.0.2.0/30", disabled=True), pool("a", "192.0.2.0/31")
    for changed in (off, first):
        addresses.pools[changed.name] = changed
        assert assigned(addresses, service("a")) == ["192.0.2.0"]
        assert assigned(addresses, asking) == ["192.0.2.1"]
        assert said(addresses, service("b", "192.0.2.3")) == [
            "192.0.2.3 is in no pool that is for this service"
        ]
        addresses.pools["blue"] = pool("blue", "192.0.2.0/30")
    assert addresses.conflicts() == {"blue": "a"}
    addresses.pools = {"off": off}
    assert assigned(addresses, service("a")) == ["192.0.2.0"], "the only pool that there is"
    assert said(addresses, service("new")) == ["there is no pool for it"]
    for gone in ({}, {"blue": pool("blue", "192.0.2.0/30", selector=(Requirement("x", "Exists"),))}):
        addresses.pools = dict(gone)
        assert said(addresses, service("a")) == ["there is no pool for it"]


def test_what_somebody_had_before_a_restart_is_not_for_those_who_ask_for_it_or_had_it_wrongly() -> None:
    addresses, had = pools(pool("blue", "192.0.2.0/28")), (ip_address("192.0.2.7"),)
    addresses.remember({("default", name): had for name in ("late", "second", "stranger")})
    assert said(addresses, service("early", "192.0.2.7")) == ["192.0.2.7 belongs to default/late"]
    assert assigned(addresses, service("second", key="k", ports=(Port(81),))) == ["192.0.2.7"]
    assert assigned(addresses, service("late", key="k")) == ["192.0.2.7"], "they shared it"
    assert assigned(addresses, service("stranger")) == ["192.0.2.0"], "it ceased to share"


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40))
def test_no_two_have_the_same_address_and_none_gets_lost(steps: list[tuple[int, bool]]) -> None:
    addresses = pools(pool("blue", "192.0.2.0/29"))
    has: dict[int, list[str]] = {}
    for number, wanted in steps:
        if wanted:
            has[number] = assigned(addresses, service(f"s{number}"))
        else:
            addresses.release(("default", f"s{number}"))
            has.pop(number, None)
        held = [address for each in has.values() for address in each]
        assert len(held) == len(set(held))
        assert all(has.values()) or len(held) == 8
