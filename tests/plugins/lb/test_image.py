"""What the kernel sees at every single moment is right, whatever changes, and a restart writes nothing."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Any

import pytest
from attrs import fields
from hypothesis import given, settings
from hypothesis import strategies as st
from lb_maps import Maps

from axoneme.plugins.lb.backend_rows import CLEAR
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.demand import Balance, Demand, Wanted
from axoneme.plugins.lb.image import GRACE, Image
from axoneme.plugins.lb.maps import Algorithm, Scope, Sizes
from axoneme.plugins.lb.model import Address
from axoneme.plugins.lb.numbers import LimitError
from axoneme.plugins.lb.rows import SERVICE, backend_key, row_key

SMALL = Sizes(services=40, slots=400, backends=60, affinity=64, sources=100)


def vip(number: int, family: int = 4) -> Address:
    return IPv4Address(0x0A600000 + number) if family == 4 else IPv6Address(0xFD << 120 | number)


def demand(
    rows: list[int],
    members: list[tuple[int, int]],
    *,
    algorithm: Algorithm = Algorithm.RANDOM,
    affinity: int = 0,
    sources: int = 0,
    guard: bool = False,
    rank: int = 0,
) -> Demand:
    """A service with these frontends, and these backends with their weights."""
    keys = {backend_key(vip(1000 + number), 80, 6): weight for number, weight in members}
    balance = Balance(algorithm, 251 if algorithm is Algorithm.MAGLEV else 0, affinity)
    ranges = tuple(IPv4Network((0xC0000000 + 256 * at, 24)) for at in range(sources))
    wanted = Wanted(balance, tuple(sorted(keys.items())), 0, ranges, rank=rank)
    made = {row_key(vip(row), 80, 6, Scope.INTERNAL): wanted for row in rows}
    guards = tuple({row_key(vip(row), 0, 0, Scope.INTERNAL): None for row in rows}) if guard else ()
    return Demand(made, dict.fromkeys(keys, (False, True)), guards)


def settle(image: Image, maps: Maps, now: float) -> None:
    for _ in maps.apply(image.take_writes(now)):
        pass


demands = st.builds(
    demand,
    st.lists(st.integers(0, 12), max_size=3, unique=True),
    st.lists(st.tuples(st.integers(0, 15), st.integers(1, 3)), max_size=5, unique_by=lambda one: one[0]),
    algorithm=st.sampled_from([Algorithm.RANDOM, Algorithm.ROUND_ROBIN]),
    affinity=st.sampled_from([0, 10]),
    sources=st.integers(0, 2),
    guard=st.booleans(),
    rank=st.integers(0, 2),
)
steps = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d"]), demands, st.sampled_from([0.0, CLEAR, 2 * GRACE])),
    max_size=15,
)


@given(steps)
@settings(max_examples=150)
def test_at_every_write_each_row_leads_to_what_was_or_is_wanted(changes: list[Any]) -> None:
    image, maps, now = Image(SMALL), Maps(), 0.0
    may: dict[bytes, list[set[bytes]]] = {}
    applied: dict[str, Demand] = {}
    for name, wanted, late in changes:
        pending = {("", name)}
        todo = {"": wanted}
        applied[name] = todo.pop("")
        while pending:
            one = pending.pop()
            pending |= image.apply(one, applied.get(one[1], Demand())).again
        for each in applied.values():
            for key, row in each.rows.items():
                may.setdefault(key, []).append({backend for backend, _ in row.members})
        for _ in maps.apply(image.take_writes(now)):
            for key in maps.rows:
                if SERVICE.unpack(maps.rows[key])[0]:
                    assert set(maps.backends_of(key)) in may[key]
        now += late
        image.expire(now)
    check_final(image, maps, applied)
    check_restart(maps, applied)


def check_final(image: Image, maps: Maps, applied: dict[str, Demand]) -> None:
    claims: dict[bytes, list[tuple[int, str]]] = {}
    for name, each in applied.items():
        for key, row in each.rows.items():
            claims.setdefault(key, []).append((row.rank, name))
    owners = {key: min(found)[1] for key, found in claims.items()}
    waiting = {key: {("", name) for _, name in sorted(found)[1:]} for key, found in claims.items()}
    assert image._contenders == {key: names for key, names in waiting.items() if names}
    guards = {key for each in applied.values() for key in each.guards}
    assert maps.rows.keys() == owners.keys() | guards
    for key, name in owners.items():
        wanted = applied[name].rows[key]
        found = maps.backends_of(key)
        assert sorted(set(found)) == [backend for backend, _ in wanted.members]
        number = SERVICE.unpack(maps.rows[key])[0]
        members = {entry for entry in maps.entries["members"] if entry[:4] == number.to_bytes(4, "little")}
        assert len(members) == (len(wanted.members) if wanted.balance.affinity else 0)
    assert maps.rows == image.rows


def check_restart(maps: Maps, applied: dict[str, Demand]) -> None:
    """The next agent comes to the same and finds nothing to write but what rests.

    Only a row that somebody claims who comes first by name, but not by rank, is written again, as it is.
    """
    again, late = Image(SMALL, maps.found()), set()
    pending = sorted(applied)
    while pending:
        changed = again.apply(("", pending[0]), applied[pending[0]]).again
        late |= changed
        pending = [*pending[1:], *(name for _, name in sorted(changed))]
    again.prune()
    writes = again.take_writes(0.0)
    assert all(maps.rows[key] == value for key, value in writes.rows.items())
    assert late or not writes.rows
    assert not writes.drop_rows
    assert late or not writes.slots
    assert not writes.backends
    assert not any(writes.entries.values())
    assert not any(writes.drop_entries.values())


def test_what_is_found_and_not_wanted_any_more_goes() -> None:
    image, maps = Image(SMALL), Maps()
    image.apply(("", "a"), demand([1], [(1, 1)], affinity=5, sources=1, guard=True))
    settle(image, maps, 0.0)
    again = Image(SMALL, maps.found())
    again.prune()
    settle(again, maps, 0.0)
    assert maps.rows == {}
    assert not any(maps.entries.values())
    assert any(map(any, maps.backends.values())), "it rests first"
    again.expire(CLEAR)
    settle(again, maps, CLEAR)
    assert not any(map(any, maps.backends.values()))


def test_numbers_and_slots_are_used_again_only_after_they_rested() -> None:
    sizes = Sizes(services=4, slots=4, backends=3)
    image, maps = Image(sizes), Maps()
    image.apply(("", "a"), demand([1], [(1, 1), (2, 1)]))
    settle(image, maps, 0.0)
    with pytest.raises(LimitError, match="backends"):
        image.apply(("", "b"), demand([2], [(3, 1)]))
    image.apply(("", "a"), Demand())
    settle(image, maps, 1.0)
    with pytest.raises(LimitError, match="backends"):
        image.apply(("", "b"), demand([2], [(3, 1)]))
    image.expire(1.0 + CLEAR)
    settle(image, maps, 1.0 + CLEAR)
    with pytest.raises(LimitError, match="backends"):
        image.apply(("", "b"), demand([2], [(3, 1)]))
    image.expire(1.0 + CLEAR + GRACE)
    image.apply(("", "b"), demand([2], [(3, 1)]))
    settle(image, maps, 3.0)
    assert len(maps.backends_of(row_key(vip(2), 80, 6, Scope.INTERNAL))) == 1


@pytest.mark.parametrize(
    ("sizes", "limit"),
    [
        (Sizes(services=2), "services"),
        (Sizes(slots=4), "slots"),
        (Sizes(backends=3), "backends"),
        (Sizes(sources=1), "sources"),
    ],
)
def test_what_does_not_fit_changes_nothing_and_names_the_limit(sizes: Sizes, limit: str) -> None:
    image, maps = Image(sizes), Maps()
    image.apply(("", "a"), demand([1], [(1, 1)], sources=1))
    settle(image, maps, 0.0)
    before = dict(maps.rows)
    for name, wanted in (
        ("b", demand([2, 3], [(2, 1), (3, 1), (4, 1), (5, 1)], sources=1)),
        ("a", demand([1, 2, 3], [(1, 1), (2, 1), (3, 1), (4, 1)], sources=2)),
    ):
        with pytest.raises(LimitError) as caught:
            image.apply(("", name), wanted)
        assert caught.value.limit == limit
    settle(image, maps, 0.0)
    assert maps.rows == before
    assert maps.backends_of(row_key(vip(1), 80, 6, Scope.INTERNAL))


def test_equal_backends_share_a_stretch_and_a_table() -> None:
    image = Image(Sizes(slots=251))
    same = [(1, 1), (2, 1)]
    image.apply(("", "a"), demand([1, 2], same, algorithm=Algorithm.MAGLEV))
    image.apply(("", "b"), demand([3], same, algorithm=Algorithm.MAGLEV))
    assert len(image.stretches) == 1


def test_a_backend_is_terminating_only_when_it_is_for_all() -> None:
    image = Image(SMALL)
    key = backend_key(vip(1001), 80, 6)
    image.apply(("", "a"), Demand({}, {key: (True, True)}))
    assert image.take_writes(0.0).backends[1][-2] == 7
    image.apply(("", "b"), Demand({}, {key: (False, True)}))
    assert image.take_writes(0.0).backends[1][-2] == 5
    image.apply(("", "b"), Demand())
    assert image.take_writes(0.0).backends[1][-2] == 7


def test_a_row_is_whose_kind_has_more_right_to_it_whoever_comes_first() -> None:
    """And he who no longer has that kind gives way."""
    image, high, low = Image(SMALL), demand([1], [(1, 1)], rank=1), demand([1], [(2, 1)], rank=5)
    key = row_key(vip(1), 80, 6, Scope.INTERNAL)
    assert not image.apply(("a", "thief"), low).taken
    assert image.apply(("z", "dns"), high).again == {("a", "thief")}
    assert image.apply(("a", "thief"), low).taken == {key: ("z", "dns")}
    assert image.owner(key) == ("z", "dns")
    assert image.apply(("z", "dns"), demand([1], [(1, 1)], rank=5)).again == {("a", "thief")}
    assert image.apply(("a", "thief"), low).again == {("z", "dns")}
    assert image.apply(("z", "dns"), demand([1], [(1, 1)], rank=5)).taken == {key: ("a", "thief")}
    assert not image.apply(("z", "dns"), Demand()).taken
    assert image._contenders == {}
    assert image._contended == {}


def test_who_finds_no_room_is_told_of_a_setting_that_there_is() -> None:
    key = row_key(vip(1), 80, 6, Scope.INTERNAL)
    for wanted, sizes in (
        (Wanted(Balance(affinity=5), ((backend_key(vip(9), 80, 6), 1),) * 2), Sizes(backends=1)),
        (Wanted(Balance(), (), 0, (IPv4Network("10.0.0.0/8"),) * 2), Sizes(sources=1)),
        (Wanted(Balance(), (), 0, (), tuple(range(65_537))), Sizes()),
    ):
        with pytest.raises(LimitError) as caught:
            Image(sizes).apply(("", "a"), Demand({key: wanted}))
        names = {field.name for field in fields(LbConfig)}
        hint = str(caught.value.hint)
        assert "raise lb." not in hint or hint.removeprefix("raise lb.") in names, hint
        assert hint
