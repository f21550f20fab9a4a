"""TCP connections to dead backends are closed, on a real kernel; others are not."""

from __future__ import annotations

import errno
import socket
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from axoneme.core.net import namespaces
from axoneme.core.testing.namespaces import Namespaces
from axoneme.plugins.lb.model import Protocol
from axoneme.plugins.lb.namespaces import cookie_of
from axoneme.plugins.lb.rows import backend_key
from axoneme.plugins.lb.sock_diag import Ended, close_sockets

pytestmark = pytest.mark.kernel
_SO_COOKIE = 57
BACKEND = {backend_key(IPv4Address("127.0.0.1"), 7777, Protocol.TCP)}
OTHER = {
    backend_key(IPv4Address("127.0.0.2"), 7777, Protocol.TCP),
    backend_key(IPv6Address("::1"), 8888, Protocol.TCP),
}


@pytest.fixture
def visit() -> Iterator[Callable[[Callable[[], None]], None]]:
    with Namespaces() as made, namespaces.opened(made.make("axd")) as namespace:
        namespace.visit(lambda: subprocess.run(["ip", "link", "set", "lo", "up"], check=True))
        yield namespace.visit


def cookie(one: socket.socket) -> int:
    return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8), "little")


def test_only_the_sockets_that_were_named_are_closed(visit: Callable[[Callable[[], None]], None]) -> None:
    def inside() -> None:
        with socket.create_server(("127.0.0.1", 7777)) as server:
            first = socket.create_connection(("127.0.0.1", 7777))
            second = socket.create_connection(("127.0.0.1", 7777))
            mapped = socket.socket(socket.AF_INET6)
            mapped.connect(("::ffff:127.0.0.1", 7777))
            with first, second, mapped:
                for one in (first, second, mapped):
                    one.settimeout(5)
                peers = [server.accept()[0] for _ in range(3)]
                assert close_sockets({cookie(first), cookie(mapped)}, BACKEND) == Ended(2, 1)
                for one in (first, mapped):
                    with pytest.raises(OSError, match=r"\w") as caught:
                        one.recv(1)
                    assert caught.value.errno == errno.ECONNABORTED
                peers[1].sendall(b"x")
                assert second.recv(1) == b"x"
                assert close_sockets({cookie(first)}, BACKEND | OTHER) == Ended(0, 1)
            for peer in peers:
                peer.close()

    visit(inside)


def test_a_namespace_s_cookie_is_its_own() -> None:
    with Namespaces() as made:
        one, other = made.make("axd"), made.make("axe")
        assert cookie_of(one) == cookie_of(one) != cookie_of(other)
