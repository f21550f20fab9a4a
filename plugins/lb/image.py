"""What the kernel's maps should hold, in the maps' own bytes, and the writes that lead there.

A row of a service is one entry, which the kernel replaces in one step. So what it refers to is written before it, and taken
away only a moment after it was replaced: see `Writes`.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from attrs import define, field, frozen

from axoneme.plugins.lb.maps import SOURCE_PREFIX_BITS, Algorithm, BackendFlag, Scope, ServiceFlag, Sizes
from axoneme.plugins.lb.model import Address, Name, Network
from axoneme.plugins.lb.numbers import LimitError, Numbers, Room
from axoneme.plugins.lb.stretches import Member, Stretches

#: Rows' values: `maps.SERVICE` and the end of `maps.BACKEND`.
SERVICE: Final = struct.Struct("=IIIIHBB")
_END: Final = struct.Struct("!HBB")
PAIR: Final = struct.Struct("=II")

#: What else there is of a service: entries of `lb_members`, `lb_sources` and `lb_skips`.
KINDS: Final = ("members", "sources", "skips")

#: Seconds for which a backend that was taken out of use stays as it is: longer than any program runs that chose it before.
#: From then on, connections without a state of their own (UDP) turn to another one.
CLEAR: Final = 0.05
#: Seconds for which numbers and slots that were taken out of use are not given to others.
GRACE: Final = 1.0

#: A backend: address, port, protocol and a zero, packed.
BackendKey = bytes
#: A row of `lb_services4` or `…6`, as the map's own bytes; 8 or 20 of them.
RowKey = bytes


def key_end(port: int, protocol: int) -> bytes:
    """What follows the address in a backend's key."""
    return _END.pack(port, protocol, 0)


def backend_key(address: Address, port: int, protocol: int) -> BackendKey:
    return address.packed + _END.pack(port, protocol, 0)


def row_key(address: Address, port: int, protocol: int, scope: Scope) -> RowKey:
    return address.packed + _END.pack(port, protocol, scope)


def family_of(key: bytes) -> int:
    return 4 if len(key) == 8 else 6


@frozen
class Balance:
    """How backends are chosen from.

    :param size: of a consistent hashing table.
    """

    algorithm: Algorithm = Algorithm.RANDOM
    size: int = 0
    affinity: int = 0


@define(eq=False)
class Wanted:
    """A row that a service wants.

    :param members: its backends and their weights, sorted.
    """

    balance: Balance
    members: tuple[Member, ...]
    flags: int = 0
    sources: tuple[Network, ...] = ()
    skips: tuple[int, ...] = ()


@define(eq=False)
class Demand:
    """All that one service wants.

    :param backends: those that have a row: whether they are terminating, and whether they are remote.
    :param guards: addresses whose other ports nobody may reach.
    """

    rows: dict[RowKey, Wanted] = field(factory=dict)
    backends: dict[BackendKey, tuple[bool, bool]] = field(factory=dict)
    guards: tuple[RowKey, ...] = ()


@define(eq=False)
class _Backend:
    number: int
    value: bytes = b""
    holders: int = 0
    active: int = 0
    remote: bool = False
    #: Counts how often it fell out of use.
    idle: int = 0


@define(eq=False)
class _Row:
    """A row of a service that is there. `stretch` is None for no backends."""

    number: int
    stretch: bytes | None = None
    entries: dict[str, frozenset[bytes]] = field(factory=dict)


@define
class Writes:
    """Writes in the order in which they are to be done; backends are by number, slots by their first."""

    backends: dict[int, bytes] = field(factory=dict)
    slots: dict[int, bytes] = field(factory=dict)
    entries: dict[str, dict[bytes, None]] = field(factory=lambda: {kind: {} for kind in KINDS})
    rows: dict[RowKey, bytes] = field(factory=dict)
    drop_rows: dict[RowKey, None] = field(factory=dict)
    drop_entries: dict[str, dict[bytes, None]] = field(factory=lambda: {kind: {} for kind in KINDS})

    @property
    def size(self) -> int:
        parts = (*self.entries.values(), *self.drop_entries.values())
        own = len(self.backends) + len(self.slots) + len(self.rows) + len(self.drop_rows)
        return own + sum(len(part) for part in parts)


@frozen
class Found:
    """What the maps held at the start: bytes of keys and values. `slots`: `lb_slots` up to the last one in use."""

    rows: Mapping[RowKey, bytes] = field(factory=dict)
    backends: Mapping[int, bytes] = field(factory=dict)
    slots: bytes = b""
    entries: Mapping[str, Iterable[bytes]] = field(factory=dict)


@frozen
class Applied:
    """What became of a demand.

    :param taken: rows that another service has, and which.
    :param again: services that must be applied again: they lost a row, or can have one now.
    """

    taken: Mapping[RowKey, Name] = field(factory=dict)
    again: frozenset[Name] = frozenset()


class _Resting(NamedTuple):
    """What can be used anew from a moment on: numbers of services and of backends, and stretches."""

    due: float
    services: list[int]
    backends: list[int]
    stretches: list[tuple[bytes, int]]


class Image:
    """The content that the maps should have, service by service. `writes` has what they do not have yet."""

    def __init__(self, sizes: Sizes, found: Found | None = None) -> None:
        self.sizes = sizes
        self.writes = Writes()
        self.rows: dict[RowKey, bytes] = {}
        self.numbers = Numbers("services", "services", 2 * sizes.services)
        self.backend_numbers = Numbers("backends", "backends", sizes.backends)
        self.stretches = Stretches(Room(sizes.slots))
        self._room = {"members": sizes.backends, "sources": sizes.sources, "skips": 65_536}
        self._rows: dict[RowKey, _Row] = {}
        self._size = {4: 0, 6: 0}
        self._backends: dict[BackendKey, _Backend] = {}
        self._guards: Counter[RowKey] = Counter()
        self._entries: dict[str, set[bytes]] = {kind: set() for kind in KINDS}
        self._demands: dict[Name, Demand] = {}
        self._owners: dict[RowKey, Name] = {}
        self._contenders: dict[RowKey, set[Name]] = {}
        self._idle: list[tuple[BackendKey, int]] = []
        self._free: list[int] = []
        self._cleared: list[int] = []
        self._clearing: deque[tuple[float, list[tuple[BackendKey, int]]]] = deque()
        self._resting: deque[_Resting] = deque()
        if found is not None:
            self._adopt(found)

    def number(self, key: RowKey) -> int:
        """Of a service's row; 0 if there is none."""
        row = self._rows.get(key)
        return row.number if row is not None else 0

    def backend(self, key: BackendKey) -> int:
        """The number of a backend; 0 if it has none."""
        found = self._backends.get(key)
        return found.number if found is not None and found.holders else 0

    def size(self, family: int) -> int:
        """How many rows of services there are."""
        return self._size[family]

    def owner(self, key: RowKey) -> Name | None:
        """The service that has the row."""
        return self._owners.get(key)

    def shares(self, key: RowKey) -> dict[BackendKey, int]:
        """How many slots each backend of a row has."""
        row = self._rows.get(key)
        return {} if row is None else self.stretches.shares(row.stretch)

    @property
    def backends(self) -> int:
        """How many have a number."""
        return len(self._backends)

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
        for number, value in found.backends.items():
            self._backends[value[:-2] + bytes((value[-1], 0))] = _Backend(number, value)
        self.backend_numbers.adopt(found.backends)
        for kind, entries in found.entries.items():
            self._entries[kind].update(entries)

    def prune(self) -> None:
        """Takes away what was found at the start and what no demand that was applied since is about."""
        for key in list(self.rows):
            if key in self._rows and key not in self._owners:
                self._drop_row(key)
            elif key not in self._rows and key not in self._guards:
                self._remove(key)
        for key, one in self._backends.items():
            if not one.holders:
                self._idle.append((key, one.idle))
        self.stretches.prune()
        for kind, entries in self._entries.items():
            used = {entry for row in self._rows.values() for entry in row.entries.get(kind, ())}
            for entry in entries - used:
                self._drop_entry(kind, entry)

    # Demands

    def apply(self, name: Name, demand: Demand) -> Applied:
        """What a service wants now, instead of what it wanted before.

        :raises LimitError: when there is no room; then everything is as before.
        """
        old = self._demands.get(name) or Demand()
        taken, stolen = self._conflicts(name, demand)
        rows = {key: row for key, row in demand.rows.items() if key not in taken}
        self._check_room(old, rows, demand)
        held: list[BackendKey] = []
        used: dict[RowKey, bytes | None] = {}
        try:
            for backend, (terminating, remote) in demand.backends.items():
                self._hold(backend, terminating, remote)
                held.append(backend)
            for key, row in rows.items():
                used[key] = self._use(row)
                if key not in self._rows:
                    self._rows[key] = _Row(self.numbers.take())
        except LimitError:
            for backend in held:
                self._release(backend, demand.backends[backend][0])
            for content in used.values():
                self.stretches.release(content)
            for key in rows:
                if key in self._rows and key not in self.rows:
                    self._free.append(self._rows.pop(key).number)
            raise
        for key, row in rows.items():
            self._owners[key] = name
            self._write(key, row, used[key])
        again = stolen | self._leave(name, old, rows)
        for guard in demand.guards:
            self._guard(guard)
        for guard in old.guards:
            self._unguard(guard)
        for backend, (terminating, _) in old.backends.items():
            self._release(backend, terminating)
        if demand.rows or demand.backends or demand.guards:
            self._demands[name] = Demand(rows, demand.backends, demand.guards)
        else:
            self._demands.pop(name, None)
        return Applied(taken, frozenset(again))

    def _conflicts(self, name: Name, demand: Demand) -> tuple[dict[RowKey, Name], set[Name]]:
        """Rows that others keep, and those who lose theirs: the first by name has it, whoever came first."""
        taken, stolen = {}, set()
        for key in demand.rows:
            owner = self._owners.get(key)
            if owner is None or owner == name:
                continue
            if owner < name:
                taken[key] = owner
                self._contenders.setdefault(key, set()).add(name)
            else:
                stolen.add(owner)
        return taken, stolen

    def _leave(self, name: Name, old: Demand, rows: Mapping[RowKey, Wanted]) -> set[Name]:
        """Drops the rows that are not wanted any more; returns who waits for one of them."""
        waiting: set[Name] = set()
        for key in old.rows:
            if key not in rows and self._owners.get(key) == name:
                del self._owners[key]
                waiting |= self._contenders.pop(key, set())
                self._drop_row(key)
        waiting.discard(name)
        return waiting

    def _check_room(self, old: Demand, rows: Mapping[RowKey, Wanted], demand: Demand) -> None:
        new: Counter[int] = Counter()
        for key in (*rows, *demand.guards):
            new[family_of(key)] += key not in self.rows
        for family, more in new.items():
            if more and self._size[family] + more > self.sizes.services:
                raise LimitError(f"addresses of IPv{family} services", "services", self.sizes.services)
        for kind, (what, limit) in _ENTRIES.items():
            more = sum(_entry_count(kind, row) for row in rows.values())
            if more and len(self._entries[kind]) + more > self._room[kind]:
                self._check_entries(kind, old, rows, what, limit)

    def _check_entries(
        self, kind: str, old: Demand, rows: Mapping[RowKey, Wanted], what: str, limit: str
    ) -> None:
        """Counts exactly: what is there already, perhaps since before a restart, needs no room."""
        own: set[bytes] = set()
        for key in (*old.rows, *rows):
            number = self.number(key)
            own |= {entry for entry in self._entries[kind] if number and _number_in(kind, entry) == number}
        wanted = sum(_entry_count(kind, row) for row in rows.values())
        if len(self._entries[kind]) - len(own) + wanted > self._room[kind]:
            raise LimitError(what, limit, self._room[kind])

    # Backends

    def _hold(self, key: BackendKey, terminating: bool, remote: bool) -> None:
        one = self._backends.get(key)
        if one is None:
            one = self._backends[key] = _Backend(self.backend_numbers.take())
        one.holders += 1
        one.active += not terminating
        one.remote = remote
        self._value(key, one)

    def _release(self, key: BackendKey, terminating: bool) -> None:
        one = self._backends[key]
        one.holders -= 1
        one.active -= not terminating
        if one.holders:
            self._value(key, one)
        else:
            one.idle += 1
            self._idle.append((key, one.idle))

    def _value(self, key: BackendKey, one: _Backend) -> None:
        flags = _USED if one.active else _USED | _TERMINATING
        if one.remote:
            flags |= _REMOTE
        value = key[:-2] + bytes((flags, key[-2]))
        if value != one.value:
            one.value = self.writes.backends[one.number] = value

    # Rows

    def _use(self, row: Wanted) -> bytes | None:
        if not row.members:
            return None
        size = row.balance.size if row.balance.algorithm == _MAGLEV else 0
        content, first, written = self.stretches.use(row.members, size, self._number_of)
        if written is not None:
            self.writes.slots[first] = written
        return content

    def _number_of(self, key: BackendKey) -> int:
        return self._backends[key].number

    def _write(self, key: RowKey, wanted: Wanted, content: bytes | None) -> None:
        row, balance = self._rows[key], wanted.balance
        self.stretches.release(row.stretch)
        row.stretch = content
        first, count = self.stretches.place(content)
        value = SERVICE.pack(row.number, first, count, balance.affinity, wanted.flags, balance.algorithm, 0)
        self._put(key, value)
        if row.entries or balance.affinity or wanted.sources or wanted.skips:
            self._write_entries(row, wanted)

    def _write_entries(self, row: _Row, wanted: Wanted) -> None:
        number = row.number
        members = wanted.members if wanted.balance.affinity else ()
        new = {
            "members": frozenset(PAIR.pack(number, self._number_of(key)) for key, _ in members),
            "sources": frozenset(source_entry(number, network) for network in wanted.sources),
            "skips": frozenset(PAIR.pack(endpoint, number) for endpoint in wanted.skips),
        }
        self._replace_entries(row, {kind: entries for kind, entries in new.items() if entries})

    def _replace_entries(self, row: _Row, new: dict[str, frozenset[bytes]]) -> None:
        for kind in KINDS:
            before, after = row.entries.get(kind, frozenset()), new.get(kind, frozenset())
            for entry in after - before:
                self.writes.drop_entries[kind].pop(entry, None)
                if entry not in self._entries[kind]:
                    self._entries[kind].add(entry)
                    self.writes.entries[kind][entry] = None
            for entry in before - after:
                self._drop_entry(kind, entry)
        row.entries = new

    def _drop_entry(self, kind: str, entry: bytes) -> None:
        self._entries[kind].discard(entry)
        if self.writes.entries[kind].pop(entry, self) is self:
            self.writes.drop_entries[kind][entry] = None

    def _put(self, key: RowKey, value: bytes) -> None:
        before = self.rows.get(key)
        if before == value:
            return
        self.rows[key] = self.writes.rows[key] = value
        if before is None:
            self._size[family_of(key)] += 1
            self.writes.drop_rows.pop(key, None)

    def _remove(self, key: RowKey) -> None:
        del self.rows[key]
        self._size[family_of(key)] -= 1
        self.writes.rows.pop(key, None)
        self.writes.drop_rows[key] = None

    def _drop_row(self, key: RowKey) -> None:
        row = self._rows.pop(key)
        self._remove(key)
        self.stretches.release(row.stretch)
        self._replace_entries(row, {})
        self._free.append(row.number)

    def _guard(self, key: RowKey) -> None:
        self._guards[key] += 1
        self._put(key, _GUARD)

    def _unguard(self, key: RowKey) -> None:
        self._guards[key] -= 1
        if not self._guards[key]:
            del self._guards[key]
            self._remove(key)

    # The end

    def take_writes(self, now: float) -> Writes:
        """All writes since the last time; what fell out of use begins to rest."""
        writes, self.writes = self.writes, Writes()
        stretches = self.stretches.take_idle()
        if self._idle:
            self._clearing.append((now + CLEAR, self._idle))
            self._idle = []
        if self._free or self._cleared or stretches:
            self._resting.append(_Resting(now + GRACE, self._free, self._cleared, stretches))
            self._free, self._cleared = [], []
        return writes

    @property
    def due(self) -> float | None:
        """When `expire` has something to do."""
        waiting = [queue[0][0] for queue in (self._clearing, self._resting) if queue]
        return min(waiting, default=None)

    def expire(self, now: float) -> None:
        """What has rested for long enough is cleared, and then can be used anew."""
        while self._clearing and self._clearing[0][0] <= now:
            self._clear(self._clearing.popleft()[1])
        while self._resting and self._resting[0].due <= now:
            done = self._resting.popleft()
            for number in done.services:
                self.numbers.give_back(number)
            for number in done.backends:
                self.backend_numbers.give_back(number)
            self.stretches.forget(done.stretches)

    def _clear(self, backends: list[tuple[BackendKey, int]]) -> None:
        for key, idle in backends:
            one = self._backends.get(key)
            if one is not None and not one.holders and one.idle == idle:
                del self._backends[key]
                self.writes.backends[one.number] = bytes(len(key))
                self._cleared.append(one.number)


#: Numbers: to ask an enumeration for its members costs more than the rest of what is done with them.
_USED, _TERMINATING, _REMOTE = map(int, BackendFlag)
_MAGLEV: Final = int(Algorithm.MAGLEV)
_GUARD: Final = SERVICE.pack(0, 0, 0, 0, ServiceFlag.NO_SERVICE, 0, 0)


#: What entries are called in messages, and the setting that makes room for more.
_ENTRIES: Final = {
    "members": ("backends of services with affinity", "backends"),
    "sources": ("source ranges", "sources"),
    "skips": ("exceptions from local redirects", "skips"),
}


def _entry_count(kind: str, row: Wanted) -> int:
    if kind == "members":
        return len(row.members) if row.balance.affinity else 0
    return len(row.sources) if kind == "sources" else len(row.skips)


def _number_in(kind: str, entry: bytes) -> int:
    """The service's number in an entry."""
    first, second = PAIR.unpack_from(entry)
    return int(first if kind == "members" else second)


def source_entry(number: int, network: Network) -> bytes:
    """A key of `lb_sources4` or `…6`."""
    return PAIR.pack(SOURCE_PREFIX_BITS + network.prefixlen, number) + network.network_address.packed
