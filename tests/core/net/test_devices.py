"""Which interfaces lead out of a node, and why the others do not."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from attrs import evolve

from axoneme.core.config import from_values
from axoneme.core.net.devices import LIMIT, Device, Seen, choose, missing
from axoneme.core.net.model import DefaultRoute, DeviceAddress, Link


def link(ifindex: int, name: str, kind: str = "", **more: Any) -> Link:
    return Link(ifindex=ifindex, name=name, kind=kind, **{"up": True, "running": True, **more})


def address(ifindex: int, text: str, **more: Any) -> DeviceAddress:
    network = text if "/" in text else f"{text}/{24 if '.' in text else 64}"
    plain, _, length = network.partition("/")
    return DeviceAddress(ifindex=ifindex, address=ip_address(plain), prefix_length=int(length), **more)


def route(ifindex: int, gateway: str = "", source: str = "", version: int = 4) -> DefaultRoute:
    return DefaultRoute(
        ifindex=ifindex,
        version=version,
        gateway=ip_address(gateway) if gateway else None,
        source=ip_address(source) if source else None,
    )


def chosen(
    *links: Link, addresses: Any = (), defaults: Any = (), wanted: Any = ("auto",)
) -> dict[str, Device]:
    seen = Seen(links={each.ifindex: each for each in links}, addresses=addresses, defaults=defaults)
    return {device.name: device for device in choose(wanted, seen)}


def reason(device: Link, *others: Link, has_address: bool = True, default: bool = False) -> str:
    """Why it is not used; empty if it is."""
    found = chosen(
        device,
        *others,
        addresses=[address(device.ifindex, "192.0.2.2")] if has_address else [],
        defaults=[route(device.ifindex, "192.0.2.1")] if default else [],
    )[device.name]
    return "" if found.used else found.why


def test_a_card_with_an_address_is_used() -> None:
    assert reason(link(2, "eth0")) == ""
    assert reason(link(2, "eth0"), has_address=False) == "neither an address nor a default route"
    assert reason(link(2, "eth0"), has_address=False, default=True) == ""
    assert reason(link(2, "eth0", up=False), default=True) == "down"


@pytest.mark.parametrize("kind", ["bond", "team", "vlan", "macvlan", "ipvlan"])
def test_so_is_what_is_made_of_cards(kind: str) -> None:
    assert reason(link(2, "x", kind)) == ""


@pytest.mark.parametrize("kind", ["veth", "bridge", "openvswitch", "dummy", "vxlan", "geneve", "tun", "ifb"])
def test_what_mostly_leads_into_the_node_needs_a_default_route(kind: str) -> None:
    assert reason(link(2, "x", kind)) == f"{kind} without a default route"
    assert reason(link(2, "x", kind), default=True) == ""


def test_members_are_not_used_but_what_they_belong_to() -> None:
    assert reason(link(2, "eth0", master=3), link(3, "bond0", "bond"), default=True) == "belongs to bond0"
    assert reason(link(2, "eth0", master=9)) == "belongs to 9"


def test_what_the_programs_cannot_read_is_never_used() -> None:
    tunnel = link(2, "wg0", "wireguard", ethernet=False)
    assert reason(tunnel, default=True) == "wireguard frames have no Ethernet header"
    named = chosen(tunnel, wanted=["wg0"])["wg0"]
    assert (named.named, named.used) == (True, False)
    assert reason(link(1, "lo", loopback=True, ethernet=False)) == "loopback"


def test_what_agents_made_is_not_even_mentioned() -> None:
    own = link(5, "axo7", "veth", alias="axoneme:axoneme:7", peer=2, elsewhere=True)
    hub = link(6, "axohub", "veth", alias="axoneme:other:hub", peer=7)
    end = link(7, "axoend", "veth", peer=6)
    # Its index in another namespace is the hub's here: that makes it nobody's.
    stranger = link(8, "veth1", "veth", peer=6, elsewhere=True)
    assert list(chosen(own, hub, end, stranger)) == ["veth1"]


def test_names_and_patterns() -> None:
    links = link(2, "eth0", up=False), link(3, "eth1", "veth"), link(4, "wan", "dummy")
    assert [d.used for d in chosen(*links, wanted=["eth*"]).values()] == [True, True, False]
    assert [d.used for d in chosen(*links, wanted=["wan", "eth?"]).values()] == [True, True, True]
    assert chosen(*links, wanted=["wan"])["eth0"].why == "not named in datapath.devices"
    found = chosen(*links, wanted=[])
    assert not any(device.used for device in found.values())
    both = chosen(*links, wanted=["wan", "auto"], addresses=[address(2, "192.0.2.2")])
    assert {name: device.used for name, device in both.items()} == {"eth0": False, "eth1": False, "wan": True}
    assert missing(["auto", "eth*", "wan", "eth7"], found.values()) == ["eth7"]


def test_only_cards_take_what_xdp_sends() -> None:
    card, pair = link(2, "eth0"), link(3, "veth0", "veth")
    assert [device.card for device in chosen(card, pair, link(4, "bond0", "bond")).values()] == [
        True,
        False,
        True,
    ]
    vlan = link(5, "eth0.7", "vlan", peer=2)
    assert [device.card for device in chosen(card, vlan).values()] == [False, False]


def addresses(*given: DeviceAddress, defaults: Any = ()) -> list[str]:
    return [
        str(each) for each in chosen(link(2, "eth0"), addresses=given, defaults=defaults)["eth0"].addresses
    ]


def test_the_address_to_leave_under_comes_first() -> None:
    one, other = address(2, "192.0.2.9"), address(2, "10.0.0.9/8")
    assert addresses(one, other) == ["192.0.2.9", "10.0.0.9"], "the kernel's order"
    assert addresses(one, other, defaults=[route(2, "10.1.1.1")])[0] == "10.0.0.9", "where the gateway is"
    assert addresses(one, other, defaults=[route(2, "10.1.1.1", "192.0.2.9")])[0] == "192.0.2.9", "preferred"
    assert addresses(one, address(3, "192.0.2.3")) == ["192.0.2.9"]
    local, temporary = address(2, "fd00::9"), address(2, "2001:db8::9", secondary=True)
    permanent, old = address(2, "2001:db8::1"), address(2, "2001:db8::2", deprecated=True)
    # 2001:db8::/32 is for documentation, and counts as private to the library; what the world knows is another one.
    world = address(2, "2a00::1")
    assert addresses(local, old, temporary, permanent, world) == [
        "2a00::1", "fd00::9", "2001:db8::1", "2001:db8::9", "2001:db8::2"
    ]  # fmt: skip
    assert addresses(evolve(world, ready=False), local) == ["fd00::9"], "not known to be nobody else's yet"


def test_a_device_without_addresses_leaves_under_what_its_route_prefers() -> None:
    """Routing on the host: addresses are on the loopback device, and neighbours are known by link-local ones."""
    defaults = [route(2, "fe80::1", "192.0.2.9"), route(2, "fe80::1", "2a00::9", version=6)]
    assert addresses(address(1, "192.0.2.9/32"), defaults=defaults) == ["192.0.2.9", "2a00::9"]


def test_there_is_an_end_to_them() -> None:
    links = [link(index, f"eth0.{index}", "vlan", peer=2) for index in range(10, LIMIT + 20)]
    own = [address(each.ifindex, "192.0.2.2") for each in links]
    found = chosen(*links, addresses=own, defaults=[route(links[-1].ifindex)])
    assert sum(device.used for device in found.values()) == LIMIT
    assert found[links[-1].name].used, "the way out comes first"
    assert found[links[-2].name].why == f"there are more than {LIMIT}"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (["eth+"], "write 'eth\\*'"),
        (["none"], "an empty list"),
        (["a b"], "not the name of a network device"),
        (["../x"], "not the name"),
        ([""], "not the name"),
        ("auto", "expected a list"),
    ],
)
def test_what_is_no_list_of_devices_is_refused(value: Any, words: str) -> None:
    with pytest.raises(Exception, match=words) as caught:
        from_values({"datapath": {"devices": value}})
    assert "datapath.devices" in str(caught.value) or "datapath" in str(caught.value)
