"""Reconcilers reach what the table says, whatever changes and whatever fails on the way."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence

import pytest
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.records import Level, TableSpec
from axoneme.core.state.reconciler import GIVE_UP, Backoff, Failures, Reconciler, RowState
from axoneme.core.state.table import State, WriteTable


@frozen
class Row:
    name: str
    value: int = 0


SPEC = TableSpec(name="rows", row=Row, key="name")


class World:
    """What is realised. `bad` names fail, one by one or as a batch; `broken` counts calls that raise."""

    def __init__(self) -> None:
        self.real: dict[str, int] = {}
        self.bad: set[str] = set()
        self.broken = 0
        self.whole_batches = False
        self.calls: list[tuple[str, tuple[str, ...]]] = []
        self.changed = asyncio.Condition()

    async def until(self, name: str) -> None:
        """Returns when `name` is real."""
        async with self.changed:
            await self.changed.wait_for(lambda: name in self.real)

    async def update(self, rows: Sequence[Row]) -> Failures:
        failures = self._do("update", rows)
        async with self.changed:
            self.changed.notify_all()
        return failures

    async def delete(self, rows: Sequence[Row]) -> Failures:
        return self._do("delete", rows)

    async def prune(self, rows: Sequence[Row]) -> None:
        self._break("prune", rows)
        wanted = {row.name for row in rows}
        self.real = {name: value for name, value in self.real.items() if name in wanted}

    def _do(self, what: str, rows: Sequence[Row]) -> Failures:
        self._break(what, rows)
        failures: dict[object, Exception] = {}
        for row in rows:
            if row.name in self.bad:
                if self.whole_batches:
                    raise OSError(f"{row.name} is bad")
                failures[row.name] = OSError(f"{row.name} is bad")
            elif what == "update":
                self.real[row.name] = row.value
            else:
                self.real.pop(row.name, None)
        return failures

    def _break(self, what: str, rows: Sequence[Row]) -> None:
        self.calls.append((what, tuple(row.name for row in rows)))
        if self.broken:
            self.broken -= 1
            raise RuntimeError("out of order")


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Bench:
    """A table, a world and a reconciler between them, on a clock of their own."""

    def __init__(self, period: float = math.inf) -> None:
        self.clock, self.world = Clock(), World()
        self.table: WriteTable[Row] = State([SPEC]).writer("rows", Row)
        self.reconciler = Reconciler(
            self.table,
            self.world,
            period=period,
            backoff=Backoff(1.0, 8.0, random.Random(1)),
            clock=self.clock,
        )

    async def settle(self, seconds: float = 0.0) -> None:
        """Lets `seconds` pass, and all that becomes due in them."""
        end = self.clock.now + seconds
        while (due := await self.reconciler.step()) <= end:
            self.clock.now = max(self.clock.now, due)
        self.clock.now = end

    @property
    def wanted(self) -> dict[str, int]:
        return {row.name: row.value for row in self.table}

    def state(self, name: str) -> RowState | None:
        status = self.reconciler.status(name)
        return None if status is None else status.state


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_rows_are_realised_changed_and_taken_away(bench: Bench) -> None:
    bench.table.upsert(Row("a"), Row("b"))
    await bench.settle()
    assert bench.world.real == {"a": 0, "b": 0}
    bench.table.upsert(Row("a", 5))
    bench.table.delete("b")
    assert bench.state("a") is RowState.DONE
    await bench.settle()
    assert bench.world.real == {"a": 5}
    assert bench.state("b") is None
    assert bench.reconciler.statuses()["a"].revision == 2
    assert bench.world.calls == [("update", ("a", "b")), ("update", ("a",)), ("delete", ("b",))]


async def test_nothing_is_pruned_before_the_table_is_initialised(bench: Bench) -> None:
    bench.world.real = {"old": 1, "a": 1}
    bench.table.expect("folder")
    bench.table.upsert(Row("a", 2))
    await bench.settle(100)
    assert bench.world.real == {"old": 1, "a": 2}
    assert bench.reconciler.health().level is Level.UNKNOWN
    assert "waits for folder" in bench.reconciler.health().reason
    bench.table.mark_initialized("folder")
    await bench.settle()
    assert bench.world.real == {"a": 2}
    assert bench.reconciler.health().level is Level.OK


async def test_new_source_stops_pruning_until_it_is_through(bench: Bench) -> None:
    bench.table.mark_initialized()
    await bench.settle()
    bench.table.expect("late")
    await bench.settle()
    bench.world.real = {"late": 1}
    bench.table.upsert(Row("late", 1))
    bench.table.mark_initialized("late")
    await bench.settle()
    assert bench.world.real == {"late": 1}
    assert [call for call in bench.world.calls if call[0] == "prune"] == [("prune", ()), ("prune", ("late",))]


async def test_failed_row_is_tried_again_with_growing_delays(bench: Bench) -> None:
    bench.table.upsert(Row("good"), Row("bad"))
    bench.world.bad = {"bad"}
    times = []
    for _ in range(6):
        due = await bench.reconciler.step()
        times.append(due - bench.clock.now)
        bench.clock.now = due
    for number, seconds in enumerate(times):
        exact = min(8.0, 2.0**number)
        assert exact * 0.75 <= seconds <= exact * 1.25
    status = bench.reconciler.status("bad")
    assert status is not None
    assert (status.state, status.reason, status.failures) == (RowState.ERROR, "bad is bad", 6)
    assert bench.state("good") is RowState.DONE
    assert bench.world.calls[1] == ("update", ("bad",))
    assert "1 of 2 rows of rows failed, for example bad: bad is bad" in bench.reconciler.health().reason
    bench.world.bad = set()
    await bench.settle(20)
    assert bench.world.real == bench.wanted


async def test_new_content_gets_a_new_try_at_once(bench: Bench) -> None:
    bench.table.upsert(Row("bad"))
    bench.world.bad = {"bad"}
    await bench.settle()
    bench.world.bad = set()
    bench.table.upsert(Row("bad", 1))
    await bench.settle()
    assert bench.world.real == {"bad": 1}


async def test_deletion_is_tried_until_it_works(bench: Bench) -> None:
    bench.table.upsert(Row("a"))
    await bench.settle()
    bench.world.bad = {"a"}
    bench.table.delete("a")
    await bench.settle()
    assert bench.state("a") is RowState.ERROR
    bench.world.bad = set()
    await bench.settle(5)
    assert bench.world.real == {}
    assert bench.state("a") is None


async def test_row_that_spoils_its_batch_spoils_only_itself(bench: Bench) -> None:
    bench.world.whole_batches = True
    bench.world.bad = {"b"}
    bench.table.upsert(Row("a"), Row("b"), Row("c"))
    await bench.settle()
    assert bench.world.real == {"a": 0, "c": 0}
    assert bench.state("b") is RowState.ERROR


async def test_many_bad_rows_do_not_hold_up_the_others(bench: Bench) -> None:
    bench.world.whole_batches = True
    bench.world.bad = {f"bad{number}" for number in range(GIVE_UP)}
    bench.table.upsert(*(Row(name) for name in sorted(bench.world.bad)), Row("good"))
    await bench.settle()
    assert len(bench.world.calls) == 1 + GIVE_UP  # then it gave up: as good as all are bad
    await bench.settle(3)
    assert bench.world.real == {"good": 0}


async def test_all_is_written_and_pruned_again_from_time_to_time() -> None:
    bench = Bench(period=100)
    bench.table.upsert(Row("a", 1))
    bench.table.mark_initialized()
    await bench.settle()
    bench.world.real = {"a": 7, "stranger": 1}
    await bench.settle(99)
    assert bench.world.real == {"a": 7, "stranger": 1}
    await bench.settle(2)
    assert bench.world.real == {"a": 1}


async def test_failed_pruning_is_told_and_tried_again(bench: Bench) -> None:
    bench.world.real = {"old": 1}
    bench.world.broken = 1
    bench.table.mark_initialized()
    await bench.settle()
    assert bench.reconciler.health().reason == "cannot prune rows: out of order"
    await bench.settle(3)
    assert bench.world.real == {}
    assert bench.reconciler.health().level is Level.OK


async def test_big_batches_are_cut(bench: Bench) -> None:
    bench.reconciler._batch = 2
    bench.table.upsert(*(Row(name) for name in "abcde"))
    await bench.settle()
    assert [call[1] for call in bench.world.calls] == [("a", "b"), ("c", "d"), ("e",)]


async def test_run_is_ready_when_it_has_caught_up() -> None:
    world, table = World(), State([SPEC]).writer("rows", Row)
    table.expect("source")
    table.upsert(Row("a"), Row("bad"))
    world.bad = {"bad"}
    ready = asyncio.Event()
    calls: list[None] = []

    def tell() -> None:
        calls.append(None)
        ready.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(Reconciler(table, world, backoff=Backoff(0.001, 0.01)).run(tell))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not ready.is_set()
        table.mark_initialized("source")
        await ready.wait()
        table.upsert(Row("b"))
        await world.until("b")
        world.bad = set()
        await world.until("bad")
        task.cancel()
    assert len(calls) == 1


async def test_run_ends_with_its_table() -> None:
    state = State([SPEC])
    reconciler = Reconciler(state.table("rows", Row), World())
    state.remove("rows")
    await reconciler.run(lambda: None)


def test_backoff_stays_in_its_bounds() -> None:
    backoff = Backoff(0.5, 10)
    for failures in (1, 2, 5, 1000):
        exact = min(10, 0.5 * 2 ** min(failures - 1, 64))
        assert exact * 0.75 <= backoff.delay(failures) <= exact * 1.25


names = st.sampled_from("abcdef")
steps = st.one_of(
    st.tuples(st.just("upsert"), names, st.integers(0, 3)),
    st.tuples(st.just("delete"), names),
    st.tuples(st.just("bad"), st.frozensets(names), st.booleans()),
    st.tuples(st.just("broken"), st.integers(1, 4)),
    st.tuples(st.just("drift"), names, st.integers(0, 3)),
    st.tuples(st.just("initialized")),
    st.tuples(st.just("pass"), st.floats(0, 20)),
)


@settings(deadline=None, max_examples=200)
@given(st.lists(steps, max_size=40))
async def test_it_converges(history: list[tuple]) -> None:
    bench = Bench(period=1000)
    for step in history:
        match step:
            case ("upsert", name, value):
                bench.table.upsert(Row(name, value))
            case ("delete", name):
                bench.table.delete(name)
            case ("bad", bad, whole):
                bench.world.bad, bench.world.whole_batches = set(bad), whole
            case ("broken", count):
                bench.world.broken = count
            case ("drift", name, value):
                bench.world.real[name] = value
            case ("initialized",):
                bench.table.mark_initialized()
            case ("pass", seconds):
                await bench.settle(seconds)
    bench.world.bad, bench.world.broken = set(), 0
    bench.table.mark_initialized()
    await bench.settle(2100)
    assert bench.world.real == bench.wanted
    assert {name: status.state for name, status in bench.reconciler.statuses().items()} == dict.fromkeys(
        bench.wanted, RowState.DONE
    )
    assert bench.reconciler.health().level is Level.OK
