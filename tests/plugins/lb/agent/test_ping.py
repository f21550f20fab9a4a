"""Ping from workloads to the world: echoes leave under the node's address, each client's answers find it, with real packets."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator

import pytest
from attrs import frozen
from wires import cable, version

from axoneme.core.testing.checksums import internet_checksum
from axoneme.core.testing.namespaces import Namespaces, ping, within
from axoneme.core.testing.node import Node, Placed

pytestmark = pytest.mark.kernel

NODE, SERVER = ("192.0.2.2", "2001:db8:2::2"), ("192.0.2.50", "2001:db8:2::50")
UNREACHED = ("192.0.2.77", "2001:db8:2::77")
REQUEST, REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])


@frozen
class Place:
    node: Node
    far: str
    clients: tuple[Placed, Placed]


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """Two workloads, and a host of the world that does not know them."""
    values = {"plugins": {"enabled": ["lb"]}, "datapath": {"devices": ["servers"]}}
    with Node(values) as node, Namespaces() as netns:
        far = netns.make("far")
        cable(node.netns, "servers", NODE, far, "cable", SERVER)
        node.start()
        yield Place(node, far, (node.workload("one"), node.workload("two")))


def icmp(netns: str, address: str) -> socket.socket:
    v6 = version(address) == 6
    family, protocol = (
        (socket.AF_INET6, socket.IPPROTO_ICMPV6) if v6 else (socket.AF_INET, socket.IPPROTO_ICMP)
    )
    made = within(netns, lambda: socket.socket(family, socket.SOCK_RAW, protocol))
    made.settimeout(5)
    return made


def request(address: str, identifier: int, number: int, data: bytes) -> bytes:
    """The kernel computes ICMPv6's sum."""
    kind = REQUEST[version(address)]
    head, body = struct.pack(">BBH", kind, 0, 0), struct.pack(">HH", identifier, number) + data
    check = internet_checksum(head + body) if version(address) == 4 else 0
    return struct.pack(">BBH", kind, 0, check) + body


def message(of: socket.socket, kind: int) -> tuple[str, int, int, bytes]:
    """The next one of this type: who sent it, its identifier, its number, and the rest; its sum is right (the kernel's, IPv6's)."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        data, (source, *_) = of.recvfrom(1 << 16)
        body = data[(data[0] & 15) * 4 :] if of.family == socket.AF_INET else data
        if body[0] == kind:
            assert of.family == socket.AF_INET6 or internet_checksum(body) == 0
            identifier, number = struct.unpack_from(">HH", body, 4)
            return source, identifier, number, body[8:]
    raise AssertionError(f"no message of type {kind}")


@FAMILIES
def test_both_ends_see_what_they_should(place: Place, family: int) -> None:
    """Two clients with the same identifier: the world sees the node, with two, and each client its own answers."""
    server, kind = SERVER[family], 4 if family == 0 else 6
    given = []
    with icmp(place.far, server) as seen:
        for at, client in enumerate(place.clients):
            with icmp(client.netns, server) as asking:
                for number in (1, 2):
                    data = f"client {at}, number {number}".encode() * 20
                    asking.sendto(request(server, 7777, number, data), (server, 0))
                    source, identifier, got, rest = message(seen, REQUEST[kind])
                    assert (source, got, rest) == (NODE[family], number, data)
                    assert 1024 <= identifier <= 29999
                    given.append(identifier)
                    assert message(asking, REPLY[kind]) == (server, 7777, number, data)
    assert given[0] == given[1] != given[2] == given[3]


@FAMILIES
def test_an_echo_larger_than_the_path_goes_in_fragments(place: Place, family: int) -> None:
    for _ in range(2):
        assert ping(place.clients[0].netns, SERVER[family], data=bytes(range(250)) * 16)


@FAMILIES
def test_nobody_there(place: Place, family: int) -> None:
    """No answer is none, and the others are answered still."""
    assert not ping(place.clients[0].netns, UNREACHED[family], timeout=0.2)
    assert ping(place.clients[1].netns, SERVER[family])
    place.node.until(lambda: not place.node.problems(), "all is well")
