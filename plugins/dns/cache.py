"""Names, the addresses that answers gave for them, and until when. Pure: the time is always an argument, in Unix seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from attrs import define, field, frozen

from axoneme.core.workloads.endpoints import Address

#: No answer is believed for longer, in seconds.
MAX_TTL = 7 * 86_400

Pair = tuple[str, Address]


@define
class Entry:
    """One address of one name.

    :param ttl: of the last answer, in seconds, and `expires` what follows from it.
    :param endpoints: the workloads that asked, with the time of the last answer.
    :param written: the expiry that the journal has.
    """

    ttl: int
    expires: float
    endpoints: dict[int, float] = field(factory=dict)
    written: float = 0.0


@frozen
class Learned:
    """What an answer changed: addresses that are new to the name, and pairs that had to make room."""

    added: tuple[Pair, ...] = ()
    evicted: tuple[Pair, ...] = ()


class NameCache:
    """:param min_ttl: in seconds; `names` and `addresses` (of one name) are limits."""

    def __init__(self, *, min_ttl: int, names: int, addresses: int) -> None:
        self._min_ttl, self._max_names, self._max_addresses = min_ttl, names, addresses
        #: Names in the order in which they were asked for last.
        self._names: dict[str, dict[Address, Entry]] = {}

    def __len__(self) -> int:
        """The number of pairs."""
        return sum(len(entries) for entries in self._names.values())

    @property
    def names(self) -> Collection[str]:
        return self._names.keys()

    def items(self) -> Iterator[tuple[Pair, Entry]]:
        for name, entries in self._names.items():
            for address, entry in entries.items():
                yield (name, address), entry

    def get(self, name: str, address: Address) -> Entry | None:
        return self._names.get(name, {}).get(address)

    def learn(self, name: str, addresses: Iterable[Address], ttl: int, endpoint: int, now: float) -> Learned:
        """An answer to an endpoint. An address that is known already is only known for longer."""
        entries = self._names.pop(name, {})
        self._names[name] = entries
        added, expires = [], now + min(max(ttl, self._min_ttl), MAX_TTL)
        for address in dict.fromkeys(addresses):
            entry = entries.get(address)
            if entry is None:
                entry = entries[address] = Entry(ttl, expires)
                added.append((name, address))
            entry.ttl, entry.expires = ttl, max(entry.expires, expires)
            entry.endpoints[endpoint] = now
        evicted = [*self._evict_addresses(name), *self._evict_names()]
        return Learned(
            tuple(pair for pair in added if pair not in evicted),
            tuple(pair for pair in evicted if pair not in added),
        )

    def restore(self, name: str, address: Address, entry: Entry) -> None:
        """What an earlier run knew."""
        self._names.setdefault(name, {})[address] = entry

    def _evict_addresses(self, name: str) -> Iterator[Pair]:
        entries = self._names[name]
        surplus = len(entries) - self._max_addresses
        if surplus > 0:
            for address in sorted(entries, key=lambda one: entries[one].expires)[:surplus]:
                del entries[address]
                yield (name, address)

    def _evict_names(self) -> Iterator[Pair]:
        while len(self._names) > self._max_names:
            name = next(iter(self._names))
            yield from ((name, address) for address in self._names.pop(name))

    def expire(self, now: float, grace: float, alive: Callable[[], Collection[Address]]) -> list[Pair]:
        """Removes what has been over for `grace` seconds and whom nobody talks to; returns that.

        :param alive: gives the addresses with live connections; asked only when something is over.
        """
        over = [pair for pair, entry in self.items() if entry.expires + grace <= now]
        if not over:
            return []
        used = alive()
        gone = [(name, address) for name, address in over if address not in used]
        for pair in gone:
            self.remove(*pair)
        return gone

    def remove(self, name: str, address: Address) -> None:
        entries = self._names.get(name, {})
        entries.pop(address, None)
        if not entries:
            self._names.pop(name, None)

    def forget(self, endpoint: int) -> None:
        """An endpoint is gone, and its number may be another's soon. What it asked for stays known."""
        for _, entry in self.items():
            entry.endpoints.pop(endpoint, None)
