"""Which addresses the names and patterns of toFQDNs stand for. Pure; knows what changed since it was asked last."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import define, field

from axoneme.core.workloads.endpoints import Address
from axoneme.core.workloads.names import name_matches


@define
class Names:
    """Names, their addresses, and the patterns that select them."""

    _patterns: frozenset[str] = frozenset()
    _selecting: dict[str, frozenset[str]] = field(factory=dict)
    _addresses: dict[str, set[Address]] = field(factory=dict)
    _names: dict[Address, set[str]] = field(factory=dict)
    _changed: set[Address] = field(factory=set)

    @property
    def patterns(self) -> frozenset[str]:
        return self._patterns

    def select(self, patterns: Iterable[str]) -> None:
        """From now on these patterns matter, and no others."""
        new = frozenset(patterns)
        if new == self._patterns:
            return
        self._patterns = new
        for name, before in self._selecting.items():
            self._selecting[name] = now = self._matching(name)
            if now != before:
                self._changed |= self._addresses[name]

    def add(self, name: str, address: Address) -> None:
        if name not in self._addresses:
            self._addresses[name], self._selecting[name] = set(), self._matching(name)
        self._addresses[name].add(address)
        self._names.setdefault(address, set()).add(name)
        if self._selecting[name]:
            self._changed.add(address)

    def remove(self, name: str, address: Address) -> None:
        """Nothing happens when the name does not stand for the address."""
        if address not in self._addresses.get(name, ()):
            return
        if self._selecting[name]:
            self._changed.add(address)
        self._names[address].discard(name)
        if not self._names[address]:
            del self._names[address]
        self._addresses[name].discard(address)
        if not self._addresses[name]:
            del self._addresses[name], self._selecting[name]

    def _matching(self, name: str) -> frozenset[str]:
        return frozenset(one for one in self._patterns if name_matches(one, name))

    def of(self, address: Address) -> frozenset[str]:
        """The patterns that select some name of the address."""
        return frozenset().union(*(self._selecting[name] for name in self._names.get(address, ())))

    def selected(self) -> Mapping[Address, frozenset[str]]:
        """Every address that some pattern selects."""
        return {address: patterns for address in self._names if (patterns := self.of(address))}

    @property
    def has_changed(self) -> bool:
        return bool(self._changed)

    def take_changed(self) -> set[Address]:
        """The addresses whose patterns may have changed since the last time."""
        changed, self._changed = self._changed, set()
        return changed
