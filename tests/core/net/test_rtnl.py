"""The netlink socket against the real kernel: batches, errors in words, and what is read back is what was made."""

from __future__ import annotations

import errno
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address, ip_network

import pytest

from axoneme.core.net import messages
from axoneme.core.net.model import (
    SCOPE_LINK,
    Fact,
    InterfaceAddress,
    Neighbour,
    Route,
    Veth,
)
from axoneme.core.net.namespaces import Namespace, opened
from axoneme.core.net.rtnl import BATCH, Rtnl, RtnlError, _explanation, _split, is_missing
from axoneme.core.testing.namespaces import Namespaces

MAC, PEER_MAC = "02:00:00:00:00:0a", "02:00:00:00:00:0b"


def inside(namespace: Namespace, function: Callable[[Rtnl], object]) -> object:
    def run() -> object:
        with Rtnl() as rtnl:
            return function(rtnl)

    return namespace.visit(run)


@pytest.fixture
def pair(namespaces: Namespaces) -> Iterator[tuple[Namespace, Namespace]]:
    with opened(namespaces.make()) as here, opened(namespaces.make()) as there:
        yield here, there


def make_veth(rtnl: Rtnl, there: Namespace) -> int:
    veth = Veth(
        name="left", mac=MAC, peer_name="right", peer_mac=PEER_MAC, peer_netns=there.descriptor, mtu=1400
    )
    _, reply = rtnl.request([messages.create_veth(veth), messages.get_link(name="left")])
    return messages.read_link(reply[0]).ifindex


@pytest.mark.kernel
def test_a_pair_is_born_in_two_namespaces(pair: tuple[Namespace, Namespace]) -> None:
    here, there = pair

    def left(rtnl: Rtnl) -> None:
        ifindex = make_veth(rtnl, there)
        rtnl.request([messages.set_alias(ifindex, "mine:1"), messages.set_up(ifindex)])
        link = messages.read_link(rtnl.request([messages.get_link(ifindex=ifindex)])[0][0])
        assert (link.name, link.mac, link.mtu, link.kind) == ("left", MAC, 1400, "veth")
        assert (link.alias, link.up, link.elsewhere) == ("mine:1", True, True)
        assert link.peer > 0

    def right(rtnl: Rtnl) -> None:
        link = messages.read_link(rtnl.request([messages.get_link(name="right")])[0][0])
        assert (link.mac, link.mtu, link.up) == (PEER_MAC, 1400, False)

    inside(here, left)
    inside(there, right)


@pytest.mark.kernel
def test_what_is_made_is_read_back_and_deleted(pair: tuple[Namespace, Namespace]) -> None:
    here, there = pair

    def run(rtnl: Rtnl) -> None:
        ifindex = make_veth(rtnl, there)
        rtnl.request([messages.set_up(ifindex)])
        facts: list[Fact] = [
            InterfaceAddress(ifindex, ip_address("10.9.0.1"), 32),
            InterfaceAddress(ifindex, ip_address("fd09::1"), 128),
            InterfaceAddress(ifindex, ip_address("fe80::9"), 64, SCOPE_LINK),
            Neighbour(ifindex, ip_address("10.9.0.2"), PEER_MAC),
            Neighbour(ifindex, ip_address("fd09::2"), PEER_MAC),
            Route(ifindex, ip_network("10.9.0.2/32")),
            Route(ifindex, ip_network("fd09::2/128")),
            Route(ifindex, ip_network("0.0.0.0/0"), ip_address("169.254.1.1")),
            Route(ifindex, ip_network("::/0"), ip_address("fe80::1")),
        ]
        rtnl.request([messages.add(fact) for fact in facts])
        assert set(facts) <= everything(rtnl)
        _, errors = rtnl.attempt([messages.add(fact) for fact in facts])
        assert [error.errno for error in errors if error] == [errno.EEXIST] * len(facts)
        rtnl.request([messages.replace(fact) for fact in facts])
        assert set(facts) <= everything(rtnl)
        rtnl.request([messages.delete(fact) for fact in reversed(facts)])
        assert not set(facts) & everything(rtnl)
        _, errors = rtnl.attempt([messages.delete(fact) for fact in facts])
        assert all(error is not None and is_missing(error) for error in errors)

    inside(here, run)


def everything(rtnl: Rtnl) -> set[Fact]:
    found: set[Fact | None] = set(map(messages.read_address, rtnl.dump(messages.dump_addresses())))
    found |= set(map(messages.read_neighbour, rtnl.dump(messages.dump_neighbours())))
    for version in (4, 6):
        found |= set(map(messages.read_route, rtnl.dump(messages.dump_routes(version))))
    return {fact for fact in found if fact is not None}


@pytest.mark.kernel
def test_errors_name_the_request_and_the_others_are_carried_out(pair: tuple[Namespace, Namespace]) -> None:
    here, _ = pair

    def run(rtnl: Rtnl) -> None:
        with pytest.raises(RtnlError, match=r"cannot set link 77 up: .+") as caught:
            rtnl.request([messages.set_up(77), messages.set_up(1)])
        assert caught.value.errno == errno.ENODEV
        assert caught.value.request == 0
        assert messages.read_link(rtnl.request([messages.get_link(name="lo")])[0][0]).up
        with pytest.raises(RtnlError, match="cannot add route") as explained:
            rtnl.request([messages.add(Route(1, ip_network("10.0.0.0/8"), ip_address("0.0.0.0")))])
        assert explained.value.errno in (errno.EINVAL, errno.ENETUNREACH)

    inside(here, run)


@pytest.mark.kernel
def test_more_requests_than_one_batch(pair: tuple[Namespace, Namespace]) -> None:
    here, _ = pair
    wanted = {InterfaceAddress(1, ip_address("10.8.0.0") + n, 32) for n in range(3 * BATCH + 1)}

    def run(rtnl: Rtnl) -> None:
        rtnl.request([messages.add(fact) for fact in wanted])
        assert wanted <= everything(rtnl)

    inside(here, run)


@pytest.mark.kernel
def test_a_dump_of_one_interface(pair: tuple[Namespace, Namespace]) -> None:
    here, there = pair

    def run(rtnl: Rtnl) -> None:
        ifindex = make_veth(rtnl, there)
        facts = [InterfaceAddress(index, ip_address(f"10.7.0.{index}"), 32) for index in (1, ifindex)]
        rtnl.request([messages.add(fact) for fact in facts])
        found = {messages.read_address(message) for message in rtnl.dump(messages.dump_addresses(ifindex))}
        assert found == {facts[1]}

    inside(here, run)


def test_the_kernels_own_words_are_found() -> None:
    words = struct.pack("=HH", 4 + 8, 1) + b"no way!\0"
    body = struct.pack("=i", -22) + bytes(16)  # the error and the header of what was refused
    message = struct.pack("=IHHII", 16 + len(body) + len(words), 2, 0x300, 1, 0) + body + words
    assert _explanation(message) == "no way!"
    assert _explanation(message[:-12]) == ""
    assert _explanation(b"") == ""


def test_a_message_without_length_ends_the_buffer() -> None:
    assert list(_split(bytes(32))) == []
