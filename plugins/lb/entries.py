"""What else there is of a service in the kernel's maps: who may be kept, which clients it is for, whom it is not for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from axoneme.plugins.lb.demand import KINDS, Wanted
from axoneme.plugins.lb.maps import Sizes
from axoneme.plugins.lb.numbers import LimitError
from axoneme.plugins.lb.rows import PAIR, BackendKey, source_entry

#: The entries of one row, by kind; those that have none are left out.
OfRow = dict[str, frozenset[bytes]]
#: Entries of all kinds, in the order in which they came.
ByKind = dict[str, dict[bytes, None]]

#: What entries are called in messages, the setting that makes room for more, and what to do where there is none.
_NAMES: Final = {
    "members": ("backends of services with affinity", "backends", ""),
    "sources": ("source ranges", "sources", ""),
    "skips": (
        "exceptions from local redirects",
        "skips",
        "select fewer workloads, or leave out skipRedirectFromBackend",
    ),
}


class Entries:
    """Entries of `lb_members`, `lb_sources` and `lb_skips`, with the writes that the maps do not have yet."""

    def __init__(self, sizes: Sizes) -> None:
        self._room = {"members": sizes.backends, "sources": sizes.sources, "skips": 65_536}
        self._entries: dict[str, set[bytes]] = {kind: set() for kind in KINDS}
        self._writes, self._drops = _empty(), _empty()

    def adopt(self, found: Mapping[str, Iterable[bytes]]) -> None:
        """What the kernel has, by kind."""
        for kind, entries in found.items():
            self._entries[kind].update(entries)

    def prune(self, rows: Iterable[OfRow]) -> None:
        """Drops what belongs to none of these rows."""
        rows = list(rows)
        for kind, entries in self._entries.items():
            used = {entry for row in rows for entry in row.get(kind, ())}
            for entry in entries - used:
                self._drop(kind, entry)

    def check_room(self, rows: Iterable[Wanted], numbers: Callable[[], set[int]]) -> None:
        """Raises `LimitError` when a service's rows would need more than there is room for.

        :param numbers: of the rows that it had and will have; asked only if it may be too much.
        """
        rows = [row for row in rows if row.balance.affinity or row.sources or row.skips]
        for kind, (what, limit, hint) in _NAMES.items() if rows else ():
            more = sum(_count(kind, row) for row in rows)
            if not more or len(self._entries[kind]) + more <= self._room[kind]:
                continue
            # Exactly: what is there already, perhaps since before a restart, needs no room.
            own = numbers()
            kept = sum(_number_in(kind, entry) not in own for entry in self._entries[kind])
            if kept + more > self._room[kind]:
                raise LimitError(what, limit, self._room[kind], hint)

    def replace(self, before: OfRow, after: OfRow) -> None:
        """The entries of one row."""
        for kind in KINDS:
            old, new = before.get(kind, frozenset()), after.get(kind, frozenset())
            for entry in new - old:
                self._drops[kind].pop(entry, None)
                if entry not in self._entries[kind]:
                    self._entries[kind].add(entry)
                    self._writes[kind][entry] = None
            for entry in old - new:
                self._drop(kind, entry)

    def _drop(self, kind: str, entry: bytes) -> None:
        self._entries[kind].discard(entry)
        if self._writes[kind].pop(entry, self) is self:
            self._drops[kind][entry] = None

    def take_writes(self) -> tuple[ByKind, ByKind]:
        """Entries to write, and entries to drop, since the last time."""
        taken = self._writes, self._drops
        self._writes, self._drops = _empty(), _empty()
        return taken


def of_row(number: int, wanted: Wanted, backend: Callable[[BackendKey], int]) -> OfRow:
    """The entries that a row wants.

    :param number: of the row.
    :param backend: gives the number of a backend.
    """
    members = wanted.members if wanted.balance.affinity else ()
    found = {
        "members": frozenset(PAIR.pack(number, backend(key)) for key, _ in members),
        "sources": frozenset(source_entry(number, network) for network in wanted.sources),
        "skips": frozenset(PAIR.pack(endpoint, number) for endpoint in wanted.skips),
    }
    return {kind: entries for kind, entries in found.items() if entries}


def _empty() -> ByKind:
    return {kind: {} for kind in KINDS}


def _count(kind: str, row: Wanted) -> int:
    if kind == "members":
        return len(row.members) if row.balance.affinity else 0
    return len(row.sources) if kind == "sources" else len(row.skips)


def _number_in(kind: str, entry: bytes) -> int:
    """The service's number in an entry."""
    first, second = PAIR.unpack_from(entry)
    return int(first if kind == "members" else second)
