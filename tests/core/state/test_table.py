"""Tables: indexes, changes and watches agree with the plainest model, whatever is done in which order."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.records import TableSpec
from axoneme.core.state.store import REMEMBERED_DELETIONS
from axoneme.core.state.table import Batch, ChangeKind, State, TableError, Transaction, WriteTable, watch_many


@frozen
class Row:
    name: str
    zone: str = "default"
    port: int = 0
    tags: frozenset[str] = frozenset()


SPEC = TableSpec(name="rows", row=Row, key=("zone", "name"), indexes=("port", "tags"))
OTHER = TableSpec(name="others", row=Row, key="name")

rows = st.builds(
    Row,
    name=st.sampled_from("abcd"),
    zone=st.sampled_from("xy"),
    port=st.integers(0, 2),
    tags=st.frozensets(st.sampled_from("pqr")),
)
keys = st.tuples(st.sampled_from("xy"), st.sampled_from("abcd"))
writes = st.one_of(st.tuples(st.just("upsert"), rows), st.tuples(st.just("delete"), keys))
transactions = st.lists(st.lists(writes, max_size=4), max_size=12)


@pytest.fixture
def state() -> State:
    return State([SPEC, OTHER])


def apply(txn: Transaction, writer: WriteTable[Row], writes: list, model: dict) -> None:
    for what, value in writes:
        if what == "upsert":
            txn.upsert(writer, value)
            model[value.zone, value.name] = value
        else:
            txn.delete(writer, value)
            model.pop(value, None)


def follow(seen: dict, batch: Batch[Row]) -> None:
    """What a watcher does: applies the changes, which must fit what it has."""
    if batch.reset:
        seen.clear()
    for change in batch.changes:
        if change.kind is ChangeKind.INSERT:
            assert change.key not in seen
        else:
            assert change.key in seen
        if change.new is None:
            del seen[change.key]
        else:
            seen[change.key] = change.new
    revisions = [change.revision for change in batch.changes]
    assert revisions == sorted(revisions)
    assert not revisions or revisions[-1] <= batch.revision


@given(transactions)
def test_indexes_equal_a_naive_filter(history: list) -> None:
    state, model = State([SPEC]), {}
    writer = state.writer("rows", Row)
    for writes in history:
        with state.transaction() as txn:
            apply(txn, writer, writes, model)
    table = state.table("rows", Row)
    assert {row.name + row.zone for row in table} == {row.name + row.zone for row in model.values()}
    assert all(table.get(key) == row for key, row in model.items())
    assert len(table) == len(model)
    for port in range(3):
        assert set(table.by("port", port)) == {row for row in model.values() if row.port == port}
    for tag in "pqr":
        assert set(table.by("tags", tag)) == {row for row in model.values() if tag in row.tags}
    assert set(table.values("port")) == {row.port for row in model.values()}


@given(transactions, st.lists(st.booleans(), max_size=12))
def test_watcher_that_applies_all_changes_has_the_table(history: list, looks: list[bool]) -> None:
    state, model, seen = State([SPEC]), {}, {}
    writer = state.writer("rows", Row)
    watch = state.table("rows", Row).watch()
    for writes, look in zip(history, [*looks, *[False] * len(history)], strict=False):
        with state.transaction() as txn:
            apply(txn, writer, writes, model)
        if look and (batch := watch.take()) is not None:
            follow(seen, batch)
    if (batch := watch.take()) is not None:
        follow(seen, batch)
    assert seen == model
    assert watch.take() is None


@given(transactions, st.integers(0, 12))
def test_changes_since_any_revision_lead_to_the_table(history: list, since: int) -> None:
    state, model, snapshots = State([SPEC]), {}, {0: {}}
    writer = state.writer("rows", Row)
    for writes in history:
        with state.transaction() as txn:
            apply(txn, writer, writes, model)
        snapshots[state.revision] = dict(model)
    since = min(since, state.revision)
    seen, batch = dict(snapshots[since]), state.table("rows", Row).changes(since)
    for change in batch.changes:
        assert change.revision > since
        if change.new is None:
            seen.pop(change.key, None)
        else:
            seen[change.key] = change.new
    assert seen == model
    assert not batch.reset


@given(transactions)
def test_sleeping_watcher_holds_one_change_per_key(history: list) -> None:
    state = State([SPEC])
    writer, watch = state.writer("rows", Row), state.table("rows").watch()
    watch.take()
    for writes in history:
        with state.transaction() as txn:
            apply(txn, writer, writes, {})
    batch = watch.take()
    assert batch is None or len(batch.changes) <= 8


def test_transaction_is_all_or_nothing(state: State) -> None:
    writer = state.writer("rows", Row)
    writer.upsert(Row("a"))
    before = state.revision

    def fail() -> None:
        with state.transaction() as txn:
            txn.upsert(writer, Row("b"))
            txn.delete(writer, ("default", "a"))
            assert txn.get(writer, ("default", "a")) is None
            assert txn.get(writer, ("default", "b")) == Row("b")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert writer.all() == [Row("a")]
    assert state.revision == before


def test_wrong_row_leaves_the_transaction_usable(state: State) -> None:
    writer = state.writer("rows", Row)
    with state.transaction() as txn:
        with pytest.raises(TableError, match="rows of Row, not str"):
            txn.upsert(writer, "nonsense")  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            txn.upsert(writer, Row("a", port=[]))  # type: ignore[arg-type]
        txn.upsert(writer, Row("b"))
    assert writer.all() == [Row("b")]


def test_one_revision_per_commit_and_none_for_nothing(state: State) -> None:
    rows, others = state.writer("rows", Row), state.writer("others", Row)
    with state.transaction() as txn:
        txn.upsert(rows, Row("a"))
        txn.upsert(rows, Row("b"))
        txn.upsert(others, Row("a"))
    assert (state.revision, rows.revision, others.revision) == (1, 1, 1)
    rows.upsert(Row("a"))
    rows.delete("nobody")
    assert state.revision == 1
    assert others.delete("a") == 2
    assert rows.revision == 1


def test_first_batch_shows_an_empty_table_too(state: State) -> None:
    watch = state.table("rows").watch()
    assert watch.take() == Batch((), 0, False, reset=True)
    assert watch.take() is None


def test_initialized_when_all_sources_said_so(state: State) -> None:
    writer = state.writer("rows", Row)
    assert not writer.initialized
    writer.expect("folder")
    writer.expect("etcd")
    writer.mark_initialized("folder")
    assert not writer.initialized
    assert writer.awaited == {"etcd"}
    writer.mark_initialized("etcd")
    assert writer.initialized
    writer.expect("late")
    assert not writer.initialized
    writer.release("late")
    assert writer.initialized


def test_released_source_alone_initialises_nothing(state: State) -> None:
    writer = state.writer("rows", Row)
    writer.expect("folder")
    writer.release("folder")
    assert not writer.initialized


async def test_watcher_is_woken_by_changes_and_by_initialisation(state: State) -> None:
    writer, batches = state.writer("rows", Row), []

    async def watch() -> None:
        async for batch in state.table("rows", Row).watch():
            batches.append(batch)
            if batch.initialized:
                return

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await asyncio.sleep(0)
        writer.upsert(Row("a"))
        await asyncio.sleep(0)
        writer.mark_initialized()
    assert [len(batch.changes) for batch in batches] == [0, 1, 0]


async def test_watch_ends_with_its_table(state: State) -> None:
    ended = asyncio.Event()

    async def watch() -> None:
        async for _ in state.table("rows").watch():
            pass
        ended.set()

    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        await asyncio.sleep(0)
        state.remove("rows")
        await ended.wait()
    with pytest.raises(TableError):
        state.table("rows")


async def test_several_tables_of_one_transaction_arrive_together(state: State) -> None:
    rows, others = state.writer("rows", Row), state.writer("others", Row)
    stream = watch_many(rows.watch(), others.watch())
    assert [batch is not None for batch in await anext(stream)] == [True, True]
    with state.transaction() as txn:
        txn.upsert(rows, Row("a"))
        txn.upsert(others, Row("a"))
    first, second = await anext(stream)
    assert first is not None
    assert second is not None
    others.upsert(Row("b"))
    first, second = await anext(stream)
    assert first is None
    assert second is not None


def test_forgotten_watch_costs_nothing(state: State) -> None:
    table = state.table("rows")
    watch = table.watch()
    watch.take()
    del watch
    gc.collect()
    assert not table._store.watches


def test_closed_watch_is_silent(state: State) -> None:
    writer = state.writer("rows", Row)
    watch = writer.watch()
    watch.close()
    writer.upsert(Row("a"))
    assert watch.take() is None
    assert watch.closed


def test_deletions_are_remembered_within_bounds(state: State) -> None:
    writer = state.writer("others", Row)
    for number in range(REMEMBERED_DELETIONS + 10):
        writer.upsert(Row(str(number)))
        writer.delete(str(number))
    assert len(writer._store.graves) == REMEMBERED_DELETIONS
    assert writer.changes(0).reset
    assert not writer.changes(state.revision - 5).reset


def test_another_thread_may_not_write(state: State) -> None:
    writer, errors = state.writer("rows", Row), []
    writer.upsert(Row("a"))

    def write() -> None:
        try:
            writer.upsert(Row("b"))
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert "another thread" in errors[0]
    assert len(writer) == 1


def test_names_that_are_not_there_are_named(state: State) -> None:
    with pytest.raises(TableError, match="did you mean rows"):
        state.table("row")
    with pytest.raises(TableError, match=r"no index prot.*port, tags"):
        state.table("rows").by("prot", 1)
    with pytest.raises(TableError, match="rows of Row, not int"):
        state.table("rows", int)
    with pytest.raises(TableError, match="has no attribute nmae"):
        State([TableSpec(name="bad", row=Row, key="nmae")])
    with pytest.raises(TableError, match="not an attrs class"):
        State([TableSpec(name="bad", row=int, key="real")])


def test_same_declaration_again_is_fine_and_another_is_not(state: State) -> None:
    state.declare(SPEC)
    with pytest.raises(TableError, match="declared twice"):
        state.declare(TableSpec(name="rows", row=Row, key="name"))
    assert state.names() == ["others", "rows"]


def test_readers_cannot_write_and_strangers_neither(state: State) -> None:
    reader = state.table("rows", Row)
    assert not hasattr(reader, "upsert")
    foreign = State([SPEC]).writer("rows", Row)
    with pytest.raises(TableError, match="not writable"), state.transaction() as txn:
        txn.upsert(foreign, Row("a"))
    with pytest.raises(TableError, match="not writable"), state.transaction() as txn:
        txn.upsert(reader, Row("a"))  # type: ignore[arg-type]


def test_single_key_in_a_tuple_stays_a_tuple() -> None:
    state = State([TableSpec(name="t", row=Row, key=("name",))])
    writer = state.writer("t", Row)
    writer.upsert(Row("a"))
    assert writer.get(("a",)) == Row("a")
    assert writer.key(Row("b")) == ("b",)


def test_empty_table_is_true(state: State) -> None:
    assert state.table("rows")
