"""What the agent grants, and the time-outs of a table that fills."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.datapath import admission
from axoneme.core.datapath.abi import core_maps
from axoneme.core.datapath.admission import LIFE, Counts, Grants, allowance, limit_of
from axoneme.core.datapath.conntrack import PATIENCE, PRESSURE, Timeouts
from axoneme.core.datapath.maps import Map
from axoneme.core.testing.fake_kernel import FakeKernel

NUMBERS = st.integers(0, 1 << 24)


def admitted(entered: int, granted: int) -> bool:
    """As bpf/admission.h asks."""
    return entered + 1 < granted


@given(limit=st.integers(1, 64), steps=st.lists(st.tuples(st.sampled_from("open pass"), st.integers(0, 64))))
def test_never_refused_while_there_is_room_and_never_more_than_the_limit(
    limit: int, steps: list[tuple[str, int]]
) -> None:
    """Connections come, passes find some of them gone; between, the kernel counts up only."""
    entered = entries = since = 0
    granted = allowance(0, 0, limit)
    for kind, number in steps:
        if kind == "pass":
            entries, since = max(entries - 2 * number, 0), 0
            granted = allowance(entered, entries, limit)
            continue
        may = admitted(entered, granted)
        assert may is (entries + 2 <= limit), "what went since the last pass is not known to be gone"
        if may:
            entered, entries, since = entered + 2, entries + 2, since + 2
        assert entries <= limit


@given(entered=NUMBERS, before=NUMBERS, during=NUMBERS, limit=NUMBERS)
def test_what_comes_during_a_pass_may_count_twice_but_never_not_at_all(
    entered: int, before: int, during: int, limit: int
) -> None:
    """Whether or not the pass saw them: entries that there are, and those that may come, are within the limit."""
    for seen in (before, before + during):
        granted = allowance(entered, seen, limit)
        may_come = max(granted - (entered + during), 0)
        assert before + during + may_come <= max(limit, before + during)


@given(
    timeouts=st.builds(
        Timeouts, *[], tcp_opening=st.floats(1, 1e5), tcp_closing=st.floats(1, 1e5), other=st.floats(1, 1e5)
    ),
    entries=st.integers(0, 3000),
    limit=st.integers(0, 2000),
)
def test_time_outs_of_what_is_not_answered_or_over_shrink_and_no_others(
    timeouts: Timeouts, entries: int, limit: int
) -> None:
    now = timeouts.under_pressure(entries, limit)
    assert (now.tcp, now.other) == (timeouts.tcp, timeouts.other)
    more = timeouts.under_pressure(entries + 1, limit)
    for name in ("tcp_opening", "tcp_closing", "other_opening"):
        full, shorter = getattr(timeouts, name), getattr(now, name)
        assert min(full, PATIENCE) <= getattr(more, name) <= shorter <= full
        if entries <= PRESSURE * limit and limit:
            assert shorter == pytest.approx(full)
        if entries >= limit:
            assert shorter == min(full, PATIENCE)


def test_half_way_it_is_half() -> None:
    assert Timeouts().under_pressure(800, 1000).tcp_opening == pytest.approx(30.0)


@pytest.fixture
def maps() -> Iterator[Callable[[str], Map]]:
    kernel = FakeKernel()
    specs = core_maps(connections=100, endpoints=8, ipcache=8, events=4096, cpus=kernel.possible_cpus)
    opened = {spec.name: Map.create(kernel, spec) for spec in specs}
    yield opened.__getitem__
    for each in opened.values():
        each.close()


def test_the_limit_is_what_was_asked_for(maps: Callable[[str], Map]) -> None:
    assert maps("connections6").spec.max_entries > limit_of(maps("connections6")) == 100


def test_a_grant_holds_for_a_while_and_is_one_familys(
    maps: Callable[[str], Map], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_now", lambda: clock)
    clock, grants, second = 1_000, Grants(6, maps), 1_000_000_000
    grants.renew()
    assert maps("grants").lookup(1)["until"] == 0, "nothing was granted yet"
    grants.grant(Counts(50, 0), 30, 100)
    clock += second
    grants.renew()
    row = maps("grants").lookup(1)
    assert (row["allowance"], row["until"]) == (120, 1_000 + second + int(LIFE * second))
    assert maps("grants").lookup(0)["until"] == 0


def test_no_program_sees_a_new_end_with_an_old_allowance(
    maps: Callable[[str], Map], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent was away for long, and much was entered: the first write leaves the end as it was."""
    maps("grants").update(0, {"allowance": 7, "until": 99})
    written: list[tuple[int, int]] = []
    update = Map.update

    def noted(self: Map, key: int, value: dict[str, int], flags: int = 0) -> None:
        update(self, key, value, flags)
        written.append((value["allowance"], value["until"]))

    monkeypatch.setattr(Map, "update", noted)
    monkeypatch.setattr(admission, "_now", lambda: 0)
    Grants(4, maps).grant(Counts(5_000, 0), 0, 100)
    assert written == [(5_100, 99), (5_100, int(LIFE * 1e9))]


@pytest.mark.parametrize(
    ("entries", "entered", "short"),
    [(0, 0, False), (0, 49, False), (0, 50, True), (99, 0, True), (100, 0, True)],
)
def test_room_is_short_when_half_of_it_is_used(
    maps: Callable[[str], Map], entries: int, entered: int, short: bool
) -> None:
    grants = Grants(4, maps)
    grants.grant(Counts(1_000, 0), entries, 100)
    assert grants.is_short(Counts(1_000 + entered, 0)) is short
