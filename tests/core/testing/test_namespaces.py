"""The helpers for namespaces clean up after themselves, and their servers and clients really talk."""

from __future__ import annotations

import pytest

from axoneme.core.net import namespaces as ns
from axoneme.core.testing.namespaces import Namespaces, ask, ping, reachable, unique

pytestmark = pytest.mark.kernel


def test_everything_is_removed_also_after_a_failure() -> None:
    made: list[str] = []

    def fail() -> None:
        with Namespaces() as factory:
            made.extend(factory.make() for _ in range(2))
            factory.serve_tcp(made[0], 80)
            assert set(made) <= set(ns.names())
            raise RuntimeError("the test failed")

    with pytest.raises(RuntimeError):
        fail()
    assert len(made) == 2
    assert not set(made) & set(ns.names())


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_servers_answer_where_they_are(namespaces: Namespaces, address: str) -> None:
    one, other = namespaces.make(), namespaces.make()
    tcp = namespaces.serve_tcp(one, 8080, bytes.upper)
    udp = namespaces.serve_udp(one, 8080)
    assert ask(one, address, 8080, b"hello") == b"HELLO"
    assert ask(one, address, 8080, b"hello", udp=True) == b"hello"
    assert tcp.seen == udp.seen == [address]
    assert ping(one, address)
    assert not reachable(other, address, 8080)
    assert not reachable(one, address, 8081, udp=True)


def test_names_are_unique_and_fit_an_interface() -> None:
    names = {unique() for _ in range(100)}
    assert len(names) == 100
    assert max(map(len, names)) <= 15
