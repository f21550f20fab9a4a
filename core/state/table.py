"""Typed tables of frozen rows, with indexes, revisions, watches and transactions.

Everything here lives in one asyncio loop: reads, transactions and watches belong to the thread that made the first
write, and a transaction never spans an `await`. That is what makes a read a plain dict lookup and a commit atomic
without a lock. A write from another thread is refused.

A **revision** counts the commits of a `State`. A commit that changes nothing (rows equal to those that are there) takes
none. A **watch** first delivers the whole table, then what changed since its last batch, coalesced per key: a watcher
that sleeps holds at most one change per row it knows or would have to learn, however much was written meanwhile.
"""

from __future__ import annotations

import difflib
import threading
from collections.abc import Hashable, Iterable, Iterator
from operator import attrgetter
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, overload

import attrs

from axoneme.core.records import TableSpec
from axoneme.core.state.store import REMEMBERED_DELETIONS, Entries, Store, TableError
from axoneme.core.state.watch import Batch, Change, ChangeKind, Key, Watch, watch_many

__all__ = [
    "REMEMBERED_DELETIONS",
    "Batch",
    "Change",
    "ChangeKind",
    "Key",
    "State",
    "Table",
    "TableError",
    "Transaction",
    "Watch",
    "WriteTable",
    "watch_many",
]

T = TypeVar("T")


class Table(Generic[T]):
    """The reader of a table. Rows are immutable; lists that it returns are the caller's own."""

    def __init__(self, store: Store[T]) -> None:
        self._store = store

    @property
    def name(self) -> str:
        return self._store.spec.name

    @property
    def spec(self) -> TableSpec:
        return self._store.spec

    @property
    def revision(self) -> int:
        """The revision of the last commit that changed this table; 0 for a table that was never written."""
        return self._store.revision

    @property
    def initialized(self) -> bool:
        """Whether every source that the table waits for has delivered its first full content."""
        return self._store.initialized

    @property
    def awaited(self) -> frozenset[str]:
        """The sources that have not said yet that they are through."""
        return frozenset(self._store.awaited)

    def key(self, row: T) -> Key:
        """The key of a row, whether it is in the table or not."""
        return self._store.key_of(row)

    def get(self, key: Key) -> T | None:
        """The row with this key (for several key attributes: the tuple of them), or None."""
        return self._store.rows.get(key)

    def all(self) -> list[T]:
        """All rows, in the order in which their keys were inserted."""
        return list(self._store.rows.values())

    def by(self, index: str, value: Hashable) -> list[T]:
        """The rows whose indexed attribute equals `value`, or contains it if the attribute is a collection.

        Raises `TableError` when the table has no such index.
        """
        try:
            keys = self._store.indexes[index].get(value, ())
        except KeyError:
            known = ", ".join(self.spec.indexes) or "none"
            raise TableError(f"table {self.name} has no index {index}", hint=f"it has: {known}") from None
        return [self._store.rows[key] for key in keys]

    def values(self, index: str) -> list[Hashable]:
        """The distinct values of an index."""
        return list(self._store.indexes[index])

    def __len__(self) -> int:
        return len(self._store.rows)

    def __bool__(self) -> bool:
        return True  # an empty table is still a table: `table or other` must not lose it

    def __contains__(self, key: Key) -> bool:
        return key in self._store.rows

    def __iter__(self) -> Iterator[T]:
        return iter(self.all())

    def changes(self, since: int) -> Batch[T]:
        """What changed after revision `since`: cost and size follow the number of changes, not the table's size.

        A key that was deleted and inserted again counts as an insert. When deletions after `since` are no longer
        remembered, the batch has `reset` set and holds the whole content.
        """
        store = self._store
        if since < store.forgotten:
            return Batch(store.snapshot(), store.revision, store.initialized, reset=True)
        found = [*store.live_since(since), *store.deleted_since(since)]
        found.sort(key=attrgetter("revision"))
        return Batch(tuple(found), store.revision, store.initialized)

    def watch(self) -> Watch[T]:
        """A new watch: an async iterator of `Batch`, the first one with the whole table (`reset` is set), even if empty."""
        watch = Watch(self._store)
        self._store.watches[id(watch)] = watch
        return watch


class WriteTable(Table[T]):
    """The writer of a table, which whoever fills it gets. It reads as well."""

    def __init__(self, store: Store[T], state: State) -> None:
        super().__init__(store)
        self._state = state

    def upsert(self, *rows: T) -> int:
        """Writes rows in a transaction of their own; returns the revision."""
        with self._state.transaction() as txn:
            txn.upsert(self, *rows)
        return self.revision

    def delete(self, *keys: Key) -> int:
        """Deletes keys (those that are there) in a transaction of their own; returns the revision."""
        with self._state.transaction() as txn:
            for key in keys:
                txn.delete(self, key)
        return self.revision

    def expect(self, source: str) -> None:
        """From now on the table is not initialised before `source` has called `mark_initialized`."""
        self._state._own()
        self._store.awaited.add(source)
        self._store.wake()

    def mark_initialized(self, source: str = "") -> None:
        """`source` has delivered its first full content. A table that expects nobody is initialised by the first mark."""
        self._state._own()
        self._store.awaited.discard(source)
        self._store.marked = True
        self._store.wake()

    def release(self, source: str) -> None:
        """`source` is gone and not waited for any more."""
        self._state._own()
        self._store.awaited.discard(source)
        self._store.wake()


class Transaction:
    """Writes that become visible together when the `with` block ends, or not at all when it raises."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._writes: dict[Store[Any], dict[Key, tuple[Any, Entries] | None]] = {}

    def upsert(self, table: WriteTable[T], *rows: T) -> None:
        """Inserts the rows, or replaces those with their keys. Raises `TableError` for a row of a wrong type."""
        writes, check = self._of(table), table._store.check
        for row in rows:
            key, entries = check(row)
            writes[key] = (row, entries)

    def delete(self, table: WriteTable[T], key: Key) -> None:
        """Deletes the row with this key; nothing happens when there is none."""
        self._of(table)[key] = None

    def get(self, table: Table[T], key: Key) -> T | None:
        """The row as it will be after the commit."""
        writes = self._writes.get(table._store, {})
        if key not in writes:
            return table.get(key)
        written = writes[key]
        return None if written is None else written[0]

    def _of(self, table: WriteTable[T]) -> dict[Key, Any]:
        if not isinstance(table, WriteTable) or table._state is not self._state:
            raise TableError(f"table {table.name} is not writable in this transaction")
        return self._writes.setdefault(table._store, {})

    def __enter__(self) -> Self:
        self._state._own()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._state._commit(self._writes)
        self._writes = {}


class State:
    """All tables of an agent, under one revision counter."""

    def __init__(self, specs: Iterable[TableSpec] = ()) -> None:
        self._stores: dict[str, Store[Any]] = {}
        self._revision = 0
        self._thread: int | None = None
        for spec in specs:
            self.declare(spec)

    @property
    def revision(self) -> int:
        """The number of commits that changed something."""
        return self._revision

    def declare(self, spec: TableSpec) -> None:
        """Adds a table. Nothing happens when it is there already; `TableError` when it is there with another spec."""
        existing = self._stores.get(spec.name)
        if existing is None:
            _check_spec(spec)
            self._stores[spec.name] = Store(spec)
        elif existing.spec != spec:
            raise TableError(f"table {spec.name} is declared twice, differently")

    def remove(self, name: str) -> None:
        """Takes a table away with its content; its watches end."""
        self._own()
        for watch in list(self._store(name).watches.values()):
            watch.close()
        del self._stores[name]

    def names(self) -> list[str]:
        return sorted(self._stores)

    @overload
    def table(self, name: str) -> Table[Any]: ...
    @overload
    def table(self, name: str, row: type[T]) -> Table[T]: ...
    def table(self, name: str, row: type[Any] | None = None) -> Table[Any]:
        """The reader of a table; with `row` typed, and checked to be the table's row class."""
        return Table(self._store(name, row))

    @overload
    def writer(self, name: str) -> WriteTable[Any]: ...
    @overload
    def writer(self, name: str, row: type[T]) -> WriteTable[T]: ...
    def writer(self, name: str, row: type[Any] | None = None) -> WriteTable[Any]:
        """The writer of a table; with `row` typed, and checked to be the table's row class."""
        return WriteTable(self._store(name, row), self)

    def transaction(self) -> Transaction:
        """`with state.transaction() as txn: txn.upsert(writer, row); txn.delete(writer, key)`; no `await` inside."""
        return Transaction(self)

    def _store(self, name: str, row: type[Any] | None = None) -> Store[Any]:
        store = self._stores.get(name)
        if store is None:
            near = difflib.get_close_matches(name, self._stores, 1)
            raise TableError(f"there is no table {name}", hint=f"did you mean {near[0]}?" if near else None)
        if row is not None and store.spec.row is not row:
            raise TableError(f"table {name} has rows of {store.spec.row.__name__}, not {row.__name__}")
        return store

    def _own(self) -> None:
        """A cheap guard of the one rule: all writes come from one thread."""
        thread = threading.get_ident()
        if self._thread is None:
            self._thread = thread
        if self._thread != thread:
            raise RuntimeError("the tables belong to another thread; hand the write to its event loop")

    def _commit(self, writes: dict[Store[Any], dict[Key, Any]]) -> None:
        self._own()
        effective = [
            (store, changes)
            for store, keys in writes.items()
            if (changes := [(key, new) for key, new in keys.items() if _is_change(store.rows.get(key), new)])
        ]
        if not effective:
            return
        self._revision += 1
        for store, changes in effective:
            store.write(changes, self._revision)


def _is_change(old: Any, written: tuple[Any, Entries] | None) -> bool:
    if old is None or written is None:
        return (old is None) != (written is None)
    new = written[0]
    return old is not new and bool(old != new)


def _check_spec(spec: TableSpec) -> None:
    if not attrs.has(spec.row):
        raise TableError(f"table {spec.name}: {spec.row.__name__} is not an attrs class")
    key = (spec.key,) if isinstance(spec.key, str) else spec.key
    known = {a.name for a in attrs.fields(spec.row)} | set(dir(spec.row))
    for name in (*key, *spec.indexes):
        if name not in known:
            raise TableError(f"table {spec.name}: {spec.row.__name__} has no attribute {name}")
