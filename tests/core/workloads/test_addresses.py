"""Pools: every address once, in a foreseeable order, freed ones last."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.workloads.addresses import Pool, PoolError, Pools, Range, parse_address, parse_prefix


def pool(prefix: str) -> Pool:
    return Pool(ip_network(prefix))


def test_addresses_rise_and_the_special_ones_are_left_out() -> None:
    small = pool("10.0.0.0/29")
    assert [str(small.allocate()) for _ in range(small.size)] == [f"10.0.0.{n}" for n in range(2, 7)]
    with pytest.raises(PoolError, match=r"no address is left in the pool .*: all 5 are taken"):
        small.allocate()


def test_ipv6_has_no_broadcast() -> None:
    small = pool("fd00::/126")
    assert [str(small.allocate()) for _ in range(small.size)] == ["fd00::2", "fd00::3"]
    assert str(pool("fd00::/64").allocate()) == "fd00::2"


def test_freed_ones_come_last_and_the_oldest_first() -> None:
    some = pool("10.0.0.0/28")
    first = [some.allocate() for _ in range(3)]
    some.release(first[1])
    some.release(first[0])
    rest = [some.allocate() for _ in range(some.size - 1)]
    assert rest[-2:] == [first[1], first[0]]
    assert len(set(rest)) == len(rest)


def test_claims() -> None:
    some = pool("10.0.0.0/24")
    assert some.claim(ip_address("10.0.0.2")) == ip_address("10.0.0.2")
    assert some.allocate() == ip_address("10.0.0.3")
    with pytest.raises(PoolError, match=r"10\.0\.0\.3 is taken"):
        some.claim(ip_address("10.0.0.3"))
    for outside in ("10.0.1.1", "10.0.0.0", "10.0.0.1", "10.0.0.255", "fd00::1"):
        with pytest.raises(PoolError, match="not an address that the pool"):
            some.claim(ip_address(outside))


def test_a_pool_without_room() -> None:
    with pytest.raises(PoolError, match="no room"):
        pool("10.0.0.0/31")


def test_resumed_it_goes_on_behind_the_highest() -> None:
    some = pool("10.0.0.0/28")
    some.resume(ip_address(f"10.0.0.{n}") for n in (3, 5))
    order = [str(some.allocate()).rpartition(".")[2] for _ in range(some.size - 2)]
    assert order == ["6", "7", "8", "9", "10", "11", "12", "13", "14", "2", "4"]


def test_resuming_does_not_depend_on_how_high_a_chosen_address_is() -> None:
    huge = pool("fd00::/64")
    huge.resume([ip_address("fd00::ffff:ffff:ffff:fff0")])
    assert str(huge.allocate()) == "fd00::2"


@given(st.lists(st.one_of(st.none(), st.integers(1, 12)), max_size=80))
def test_nobody_shares(steps: list[int | None]) -> None:
    """None takes a number, a number frees it: what is taken is taken once, and used up means that all are."""
    numbers = Range(1, 12)
    model: set[int] = set()
    for step in steps:
        if step is not None:
            numbers.release(step)
            model.discard(step)
        elif (given_number := numbers.allocate()) is None:
            assert len(model) == 12
        else:
            assert given_number not in model
            model.add(given_number)
        assert len(numbers) == len(model)


def test_pools_of_both_families() -> None:
    both, four = Pools("10.0.0.0/24", "fd00::/64"), Pools("10.0.0.0/24")
    assert [str(both.take(version, None)) for version in (4, 6)] == ["10.0.0.2", "fd00::2"]
    assert four.take(6, None) is None
    with pytest.raises(PoolError, match="there is no IPv6 pool"):
        four.take(6, ip_address("fd00::2"))
    with pytest.raises(PoolError, match="no address pool"):
        Pools()
    both.resume([ip_address("10.0.0.9"), ip_address("fd00::9")])
    both.release(ip_address("10.0.0.9"))
    four.release(ip_address("fd00::9"))


@pytest.mark.parametrize(
    ("text", "version"), [("x", 4), ("10.0.0.1/24", 4), ("fd00::/64", 4), ("10.0.0.0/8", 6)]
)
def test_prefixes_that_are_none(text: str, version: int) -> None:
    with pytest.raises(PoolError):
        parse_prefix(text, version)


@pytest.mark.parametrize(("text", "version"), [("10.0.0.256", 4), ("fd00::1", 4), ("10.0.0.1", 6), ("", 4)])
def test_addresses_that_are_none(text: str, version: int) -> None:
    with pytest.raises(PoolError):
        parse_address(text, version)
