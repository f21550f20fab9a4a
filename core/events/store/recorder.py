"""The service that keeps what the programs report: from the event stream to the store, twice a second.

Nothing here may hold up the agent. Writing happens in a thread; what comes meanwhile waits in bounded queues, one for
connections, one for samples of those that go on and one for drops, so that a flood of the one does not wash away the
others. What finds no room is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from axoneme.core import logs
from axoneme.core.datapath.abi import EventType
from axoneme.core.errors import AxonemeError
from axoneme.core.events.rules import RULES
from axoneme.core.events.store.codec import Records
from axoneme.core.events.store.journal import Names
from axoneme.core.events.store.writer import EventStore, Limits
from axoneme.core.events.stream import EventStream, Listener
from axoneme.core.records import DropReason, Health, Level, Metric, MetricType
from axoneme.core.settings import StoreSettings
from axoneme.core.state.table import State, Watch
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES

log = logs.get(__name__)

#: Seconds between two writes: what a crash may cost.
PERIOD: Final = 0.5
#: Seconds between two looks for what is too old, while nothing happens.
EXPIRY: Final = 60.0
#: How many records may wait for the next write, 152 bytes each.
QUEUES: Final = (
    ((EventType.NEW, EventType.CLOSE), 32_768),
    ((EventType.UPDATE,), 65_536),
    ((EventType.DROP,), 8_192),
)
#: Rows that are remembered after they are gone, of each table: late records still speak of them.
REMEMBERED: Final = 16_384

_TABLES = {"endpoints": ENDPOINTS.name, "identities": IDENTITIES.name, "rules": RULES.name}


class Directory:
    """What endpoints, identities and rules are, and for a while what those were that are gone."""

    def __init__(self, state: State, reasons: Callable[[], Mapping[int, DropReason]]) -> None:
        self.rows: dict[str, dict[int, Any]] = {kind: {} for kind in _TABLES}
        self._gone: dict[str, OrderedDict[int, None]] = {kind: OrderedDict() for kind in _TABLES}
        self._watches: dict[str, Watch[Any]] = {
            kind: state.table(name).watch() for kind, name in _TABLES.items()
        }
        self._reasons = reasons

    def follow(self) -> Names:
        """Takes in what changed; what is known now. The rows may be read from another thread meanwhile."""
        for kind, watch in self._watches.items():
            batch = watch.take()
            for change in batch.changes if batch else ():
                self._enter(kind, int(change.key), change.row, gone=change.new is None)  # type: ignore[call-overload]
        return Names(reasons=self._reasons(), **self.rows)

    def _enter(self, kind: str, number: int, row: Any, *, gone: bool) -> None:
        remembered = self._gone[kind]
        remembered.pop(number, None)
        self.rows[kind][number] = row
        if gone:
            remembered[number] = None
            if len(remembered) > REMEMBERED:
                del self.rows[kind][remembered.popitem(last=False)[0]]

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()


class Recorder:
    """:ivar lost: records that were not kept, by why: `backlog` (the writer was too slow), `disk`."""

    def __init__(
        self,
        stream: EventStream,
        state: State,
        reasons: Callable[[], Mapping[int, DropReason]],
        settings: Callable[[], StoreSettings],
        folder: Path,
        node: str,
    ) -> None:
        """:param settings: asked again before each write, since a reload may change them."""
        self.store: EventStore | None = None
        self.folder = folder
        self._stream, self._state, self._reasons, self._settings = stream, state, reasons, settings
        self._node = node
        self._listeners: tuple[Listener, ...] = ()
        #: Records that were written.
        self.written = 0
        self._problem = ""
        self._lost = {"backlog": 0, "disk": 0}
        self._writing = threading.Lock()
        self._looked = 0.0

    @property
    def lost(self) -> Mapping[str, int]:
        waiting = sum(listener.lost for listener in self._listeners)
        return {**self._lost, "backlog": self._lost["backlog"] + waiting}

    async def run(self, ready: Callable[[], None]) -> None:
        """Lives until cancelled, and then still writes what waits."""
        directory = Directory(self._state, self._reasons)
        with contextlib.ExitStack() as owned:
            self._listeners = tuple(
                owned.enter_context(self._stream.listen(types, backlog=backlog)) for types, backlog in QUEUES
            )
            ready()
            try:
                while True:
                    await asyncio.sleep(PERIOD)
                    names, batches = directory.follow(), self._waiting()
                    if batches or self._is_due():
                        await asyncio.to_thread(self._keep, batches, names)
            finally:
                self._keep(self._waiting(), directory.follow())
                self._close()
                directory.close()
                self._lost["backlog"] = self.lost["backlog"]
                self._listeners = ()

    def _waiting(self) -> list[Records]:
        return [batch for listener in self._listeners for batch in listener.take()]

    def _is_due(self) -> bool:
        """Whether there is something to do although nothing was reported."""
        if self._settings().enabled is not (self.store is not None):
            return True
        return self.store is not None and time.monotonic() - self._looked >= EXPIRY

    def _keep(self, batches: list[Records], names: Names) -> None:
        """Writes; never raises. Runs in a thread; at the end, when that may still be at work, in the loop's own."""
        with self._writing:
            try:
                self._write(batches, names)
            except (AxonemeError, OSError) as error:
                self._note(str(error))
                self._lost["disk"] += sum(map(len, batches)) - self._take_written()
            else:
                self._take_written()

    def _take_written(self) -> int:
        """How many records were written since this was last asked."""
        if self.store is None:
            return 0
        count, self.store.written = self.store.written, 0
        self.written += count
        return count

    def _write(self, batches: list[Records], names: Names) -> None:
        settings = self._settings()
        if not settings.enabled:
            self._close()
            return self._note("")
        opened, self._looked = self.store is None, time.monotonic()
        store = self._opened(settings)
        if batches:
            store.append(np.concatenate(batches), names)
        else:
            store.expire()
        if batches or opened:
            self._note("")
        return None

    def _opened(self, settings: StoreSettings) -> EventStore:
        limits = Limits(settings.mebibytes << 20, settings.days * 86400)
        if self.store is None:
            self.store = EventStore(self.folder, limits, node=self._node)
        self.store.limits = limits
        return self.store

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            self._problem = problem
            if problem:
                log.error("event_store_stopped", error=problem)
            else:
                log.info("event_store_goes_on", lost=self._lost["disk"])

    def _close(self) -> None:
        if self.store is not None:
            self.store.close()
            self.store = None

    def health(self) -> Health:
        if self._problem:
            reason = f"{self._problem}; {self._lost['disk']} records lost so far"
            return Health(level=Level.DEGRADED, reason=reason)
        return Health(level=Level.OK)

    def metrics(self) -> list[Metric]:
        counter, gauge = MetricType.COUNTER, MetricType.GAUGE

        def of_store(read: Callable[[EventStore], float]) -> Callable[[], float]:
            return lambda: read(self.store) if self.store is not None else 0.0

        return [
            Metric(
                name="axoneme_event_store_bytes", type=gauge, help="room that the event store takes",
                read=of_store(lambda store: float(store.size)),
            ),
            Metric(
                name="axoneme_event_store_segments", type=gauge, help="files of the event store",
                read=of_store(lambda store: float(store.segments)),
            ),
            Metric(
                name="axoneme_event_store_oldest_seconds", type=gauge,
                help="time of the oldest record in the event store, seconds since 1970",
                read=of_store(lambda store: store.oldest / 1e9),
            ),
            Metric(
                name="axoneme_event_store_records_total", type=counter, help="records written to the event store",
                read=lambda: float(self.written),
            ),
            Metric(
                name="axoneme_event_store_lost_total", type=counter, labels=("cause",),
                help="records that the event store did not keep: the writer was too slow, or the disk refused",
                read=lambda: {(cause,): float(number) for cause, number in self.lost.items()},
            ),
        ]  # fmt: skip
