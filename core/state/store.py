"""The content of one table: rows, indexes, and the memory of what changed when. `axoneme.core.state.table` is its face."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Any, Generic, TypeVar

from axoneme.core.errors import AxonemeError
from axoneme.core.records import TableSpec
from axoneme.core.state.watch import Change, ChangeKind, Key, Watch

T = TypeVar("T")
#: The values of a row's indexed attributes, in the order of the indexes.
Entries = tuple[Hashable, ...]

#: Deletions that a table remembers for `Table.changes`, at least; it remembers as many as it has rows if these are more.
REMEMBERED_DELETIONS = 1024


class TableError(AxonemeError):
    """A table that is not there, is declared twice differently, or a row that does not belong into it."""


class Store(Generic[T]):
    """The content of one table."""

    def __init__(self, spec: TableSpec) -> None:
        self.spec = spec
        self.key_of: Callable[[T], Key] = _key_getter(spec)
        #: The values that a row is found by in `indexes`, as they are: a collection stands for each of its elements.
        self.entries: Callable[[T], Entries] = _getter(spec.indexes)
        self.rows: dict[Key, T] = {}
        self.indexes: dict[str, dict[Hashable, dict[Key, None]]] = {name: {} for name in spec.indexes}
        self.revision = 0
        #: Live keys in the order of their last change → (revision of the insert, of the last change).
        self.revisions: dict[Key, tuple[int, int]] = {}
        #: Deleted keys in the order of their deletion → (revision, last row).
        self.graves: dict[Key, tuple[int, T]] = {}
        self.forgotten = 0  # the revision of the youngest deletion that is no longer in `graves`
        self.watches: weakref.WeakValueDictionary[int, Watch[T]] = weakref.WeakValueDictionary()
        self.awaited: set[str] = set()
        self.marked = False

    @property
    def initialized(self) -> bool:
        return self.marked and not self.awaited

    def check(self, row: Any) -> tuple[Key, Entries]:
        """Key and index entries of a row; raises before anything is written."""
        if not isinstance(row, self.spec.row):
            raise TableError(
                f"table {self.spec.name} has rows of {self.spec.row.__name__}, not {type(row).__name__}"
            )
        key, entries = self.key_of(row), self.entries(row)
        hash(key), hash(entries)
        return key, entries

    def write(self, changes: Iterable[tuple[Key, tuple[T, Entries] | None]], revision: int) -> None:
        """Rows with what `check` gave, or None for those to delete, which are there; and tells the watches."""
        self.revision = revision
        inserted = (revision, revision)  # one for all: a first reading writes very many rows
        watches = list(self.watches.values())
        for key, written in changes:
            old, new = self.rows.get(key), None
            if written is None:
                self.drop(key, revision)
            else:
                new = written[0]
                self.put(key, old, new, written[1], inserted)
            for watch in watches:
                watch._note(key, old, new, revision)

    def put(self, key: Key, old: T | None, row: T, entries: Entries, revisions: tuple[int, int]) -> None:
        """:param revisions: those of a row that is new."""
        if old is not None:
            revisions = (self.revisions.pop(key)[0], revisions[1])
            self.unindex(key, old)
        self.graves.pop(key, None)
        self.rows[key] = row
        self.revisions[key] = revisions
        for index, entry in zip(self.indexes.values(), entries, strict=True):
            for value in entry if isinstance(entry, (tuple, frozenset)) else (entry,):
                if (keys := index.get(value)) is None:
                    index[value] = {key: None}
                else:
                    keys[key] = None

    def drop(self, key: Key, revision: int) -> None:
        old = self.rows.pop(key)
        del self.revisions[key]
        self.unindex(key, old)
        self.graves[key] = (revision, old)
        if len(self.graves) > max(REMEMBERED_DELETIONS, len(self.rows)):
            oldest = next(iter(self.graves))
            self.forgotten = self.graves.pop(oldest)[0]

    def unindex(self, key: Key, row: T) -> None:
        for index, entry in zip(self.indexes.values(), self.entries(row), strict=True):
            for value in entry if isinstance(entry, (tuple, frozenset)) else (entry,):
                keys = index.get(value, {})
                keys.pop(key, None)
                if not keys:
                    index.pop(value, None)

    def wake(self) -> None:
        for watch in self.watches.values():
            watch._signal.set()

    def snapshot(self) -> tuple[Change[T], ...]:
        return tuple(
            Change(ChangeKind.INSERT, key, None, self.rows[key], revision)
            for key, (_, revision) in self.revisions.items()
        )

    def live_since(self, since: int) -> Iterator[Change[T]]:
        """The live rows written after a revision, youngest first."""
        newest = itertools.takewhile(lambda item: item[1][1] > since, reversed(self.revisions.items()))
        for key, (created, revision) in newest:
            kind = ChangeKind.INSERT if created > since else ChangeKind.UPDATE
            yield Change(kind, key, None, self.rows[key], revision)

    def deleted_since(self, since: int) -> Iterator[Change[T]]:
        """The rows deleted after a revision, youngest first."""
        newest = itertools.takewhile(lambda item: item[1][0] > since, reversed(self.graves.items()))
        for key, (revision, row) in newest:
            yield Change(ChangeKind.DELETE, key, row, None, revision)


def _key_getter(spec: TableSpec) -> Callable[[Any], Key]:
    return attrgetter(spec.key) if isinstance(spec.key, str) else _getter(spec.key)


def _getter(names: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    """Gives these attributes of a row, always as a tuple."""
    if len(names) > 1:
        return attrgetter(*names)
    getters = [attrgetter(name) for name in names]
    return lambda row: tuple([get(row) for get in getters])
