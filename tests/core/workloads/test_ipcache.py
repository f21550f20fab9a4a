"""Who is behind an address: longest prefixes, several sources, and the same answer as a naive search."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.state.table import State, Table
from axoneme.core.workloads.endpoints import IPCACHE, TABLES, IpcacheEntry, IpcacheSource
from axoneme.core.workloads.identities import HOST, WORLD, WORLD_IPV4, WORLD_IPV6
from axoneme.core.workloads.ipcache import Ipcache

LOCAL, CLUSTER, POLICY = IpcacheSource.LOCAL, IpcacheSource.CLUSTER, IpcacheSource.POLICY


def make(*, dual: bool = False) -> tuple[Ipcache, Table[IpcacheEntry]]:
    state = State(TABLES)
    cache = Ipcache(state, dual_stack_world=dual)
    cache.start()
    return cache, state.table(IPCACHE.name, IpcacheEntry)


def entry(prefix: str, identity: int, source: IpcacheSource = LOCAL) -> IpcacheEntry:
    return IpcacheEntry(prefix=ip_network(prefix), identity=identity, source=source)


def identity(cache: Ipcache, address: str) -> int:
    found = cache.lookup(ip_address(address))
    assert found is not None
    return found.identity


@pytest.mark.parametrize(("dual", "worlds"), [(False, (WORLD, WORLD)), (True, (WORLD_IPV4, WORLD_IPV6))])
def test_the_world(dual: bool, worlds: tuple[int, int]) -> None:
    cache, _ = make(dual=dual)
    assert (identity(cache, "8.8.8.8"), identity(cache, "2001:db8::1")) == worlds
    assert identity(cache, "fe80::1") == HOST


def test_the_longest_prefix() -> None:
    cache, _ = make()
    cache.upsert(entry("10.0.0.0/8", 300), entry("10.1.0.0/16", 301), entry("10.1.0.7/32", 302))
    assert [identity(cache, a) for a in ("10.2.0.1", "10.1.0.1", "10.1.0.7", "11.0.0.1")] == [
        300,
        301,
        302,
        WORLD,
    ]
    cache.delete(LOCAL, ip_network("10.1.0.0/16"))
    assert identity(cache, "10.1.0.1") == 300


def test_the_more_believable_source_and_its_withdrawal() -> None:
    cache, table = make()
    prefix = ip_network("10.0.0.1/32")
    cache.upsert(entry("10.0.0.1/32", 300, POLICY), entry("10.0.0.1/32", 301, CLUSTER))
    cache.upsert(entry("10.0.0.1/32", 302, LOCAL))
    assert identity(cache, "10.0.0.1") == 302
    cache.upsert(entry("10.0.0.1/32", 303, CLUSTER))
    cache.delete(LOCAL, prefix)
    assert identity(cache, "10.0.0.1") == 303
    cache.delete(CLUSTER, prefix, ip_network("10.0.0.2/32"))
    cache.delete(CLUSTER, prefix)
    assert identity(cache, "10.0.0.1") == 300
    cache.delete(POLICY, prefix)
    assert prefix not in table
    assert identity(cache, "10.0.0.1") == WORLD


def test_the_hosts_addresses_are_those_given_last() -> None:
    cache, table = make()
    cache.set_hosts({ip_address("192.0.2.1"), ip_address("2001:db8::1")})
    assert identity(cache, "192.0.2.1") == identity(cache, "2001:db8::1") == HOST
    revision = table.revision
    cache.set_hosts({ip_address("192.0.2.1"), ip_address("2001:db8::1")})
    assert table.revision == revision
    cache.set_hosts({ip_address("192.0.2.1")})
    assert identity(cache, "2001:db8::1") == WORLD
    assert identity(cache, "fe80::1") == HOST


def test_a_failed_transaction_leaves_what_was_there() -> None:
    state = State(TABLES)
    cache = Ipcache(state)
    cache.upsert(entry("10.0.0.0/8", 300))
    with contextlib.suppress(RuntimeError), state.transaction() as txn:
        cache.delete(LOCAL, ip_network("10.0.0.0/8"), txn=txn)
        cache.upsert(entry("10.0.0.0/9", 301), txn=txn)
        raise RuntimeError
    assert identity(cache, "10.0.0.1") == 300


prefixes = st.builds(
    lambda number, length: ip_network(((10 << 24) + number, length), strict=False),
    st.integers(0, 15),
    st.integers(26, 32),
)
steps = st.lists(
    st.tuples(prefixes, st.sampled_from(IpcacheSource), st.one_of(st.none(), st.integers(300, 310)))
)


@given(steps)
def test_as_a_naive_search(said: list[tuple[Any, IpcacheSource, int | None]]) -> None:
    """A step with an identity says it, one without takes back what the source said about the prefix."""
    cache, _ = make()
    model: dict[tuple[Any, IpcacheSource], int] = {}
    for prefix, source, number in said:
        if number is None:
            cache.delete(source, prefix)
            model.pop((prefix, source), None)
        else:
            cache.upsert(IpcacheEntry(prefix=prefix, identity=number, source=source))
            model[prefix, source] = number
    order = list(IpcacheSource)
    for last in range(16):
        address = ip_address((10 << 24) + last)
        found = [(p.prefixlen, -order.index(s), n) for (p, s), n in model.items() if address in p]
        wanted = max(found)[2] if found else WORLD
        result = cache.lookup(address)
        assert result is not None
        assert result.identity == wanted
