"""What watchers of a table get: changes, in batches, coalesced per key."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncIterator, Hashable
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Self, TypeVar

from attrs import frozen

if TYPE_CHECKING:
    from axoneme.core.state.store import Store

T = TypeVar("T")
Key = Hashable


class ChangeKind(enum.StrEnum):
    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


class Change(NamedTuple, Generic[T]):
    """What became of one key.

    :param old: in a watch, the row as this watcher last got it (None for an insert). `Table.changes` does not know the
        row before an update and gives None.
    :param new: the row as it is now; None for a deletion.
    :param revision: of the commit that wrote `new`, or deleted the row.
    """

    kind: ChangeKind
    key: Key
    old: T | None
    new: T | None
    revision: int

    @property
    def row(self) -> T:
        """The row that the change is about: the new one, for a deletion the old one."""
        row = self.new if self.new is not None else self.old
        assert row is not None
        return row


@frozen
class Batch(Generic[T]):
    """Changes in the order of their revisions, one per key.

    :param revision: the table's revision with these changes applied.
    :param initialized: whether all sources of the table had delivered their first full content by then.
    :param reset: the changes are the whole content: what the reader has beyond it is gone.
    """

    changes: tuple[Change[T], ...]
    revision: int
    initialized: bool
    reset: bool = False


class Watch(Generic[T]):
    """The changes of one table, for one consumer: `async for batch in table.watch()`.

    It holds nothing until its first batch was taken. It ends (the loop finishes) when it is closed or its table removed.
    A watch that nobody refers to any more is forgotten by its table.
    """

    def __init__(self, store: Store[T]) -> None:
        self._store = store
        self._signal = asyncio.Event()
        self._signal.set()
        self._pending: dict[Key, Change[T]] | None = None
        self._initialized = False
        self._closed = False

    def take(self) -> Batch[T] | None:
        """The batch that is due now, or None when the watcher knows everything already."""
        self._signal.clear()
        if self._closed:
            return None
        store, initialized = self._store, self._store.initialized
        if (first := self._pending is None) or self._pending or initialized != self._initialized:
            changes = store.snapshot() if self._pending is None else tuple(self._pending.values())
            self._pending, self._initialized = {}, initialized
            return Batch(changes, store.revision, initialized, reset=first)
        return None

    async def wait(self) -> None:
        """Returns when `take` is worth calling."""
        await self._signal.wait()

    def close(self) -> None:
        """Ends the watch; harmless when it has ended already."""
        self._closed = True
        self._pending = {}
        self._store.watches.pop(id(self), None)
        self._signal.set()

    @property
    def closed(self) -> bool:
        return self._closed

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Batch[T]:
        while not self._closed:
            if (batch := self.take()) is not None:
                return batch
            await self.wait()
        raise StopAsyncIteration

    def _note(self, key: Key, old: T | None, new: T | None, revision: int) -> None:
        if self._pending is None:  # the first batch will show it anyway
            return
        earlier = self._pending.pop(key, None)
        seen = old if earlier is None else earlier.old
        if seen is not None or new is not None:
            self._pending[key] = Change(_kind(seen, new), key, seen, new, revision)
        self._signal.set()


async def watch_many(
    *watches: Watch[Any], wake: asyncio.Event | None = None
) -> AsyncIterator[tuple[Batch[Any] | None, ...]]:
    """Batches of several tables together: one tuple whenever any of them changed, None for those that did not.

    What one transaction wrote into several tables arrives in one tuple. It ends when one of the watches ends.

    :param wake: somebody who has other things to do sets it, and gets a tuple, even one of nothing but None.
    """
    signal = asyncio.Event() if wake is None else wake
    signal.set()
    for watch in watches:
        watch._signal = signal
    while not any(watch.closed for watch in watches):
        woken = wake is not None and wake.is_set()
        batches = tuple(watch.take() for watch in watches)
        if woken or any(batch is not None for batch in batches):
            yield batches
        else:
            await signal.wait()


def _kind(old: Any, new: Any) -> ChangeKind:
    if new is None:
        return ChangeKind.DELETE
    return ChangeKind.INSERT if old is None else ChangeKind.UPDATE
