"""The service that keeps the connection table from filling with what is over, and says how much may be entered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from attrs import define, field

from axoneme.core import logs
from axoneme.core.datapath.admission import Counts, Grants, limit_of
from axoneme.core.datapath.conntrack import Timeouts, collect, flush
from axoneme.core.datapath.endpoint_maps import Maps
from axoneme.core.datapath.reasons import FORGOTTEN
from axoneme.core.histogram import Histogram
from axoneme.core.records import Health, Level
from axoneme.core.settings import TimeoutSettings

_log = logs.get(__name__)

#: Records that are handed on at once.
_PORTION = 8192
#: Seconds between two looks at what programs entered, which is cheap.
_LOOK = 1.0
#: Passes that come early wait for so many times what the last one took: a full table costs a tenth of a CPU at most.
_EASE = 9


def _now() -> int:
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@define
class TableState:
    """What is known of one connection table.

    :ivar limit: entries from which on new connections are refused.
    :ivar entries: after the last pass; two per connection.
    :ivar evicted: entries that gave way to newer ones because there was no agent to make room, since it began to count.
    :ivar refused: packets that would have opened a connection, since the map was made.
    :ivar refusing: those of the present shortage; 0 when there is none.
    """

    limit: int = 0
    entries: int = 0
    refused: int = 0
    refusing: int = 0
    refused_at: int = 0
    expired: int = 0
    evicted: int = 0
    runs: int = 0
    seconds: Histogram = field(factory=Histogram)


@define
class Collector:
    """Looks through both connection tables again and again.

    :param settings: asked again at each pass, since a reload may change them.
    :param publish: gets the `close` records of connections that ended by silence, and samples of those that go on.
    :param wanted: seconds between two samples of a connection, 0 while nobody listens to them.
    """

    maps: Maps
    settings: Callable[[], TimeoutSettings]
    publish: Callable[[Any], None]
    wanted: Callable[[], float] = lambda: 0.0
    tables: dict[int, TableState] = field(factory=lambda: {4: TableState(), 6: TableState()})
    _grants: dict[int, Grants] = field(init=False)
    _baseline: int | None = None
    _ids: list[int] = field(factory=list)
    _deleted: int = 0
    _evicted: int = 0
    _giving_way: bool = False
    _sampled_at: int = field(factory=lambda: _now())

    def __attrs_post_init__(self) -> None:
        self._grants = {family: Grants(family, self.maps) for family in self.tables}

    async def run(self, ready: Callable[[], None]) -> None:
        """Lives until cancelled. A pass works in a thread: the kernel copies half a million entries in a moment."""
        ready()
        while True:
            begin = _now()
            await self.collect()
            await self._rest(_now() - begin)

    async def _rest(self, took: int) -> None:
        """Until the next pass is due: after `gc_interval`, or as soon as room runs short.

        :param took: ns that the last pass took.
        """
        now, interval = _now(), int(self.settings().gc_interval * 1e9)
        earliest, end = now + min(_EASE * took, interval), now + interval
        while now < end:
            await asyncio.sleep(min(_LOOK, (end - now) / 1e9))
            short, now = self._look(), _now()
            if short and now >= earliest:
                return

    def _look(self) -> bool:
        """Renews the grants, notes who was refused, and says whether a pass is due."""
        short = self._ids != [self.maps(f"connections{family}").id for family in self.tables]
        for family, grants in self._grants.items():
            grants.renew()
            counts = grants.counts()
            self._note_refused(family, counts)
            short |= grants.is_short(counts)
        return short

    async def collect(self) -> None:
        """One pass over both tables. What is left of each limit is granted to the programs."""
        before, ids, timeouts = self._counts(), [], timeouts_of(self.settings())
        since = self._since()
        for family, state in self.tables.items():
            table, counts = self.maps(f"connections{family}"), self._grants[family].counts()
            ids.append(table.id)
            state.limit = limit_of(table)
            with table.held(), state.seconds.timed():  # held: a reload may let go of it meanwhile
                done = await asyncio.to_thread(
                    collect, table, timeouts, limit=state.limit, since=since, family=family
                )
            self._grants[family].grant(counts, done.entries, state.limit)
            self._note_refused(family, counts)
            state.entries = done.entries
            state.expired += done.expired
            state.runs += 1
            self._deleted += done.expired
            self.publish(done.closed)
            await self._publish_samples(done.sampled)
        self._count_evictions(before, self._counts(), ids)

    async def flush(self, *, translated: bool = False) -> dict[str, int]:
        """Forgets all connections now, or those that are translated. By table, how many entries went."""
        gone = {}
        for family in self.tables:
            table = self.maps(f"connections{family}")
            with table.held():
                done = await asyncio.to_thread(flush, table, family, translated=translated)
            self._deleted += done.expired
            self.publish(done.closed)
            gone[table.spec.name] = done.expired
        return gone

    def _since(self) -> int | None:
        """Since when connections are sampled in this pass; None when it is not time yet, or nobody wants to know."""
        now, interval = _now(), self.wanted()
        if not interval or now - self._sampled_at < (interval - self.settings().gc_interval / 2) * 1e9:
            return None
        since, self._sampled_at = self._sampled_at, now
        return since

    async def _publish_samples(self, samples: Any) -> None:
        """In portions, so that those who listen keep up."""
        for start in range(0, len(samples), _PORTION):
            self.publish(samples[start : start + _PORTION])
            await asyncio.sleep(0)

    def _counts(self) -> tuple[int, int]:
        """How many entries programs have made so far, and taken back."""
        counters = self.maps("counters")
        forgotten = sum(int(counters.lookup(2 * FORGOTTEN + way)["packets"].sum()) for way in (0, 1))
        return sum(grants.counts().entered for grants in self._grants.values()), forgotten

    def _note_refused(self, family: int, counts: Counts) -> None:
        """A shortage lasts until nobody was refused for as long as passes are apart."""
        state, now = self.tables[family], _now()
        more = counts.refused - state.refused if state.runs else 0  # at first: those of earlier agents
        state.refused = counts.refused
        if more > 0:
            if not state.refusing:
                _log.warning(
                    "connection table full, new connections are refused", family=family, limit=state.limit
                )
            state.refusing, state.refused_at = state.refusing + more, now
        elif state.refusing and now - state.refused_at > self.settings().gc_interval * 1e9:
            _log.info("connection table has room again", family=family, refused=state.refusing)
            state.refusing = 0

    def _count_evictions(self, before: tuple[int, int], after: tuple[int, int], ids: list[int]) -> None:
        """Entries that programs made, less those taken back, expired or still there: those that had to give way.

        Programs go on during a pass, so there are two bounds for the number that are missing. What is missing at first
        is the upper one and afterwards the lower one: nothing is ever called evicted that was not.
        """
        gone = sum(state.entries for state in self.tables.values()) + self._deleted
        least, most = before[0] - after[1] - gone, after[0] - before[1] - gone
        if self._baseline is None or ids != self._ids:
            # A new table, of another size: what it does not have of the old one was not evicted.
            self._baseline, self._ids = most - self._evicted, ids
        evicted = max(least - self._baseline, self._evicted)
        self._giving_way = evicted > self._evicted
        if self._giving_way:
            fullest = max(self.tables.values(), key=lambda state: state.entries)
            fullest.evicted += evicted - self._evicted
            _log.warning("connection table full, oldest entries gave way", entries=evicted - self._evicted)
        self._evicted = evicted

    @property
    def evicted(self) -> int:
        return self._evicted

    def health(self) -> Health:
        """Degraded while new connections are refused, or entries gave way: their connections are decided anew."""
        family, state = max(self.tables.items(), key=lambda item: (item[1].refusing, item[1].entries))
        if state.refusing:
            what = f"it holds {state.limit} entries, and {state.refusing} packets of new connections were refused"
        elif self._giving_way:
            what = f"{state.entries} of {state.limit} entries, {self._evicted} gave way so far"
        else:
            return Health(level=Level.OK)
        return Health(
            level=Level.DEGRADED,
            reason=f"connection table IPv{family} is full: {what}; raise datapath.conntrack_entries",
        )


def timeouts_of(settings: TimeoutSettings) -> Timeouts:
    return Timeouts(
        tcp=settings.tcp, tcp_opening=settings.tcp_syn, tcp_closing=settings.tcp_fin, other=settings.any
    )
