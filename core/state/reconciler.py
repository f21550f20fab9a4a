"""Reconcilers: they make something real be what a table says, and keep at it.

A reconciler follows its table's changes, hands them to `Operations` in batches, tries failed rows again with exponential
back-off and jitter, and knows the status of each row. Once the table is initialised, and never before, it prunes: what is
realised but not in the table goes. The whole table is written and pruned again from time to time, against drift.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from attrs import define, frozen

from axoneme.core import logs
from axoneme.core.records import Health, Level
from axoneme.core.state.table import Batch, Key, Table

log = logs.get(__name__)

T = TypeVar("T")
R = TypeVar("R", contravariant=True)

#: Rows that failed, by key, with what went wrong. None or empty: all succeeded.
Failures = Mapping[Key, Exception] | None

#: When a whole batch raised, its rows are tried one by one; after so many failures in a row the rest waits.
GIVE_UP: Final = 8


class Operations(Protocol[R]):
    """What it takes to make rows real. All of it is idempotent; it may be called again with what is done already.

    A method returns the rows that failed. Raising says that the batch failed, any part of it may have been done.
    """

    async def update(self, rows: Sequence[R]) -> Failures:
        """Makes these rows real, whether they are new, changed or as they were."""
        ...

    async def delete(self, rows: Sequence[R]) -> Failures:
        """Takes these rows away. That one is not there is no failure."""
        ...

    async def prune(self, rows: Sequence[R]) -> None:
        """Takes away all that is realised but not among `rows`, the whole content of the table."""
        ...


class RowState(enum.StrEnum):
    PENDING = "pending"
    DONE = "done"
    ERROR = "error"


@frozen
class RowStatus:
    """How far a row is.

    :param revision: of the table, with which this version of the row came.
    :param reason: of the last failure.
    :param failures: in a row.
    """

    state: RowState
    revision: int
    reason: str = ""
    failures: int = 0


@define
class _Work(Generic[T]):
    """A row that is to be made real (`row` given) or taken away (`gone` given)."""

    row: T | None
    gone: T | None
    revision: int
    due: float
    failures: int = 0
    reason: str = ""
    alone: int = 0  # failures when it was the only row of its call: surely its own


class Backoff:
    """Growing delays with jitter: about `first`, twice that, … up to about `longest` seconds; each ± 25 %."""

    def __init__(
        self, first: float = 0.1, longest: float = 60.0, source: random.Random | None = None
    ) -> None:
        self.first, self.longest = first, longest
        self._random = source or random.Random()  # noqa: S311 -- spreads retries, guards nothing

    def delay(self, failures: int) -> float:
        """The delay after so many failures in a row, at least one, in seconds."""
        exact = min(self.longest, self.first * 2.0 ** min(failures - 1, 64))
        return exact * self._random.uniform(0.75, 1.25)


class Reconciler(Generic[T]):
    """Realises one table. `run` is what a `Service` runs.

    :param name: for messages.
    :param period: seconds between full reconciliations; `math.inf` for none.
    :param batch: the most rows of one call.
    :param clock: seconds, rising.
    """

    def __init__(
        self,
        table: Table[T],
        operations: Operations[T],
        *,
        name: str = "",
        period: float = 300.0,
        batch: int = 4096,
        backoff: Backoff | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name or table.name
        self._table, self._operations = table, operations
        self._period, self._batch, self._clock = period, batch, clock
        self._backoff = backoff or Backoff()
        self._watch = table.watch()
        self._work: dict[Key, _Work[T]] = {}
        self._done: dict[Key, int] = {}
        self._initialized = False
        self._full_due = math.inf
        self._prune_due = math.inf
        self._prune_failures = 0
        self._prune_reason = ""
        self._caught_up = False

    async def run(self, ready: Callable[[], None]) -> None:
        """Reconciles until cancelled. Calls `ready` when each row of the initialised table was tried, and pruning too."""
        told = False
        while not self._watch.closed:
            due = await self.step()
            if self._caught_up and not told:
                told = True
                ready()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if math.isinf(due) else max(0.0, due - self._clock())):
                    await self._watch.wait()

    async def step(self) -> float:
        """Does all that is due; returns when (on the clock) there will be more, unless the table changes earlier."""
        now = self._clock()
        if (batch := self._watch.take()) is not None:
            self._learn(batch, now)
        if now >= self._full_due:
            self._learn_all(now)
        due = [(key, work) for key, work in self._work.items() if work.due <= now]
        due.sort(
            key=lambda item: item[1].alone
        )  # bad rows must not hold up those that were not tried alone yet
        await self._apply([item for item in due if item[1].row is not None], self._operations.update)
        await self._apply([item for item in due if item[1].row is None], self._operations.delete)
        if now >= self._prune_due:
            await self._prune()
        if self._initialized and all(work.failures for work in self._work.values()) and self._prune_tried:
            self._caught_up = True
        return min(self._full_due, self._prune_due, *(work.due for work in self._work.values()), math.inf)

    def status(self, key: Key) -> RowStatus | None:
        """The status of a row; of a deleted one until it is taken away. None for what the reconciler does not know."""
        if (work := self._work.get(key)) is not None:
            state = RowState.ERROR if work.failures else RowState.PENDING
            return RowStatus(state, work.revision, work.reason, work.failures)
        if (revision := self._done.get(key)) is not None:
            return RowStatus(RowState.DONE, revision)
        return None

    def statuses(self) -> dict[Key, RowStatus]:
        """The status of every row that the reconciler knows."""
        return {key: status for key in (*self._work, *self._done) if (status := self.status(key)) is not None}

    def health(self) -> Health:
        """Degraded while rows fail or pruning does; unknown before the table is initialised and realised."""
        failed = {key: work for key, work in self._work.items() if work.failures}
        if failed:
            key, work = next(iter(failed.items()))
            total = len(self._work.keys() | self._done.keys())
            return Health(
                level=Level.DEGRADED,
                reason=f"{len(failed)} of {total} rows of {self.name} failed, for example {key}: {work.reason}",
            )
        if self._prune_failures:
            return Health(level=Level.DEGRADED, reason=f"cannot prune {self.name}: {self._prune_reason}")
        if not self._caught_up:
            waits = ", ".join(sorted(self._table.awaited)) or "its first content"
            reason = (
                f"{self.name} waits for {waits}"
                if not self._initialized
                else f"{self.name} is being realised"
            )
            return Health(level=Level.UNKNOWN, reason=reason)
        return Health(level=Level.OK)

    # Learning what is to be done

    def _learn(self, batch: Batch[T], now: float) -> None:
        for change in batch.changes:
            self._done.pop(change.key, None)
            gone = change.old if change.new is None else None
            self._work[change.key] = _Work(change.new, gone, change.revision, now)
        if batch.initialized and not self._initialized:
            self._prune_due, self._full_due = now, now + self._period
        self._initialized = batch.initialized

    def _learn_all(self, now: float) -> None:
        """The full reconciliation: every row again, and pruning. Rows that wait for another try keep waiting."""
        self._full_due = now + self._period
        for row in self._table.all():
            key = self._table.key(row)
            if key in self._done:
                self._work[key] = _Work(row, None, self._done[key], now)
        if self._initialized:
            self._prune_due = min(self._prune_due, now)

    # Doing it

    async def _apply(
        self, items: list[tuple[Key, _Work[T]]], operation: Callable[[Sequence[T]], Any]
    ) -> None:
        for start in range(0, len(items), self._batch):
            part = items[start : start + self._batch]
            try:
                failures = await operation(_rows(part)) or {}
            except Exception as error:  # noqa: BLE001 -- whatever went wrong is a status, and tried again
                failures = await self._one_by_one(part, operation, error)
            for key, work in part:
                self._settle(key, work, failures.get(key))

    async def _one_by_one(
        self, items: list[tuple[Key, _Work[T]]], operation: Callable[[Sequence[T]], Any], error: Exception
    ) -> dict[Key, Exception]:
        """Finds out which rows of a failed batch are the bad ones, unless nearly all seem to be."""
        if len(items) == 1:
            items[0][1].alone += 1
            return {items[0][0]: error}
        failures: dict[Key, Exception] = {}
        streak = 0
        for number, (key, work) in enumerate(items):
            try:
                found = await operation(_rows([(key, work)])) or {}
            except Exception as single:  # noqa: BLE001 -- as above
                found = {key: single}
            failures.update(found)
            work.alone += bool(found)
            streak = streak + 1 if found else 0
            if streak >= GIVE_UP:
                failures.update((other, error) for other, _ in items[number + 1 :])
                break
        return failures

    def _settle(self, key: Key, work: _Work[T], error: Exception | None) -> None:
        if error is None:
            del self._work[key]
            if work.row is not None:
                self._done[key] = work.revision
            return
        work.failures += 1
        work.reason = str(error) or type(error).__name__
        work.due = self._clock() + self._backoff.delay(work.failures)
        if work.failures == 1:
            log.warning("row_failed", reconciler=self.name, key=key, reason=work.reason)

    @property
    def _prune_tried(self) -> bool:
        return self._prune_failures > 0 or math.isinf(self._prune_due)

    async def _prune(self) -> None:
        """Prunes, with the table as it is at this moment: rows that came meanwhile must not be taken away."""
        if not self._table.initialized:
            self._prune_due = math.inf  # a new source joined; its first full content will start it again
            return
        try:
            await self._operations.prune(self._table.all())
            self._prune_due, self._prune_failures = math.inf, 0
        except Exception as error:  # noqa: BLE001 -- as above
            self._prune_failures += 1
            self._prune_reason = str(error) or type(error).__name__
            self._prune_due = self._clock() + self._backoff.delay(self._prune_failures)
            log.warning("prune_failed", reconciler=self.name, reason=self._prune_reason)


def _rows(items: Sequence[tuple[Key, _Work[T]]]) -> list[T]:
    return [row for _, work in items if (row := work.row if work.row is not None else work.gone) is not None]
