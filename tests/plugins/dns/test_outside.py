"""The server of names is outside, and packets leave by the node's device past its stack: questions do not."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest
from places import POLICY, Place, Server, join_world, serve

from axoneme.core.testing.namespaces import Namespaces, listen, reachable, within
from axoneme.core.testing.node import Node

pytestmark = pytest.mark.kernel

SERVERS = ("203.0.113.2", "2001:db8:f::2")
OUTSIDE = POLICY.replace(
    "toEndpoints: [{matchLabels: {app: names}}]", f'toCIDR: ["{SERVERS[0]}/32", "{SERVERS[1]}/128"]'
)


@pytest.mark.parametrize("more", [(), pytest.param(("lb",), marks=pytest.mark.slow)], ids=str)
def test_a_server_of_the_world_and_direct_routing(tmp_path: Path, more: tuple[str, ...]) -> None:
    """With load balancing, what leaves is masqueraded, too, and the program is one that is cut."""
    values = {"plugins": {"enabled": ["policy", "dns", *more]}, "datapath": {"devices": ["w0"]}}
    with Namespaces() as owned, Node(values) as node, contextlib.ExitStack() as stack:
        node.resource("policy.yaml", OUTSIDE)
        world = owned.make("world")
        join_world(node, world)
        node.start()
        serve(within(world, lambda: listen(socket.SOCK_STREAM, 80)), stack)
        for address in ("198.18.0.1", "2001:db8:5::1"):
            node.until(lambda there=address: reachable(node.netns, there, 80), "the world answers")  # type: ignore[misc]
        client, server = node.workload("client", app="client"), Server(world, tmp_path)
        stack.callback(server.stop)
        found = {"A": "198.18.0.9", "AAAA": "2001:db8:5::9"}
        server.set({"a.ok.test": list(found.values())})
        server.start()
        there = Place(node=node, client=client, names=client, server=server, owned=owned)
        for asked in SERVERS:
            for how in (dns.query.udp, dns.query.tcp):
                for kind, address in found.items():
                    query = dns.message.make_query("a.ok.test", kind)
                    answer = within(client.netns, lambda: how(query, asked, timeout=2))  # noqa: B023
                    assert answer.answer[0][0].address == address
                denied = dns.message.make_query("secret.test", "A")
                answer = within(client.netns, lambda: how(denied, asked, timeout=2))  # noqa: B023
                assert answer.rcode() == dns.rcode.REFUSED
        for address in found.values():
            there.connect(address, timeout=0.8).close()
        assert not there.reaches("198.18.0.10")
        assert node.problems() == []
