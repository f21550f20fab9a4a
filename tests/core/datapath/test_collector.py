"""The collector's own view: how full the tables are, and what had to give way."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from axoneme.core.datapath import conntrack
from axoneme.core.datapath.abi import ConnectionFlag, core_maps
from axoneme.core.datapath.collector import Collector
from axoneme.core.datapath.maps import Map
from axoneme.core.datapath.reasons import FORGOTTEN
from axoneme.core.records import Level
from axoneme.core.settings import TimeoutSettings
from axoneme.core.testing.fake_kernel import FakeKernel


class Maps:
    """The maps that the collector reads."""

    def __init__(self) -> None:
        self.kernel = FakeKernel()
        cpus = self.kernel.possible_cpus
        specs = core_maps(connections=64, endpoints=8, ipcache=8, events=4096, cpus=cpus)
        self.open = {spec.name: Map.create(self.kernel, spec) for spec in specs}

    def map(self, name: str) -> Map:
        return self.open[name]

    def enter(self, count: int, *, there: int | None = None) -> None:
        """As if programs had made so many entries, of which some are still there."""
        self.admit(entered=count)
        table = self.open["connections4"]
        before = len(table.items()[0])
        for port in range(before, before + (count if there is None else there)):
            table.update({"sport": port, "protocol": 17}, {"last_seen": 0})

    def admit(self, *, entered: int = 0, refused: int = 0) -> None:
        admissions = self.open["admissions"]
        row = admissions.lookup(0)
        admissions.update(
            0, {"entered": int(row["entered"]) + entered, "refused": int(row["refused"]) + refused}
        )

    def grant(self) -> tuple[int, int]:
        row = self.open["grants"].lookup(0)
        return int(row["allowance"]), int(row["until"])

    def count(self, reason: int, more: int) -> None:
        counters = self.open["counters"]
        value = counters.lookup(2 * reason).copy()
        value["packets"][0] += more
        counters.update_batch([2 * reason], value.reshape(1, -1))


@pytest.fixture
def maps() -> Iterator[Maps]:
    made = Maps()
    yield made
    for each in made.open.values():
        each.close()


@pytest.fixture
def collector(maps: Maps, monkeypatch: pytest.MonkeyPatch) -> Collector:
    """One for which nothing ever expires."""
    monkeypatch.setattr("axoneme.core.datapath.conntrack.ticks", lambda now: 0)
    published: list[Any] = []
    return Collector(maps.map, TimeoutSettings, published.append)


async def test_entries_that_gave_way_are_counted_and_shown(maps: Maps, collector: Collector) -> None:
    maps.enter(10)
    await collector.collect()
    assert (collector.evicted, collector.health().level) == (0, Level.OK)
    maps.enter(20, there=5)
    await collector.collect()
    assert collector.evicted == 15
    health = collector.health()
    assert health.level is Level.DEGRADED
    assert "connection table IPv4 is full: 15 of 64 entries, 15 gave way so far" in health.reason
    assert "datapath.conntrack_entries" in health.reason
    await collector.collect()
    assert (collector.evicted, collector.health().level) == (15, Level.OK)


async def test_entries_that_programs_took_back_did_not_give_way(maps: Maps, collector: Collector) -> None:
    maps.enter(10)
    await collector.collect()
    maps.enter(5, there=0)
    maps.count(FORGOTTEN, 5)
    await collector.collect()
    assert (collector.evicted, collector.health().level) == (0, Level.OK)


async def test_connections_are_sampled_once_per_interval_while_somebody_listens(
    maps: Maps, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, wanted = 1_000_000_000_000, 0.0
    monkeypatch.setattr("axoneme.core.datapath.conntrack.ticks", lambda now: now >> 24)
    monkeypatch.setattr("axoneme.core.datapath.collector._now", lambda: clock)
    published: list[Any] = []
    collector = Collector(maps.map, TimeoutSettings, published.append, lambda: wanted)
    maps.open["connections4"].update({"sport": 1, "protocol": 6}, {"last_seen": (1 << 31) - 1, "created": 1})

    async def samples() -> list[int]:
        published.clear()
        await collector.collect()
        return [int(record["sport"]) for batch in published for record in batch]

    clock += 60_000_000_000
    assert await samples() == []
    wanted = 30.0
    assert await samples() == [1]
    clock += 10_000_000_000
    assert await samples() == []
    clock += 20_000_000_000
    assert await samples() == [1]


async def test_what_programs_do_during_a_pass_is_no_eviction(
    maps: Maps, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Entries are made and taken back between the look at the table and those at the counters."""

    def collect(table: Map, *given: Any, **options: Any) -> Any:
        done = conntrack.collect(table, *given, **options)
        maps.enter(3)
        maps.enter(4, there=0)
        maps.count(FORGOTTEN, 4)
        return done

    monkeypatch.setattr("axoneme.core.datapath.collector.collect", collect)
    for _ in range(4):
        await collector.collect()
    assert (collector.evicted, collector.health().level) == (0, Level.OK)


async def test_a_table_of_another_size_is_no_eviction(maps: Maps, collector: Collector) -> None:
    maps.enter(10)
    await collector.collect()
    maps.enter(5, there=2)
    await collector.collect()
    assert collector.evicted == 3
    old = maps.open["connections4"]
    maps.open["connections4"] = Map.create(maps.kernel, old.spec)
    old.close()
    await collector.collect()
    assert (collector.evicted, collector.health().level) == (3, Level.OK)
    maps.enter(4, there=0)
    await collector.collect()
    assert collector.evicted == 7


async def test_what_is_flushed_did_not_give_way_and_is_told_as_closed(
    maps: Maps, collector: Collector
) -> None:
    published: list[Any] = []
    collector.publish = published.append
    maps.enter(10)
    await collector.collect()
    published.clear()
    table = maps.open["connections4"]
    table.update({"sport": 3, "protocol": 17}, {"flags": ConnectionFlag.NAT, "nat_dport": 8080})
    assert await collector.flush(translated=True) == {"connections4": 1, "connections6": 0}
    assert await collector.flush() == {"connections4": 9, "connections6": 0}
    assert [len(events) for events in published if len(events)] == [1, 9]
    assert len(table.items()[0]) == 0
    await collector.collect()
    assert (collector.evicted, collector.health().level) == (0, Level.OK)


async def test_what_is_left_is_granted_after_each_pass(maps: Maps, collector: Collector) -> None:
    maps.enter(10)
    await collector.collect()
    allowance, until = maps.grant()
    assert allowance == 64
    assert until > 0
    maps.enter(20, there=6)
    await collector.collect()
    assert maps.grant()[0] == 30 + (64 - 16)


async def test_who_was_refused_is_shown_until_there_is_room_for_a_while(
    maps: Maps, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 0
    monkeypatch.setattr("axoneme.core.datapath.collector._now", lambda: clock)
    maps.admit(refused=100)  # while another agent ran
    await collector.collect()
    assert (collector.health().level, collector.tables[4].refused) == (Level.OK, 100)
    for more in (3, 4):
        maps.admit(refused=more)
        clock += 5_000_000_000
        collector._look()
    health = collector.health()
    assert health.level is Level.DEGRADED
    assert "connection table IPv4 is full: it holds 64 entries, and 7 packets of new" in health.reason
    assert "datapath.conntrack_entries" in health.reason
    clock += 10_000_000_000
    await collector.collect()
    assert collector.health().level is Level.DEGRADED
    clock += 1
    collector._look()
    assert (collector.health().level, collector.tables[4].refused) == (Level.OK, 107)


async def test_a_pass_comes_early_when_room_runs_short_or_the_table_is_another(
    maps: Maps, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, slept = 0, 0

    async def sleep(seconds: float) -> None:
        nonlocal clock, slept
        clock, slept = clock + int(seconds * 1e9), slept + 1
        if slept == 3:
            happens()

    monkeypatch.setattr("axoneme.core.datapath.collector._now", lambda: clock)
    monkeypatch.setattr("axoneme.core.datapath.collector.asyncio.sleep", sleep)
    happens, seconds = (lambda: None), 1_000_000_000

    async def rest(took: int = 0) -> float:
        nonlocal clock, slept
        await collector.collect()
        clock, slept = 0, 0
        await collector._rest(took)
        return clock / seconds

    assert await rest() == 10.0
    happens = lambda: maps.enter(20)  # noqa: E731
    assert await rest() == 10.0, "room for 64, of which 20 are used"
    happens = lambda: maps.enter(22)  # noqa: E731
    assert await rest() == 3.0, "half of 44"
    happens = lambda: maps.enter(22)  # noqa: E731
    assert await rest(took=seconds // 2) == 5.0, "not at once after a long pass"
    old = maps.open["connections4"]
    happens = lambda: maps.open.update(connections4=Map.create(maps.kernel, old.spec))  # noqa: E731
    await collector.collect()
    old.clear()
    assert await rest() == 3.0
    old.close()
