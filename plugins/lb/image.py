"""What the kernel's maps should hold, in the maps' own bytes, and the writes that lead there.

A row of a service is one entry, which the kernel replaces in one step: who looks it up finds the old or the new one. So what it
refers to is written before it, and taken away only a moment after it was replaced: see `Writes`. But the kernel uses the old one's
memory for the next entry at once, so programs copy a row as soon as they have it. A row may still change under that copy, of some
nanoseconds; then one connection is opened by parts of two rows.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Mapping
from typing import Final, NamedTuple

from attrs import define, field

from axoneme.plugins.lb.backend_rows import BackendRows
from axoneme.plugins.lb.demand import Applied, Demand, Found, Wanted, Writes
from axoneme.plugins.lb.entries import Entries, OfRow, of_row
from axoneme.plugins.lb.maps import Algorithm, ServiceFlag, Sizes
from axoneme.plugins.lb.model import Name
from axoneme.plugins.lb.numbers import LimitError, Numbers, Room
from axoneme.plugins.lb.rows import SERVICE, BackendKey, RowKey, family_of
from axoneme.plugins.lb.stretches import Stretches

#: Seconds for which numbers and slots that were taken out of use are not given to others.
GRACE: Final = 1.0

#: A number: to ask an enumeration for its members costs more than the rest of what is done with it.
_MAGLEV: Final = int(Algorithm.MAGLEV)
_GUARD: Final = SERVICE.pack(0, 0, 0, 0, ServiceFlag.NO_SERVICE, 0, 0)


@define(eq=False)
class _Row:
    """A row of a service that is there. `stretch` is None for no backends."""

    number: int
    stretch: bytes | None = None
    entries: OfRow = field(factory=dict)


class _Resting(NamedTuple):
    """What can be used anew from a moment on: numbers of services and of backends, and stretches."""

    due: float
    services: list[int]
    backends: list[int]
    stretches: list[tuple[bytes, int]]


class Image:
    """The content that the maps should have, service by service. `take_writes` has what they do not have yet."""

    def __init__(self, sizes: Sizes, found: Found | None = None) -> None:
        self.sizes = sizes
        self.rows: dict[RowKey, bytes] = {}
        self.numbers = Numbers("services", "services", 2 * sizes.services)
        self.backends = BackendRows(sizes.backends)
        self.stretches = Stretches(Room(sizes.slots))
        self._entries = Entries(sizes)
        self._rows: dict[RowKey, _Row] = {}
        self._size = {4: 0, 6: 0}
        self._guards: Counter[RowKey] = Counter()
        self._demands: dict[Name, Demand] = {}
        self._owners: dict[RowKey, tuple[int, Name]] = {}
        #: Who would have a row if its owner had it not, and which rows that are, by name.
        self._contenders: dict[RowKey, set[Name]] = {}
        self._contended: dict[Name, Mapping[RowKey, Name]] = {}
        self._slot_writes: dict[int, bytes] = {}
        self._writes: dict[RowKey, bytes] = {}
        self._drops: dict[RowKey, None] = {}
        self._free: list[int] = []
        self._resting: deque[_Resting] = deque()
        if found is not None:
            self._adopt(found)

    def number(self, key: RowKey) -> int:
        """Of a service's row; 0 if there is none."""
        row = self._rows.get(key)
        return row.number if row is not None else 0

    def size(self, family: int) -> int:
        """How many rows of services there are."""
        return self._size[family]

    def has(self, name: Name) -> bool:
        """Whether anything of a service was applied."""
        return name in self._demands

    def owner(self, key: RowKey) -> Name | None:
        """The service that has the row."""
        claim = self._owners.get(key)
        return None if claim is None else claim[1]

    def shares(self, key: RowKey) -> dict[BackendKey, int]:
        """How many slots each backend of a row has."""
        row = self._rows.get(key)
        return {} if row is None else self.stretches.shares(row.stretch)

    # What was there

    def _adopt(self, found: Found) -> None:
        stretches = set()
        for key, value in found.rows.items():
            number, first, count, *_ = SERVICE.unpack(value)
            self.rows[key] = value
            self._size[family_of(key)] += 1
            if number:
                self._rows[key] = _Row(number)
            if count:
                stretches.add((first, count))
        self.numbers.adopt(row.number for row in self._rows.values())
        self.stretches.adopt(stretches, found.slots)
        self.backends.adopt(found.backends)
        self._entries.adopt(found.entries)

    def prune(self) -> list[BackendKey]:
        """Takes away what was found at the start and what no demand that was applied since is about; returns such backends."""
        for key in list(self.rows):
            if key in self._rows and key not in self._owners:
                self._drop_row(key)
            elif key not in self._rows and key not in self._guards:
                self._remove(key)
        self.stretches.prune()
        self._entries.prune(row.entries for row in self._rows.values())
        return self.backends.prune()

    # Demands

    def apply(self, name: Name, demand: Demand) -> Applied:
        """What a service wants now, instead of what it wanted before.

        :raises LimitError: when there is no room; then everything is as before.
        """
        old = self._demands.get(name) or Demand()
        taken, stolen = self._conflicts(name, demand)
        if taken:
            rows = {key: row for key, row in demand.rows.items() if key not in taken}
            demand = Demand(rows, demand.backends, demand.guards)
        rows = demand.rows
        self._check_room(old, rows, demand)
        used = self._reserve(rows, demand)
        self._contend(name, taken)
        again = stolen
        for key, row in rows.items():
            again |= self._own(key, (row.rank, name))
            self._write(key, row, used[key])
        again |= self._leave(name, old, rows)
        for guard in demand.guards:
            self._guard(guard)
        for guard in old.guards:
            self._unguard(guard)
        self.backends.release(old.backends)
        if demand.rows or demand.backends or demand.guards:
            self._demands[name] = demand
        else:
            self._demands.pop(name, None)
        return Applied(taken, frozenset(again))

    def _conflicts(self, name: Name, demand: Demand) -> tuple[dict[RowKey, Name], set[Name]]:
        """Rows that others keep, and those who lose theirs: the first by rank and name has it, whoever came first."""
        taken, stolen = {}, set()
        for key, row in demand.rows.items():
            claim = self._owners.get(key)
            if claim is None or claim[1] == name:
                continue
            if claim < (row.rank, name):
                taken[key] = claim[1]
            else:
                stolen.add(claim[1])
        return taken, stolen

    def _contend(self, name: Name, taken: Mapping[RowKey, Name]) -> None:
        """It would have these rows, and no others."""
        for key in self._contended.pop(name, ()):
            if (names := self._contenders.get(key)) is not None:
                names.discard(name)
                if not names:
                    del self._contenders[key]
        for key in taken:
            self._contenders.setdefault(key, set()).add(name)
        if taken:
            self._contended[name] = taken

    def _own(self, key: RowKey, claim: tuple[int, Name]) -> set[Name]:
        """The row is somebody's. Returns who may have more right to it, if its owner's is less than it was."""
        before = self._owners.get(key)
        self._owners[key] = claim
        return set(self._contenders.get(key, ())) if before is not None and before < claim else set()

    def _check_room(self, old: Demand, rows: Mapping[RowKey, Wanted], demand: Demand) -> None:
        new = [family_of(key) for key in (*rows, *demand.guards) if key not in self.rows]
        for family in set(new):
            if self._size[family] + new.count(family) > self.sizes.services:
                raise LimitError(f"addresses of IPv{family} services", "services", self.sizes.services)
        self._entries.check_room(rows.values(), lambda: {*map(self.number, (*old.rows, *rows))})

    def _reserve(self, rows: Mapping[RowKey, Wanted], demand: Demand) -> dict[RowKey, bytes | None]:
        """Numbers for all that is new, and the stretch of each row. Raises `LimitError`; then nothing was taken."""
        self.backends.hold(demand.backends)
        used: dict[RowKey, bytes | None] = {}
        try:
            for key, row in rows.items():
                used[key] = self._use(row)
                if key not in self._rows:
                    self._rows[key] = _Row(self.numbers.take())
        except LimitError:
            self.backends.release(demand.backends)
            for content in used.values():
                self.stretches.release(content)
            for key in rows:
                if key in self._rows and key not in self.rows:
                    self._free.append(self._rows.pop(key).number)
            raise
        return used

    def _leave(self, name: Name, old: Demand, rows: Mapping[RowKey, Wanted]) -> set[Name]:
        """Drops the rows that are not wanted any more; returns who waits for one of them."""
        waiting: set[Name] = set()
        for key in old.rows:
            if key not in rows and self.owner(key) == name:
                del self._owners[key]
                waiting |= self._contenders.get(key, set())
                self._drop_row(key)
        waiting.discard(name)
        return waiting

    # Rows

    def _use(self, row: Wanted) -> bytes | None:
        if not row.members:
            return None
        size = row.balance.size if row.balance.algorithm == _MAGLEV else 0
        content, first, written = self.stretches.use(row.members, size, self.backends.held)
        if written is not None:
            self._slot_writes[first] = written
        return content

    def _write(self, key: RowKey, wanted: Wanted, content: bytes | None) -> None:
        row, balance = self._rows[key], wanted.balance
        self.stretches.release(row.stretch)
        row.stretch = content
        first, count = self.stretches.place(content)
        value = SERVICE.pack(row.number, first, count, balance.affinity, wanted.flags, balance.algorithm, 0)
        self._put(key, value)
        if row.entries or balance.affinity or wanted.sources or wanted.skips:
            self._replace_entries(row, of_row(row.number, wanted, self.backends.held))

    def _replace_entries(self, row: _Row, entries: OfRow) -> None:
        self._entries.replace(row.entries, entries)
        row.entries = entries

    def _put(self, key: RowKey, value: bytes) -> None:
        before = self.rows.get(key)
        if before == value:
            return
        self.rows[key] = self._writes[key] = value
        if before is None:
            self._size[family_of(key)] += 1
            self._drops.pop(key, None)

    def _remove(self, key: RowKey) -> None:
        del self.rows[key]
        self._size[family_of(key)] -= 1
        self._writes.pop(key, None)
        self._drops[key] = None

    def _drop_row(self, key: RowKey) -> None:
        row = self._rows.pop(key)
        self._remove(key)
        self.stretches.release(row.stretch)
        self._replace_entries(row, {})
        self._free.append(row.number)

    def _guard(self, key: RowKey) -> None:
        self._guards[key] = self._guards.get(key, 0) + 1
        self._put(key, _GUARD)

    def _unguard(self, key: RowKey) -> None:
        self._guards[key] -= 1
        if not self._guards[key]:
            del self._guards[key]
            self._remove(key)

    # The end

    def take_writes(self, now: float) -> Writes:
        """All writes since the last time; what fell out of use begins to rest."""
        backends = self.backends.take_writes(now)
        entries, dropped = self._entries.take_writes()
        writes = Writes(backends, self._slot_writes, entries, self._writes, self._drops, dropped)
        self._slot_writes, self._writes, self._drops = {}, {}, {}
        stretches, cleared = self.stretches.take_idle(), self.backends.take_cleared()
        if self._free or cleared or stretches:
            self._resting.append(_Resting(now + GRACE, self._free, cleared, stretches))
            self._free = []
        return writes

    @property
    def due(self) -> float | None:
        """When `expire` has something to do."""
        resting = self._resting[0].due if self._resting else None
        return min((due for due in (self.backends.due, resting) if due is not None), default=None)

    def expire(self, now: float) -> None:
        """What has rested for long enough is cleared, and then can be used anew."""
        self.backends.expire(now)
        while self._resting and self._resting[0].due <= now:
            done = self._resting.popleft()
            for number in done.services:
                self.numbers.give_back(number)
            for number in done.backends:
                self.backends.numbers.give_back(number)
            self.stretches.forget(done.stretches)
