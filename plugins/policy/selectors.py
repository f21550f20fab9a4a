"""Selectors over bitmaps: an int per label, a bit per identity.

A peer selector becomes the int of the identities that it selects. The ints of the selectors in use are kept, and a new
identity only visits those selectors that one of its labels could satisfy, so its cost does not grow with all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from sys import intern

from attrs import define, field, frozen

from axoneme.plugins.policy.model import CidrSelector, Network, Operator, Peer, Requirement, Selector

#: A way into an index of selectors: a label with value, a label key, or a prefix.
Anchor = tuple[str, ...] | Network


class Labels:
    """A label set prepared for matching. Made from texts `source:key=value`."""

    __slots__ = ("_values", "prefix", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(sorted(set(texts)))
        #: By key, (source, value) of each label with it; as compact as can be, because there are many.
        self._values: dict[str, tuple[tuple[str, str], ...]] = {}
        self.prefix: Network | None = None
        for text in self.texts:
            source, _, rest = text.partition(":")
            key, _, value = rest.partition("=")
            if source == "cidr":
                self._set_prefix(key)
            pair = (intern(source), intern(value))
            self._values[intern(key)] = (*self._values.get(key, ()), pair)

    def _set_prefix(self, text: str) -> None:
        """The most specific one counts. Label keys cannot hold colons, hence a dash may stand for one."""
        prefix = ip_network(text.replace("-", ":"))
        if self.prefix is None or prefix.prefixlen > self.prefix.prefixlen:
            self.prefix = prefix

    @property
    def is_world(self) -> bool:
        """Whether a CIDR could select it: it lies outside the cluster."""
        worlds = ("world", "world-ipv4", "world-ipv6")
        return self.prefix is not None or any(self._is_reserved(name) for name in worlds)

    def _is_reserved(self, name: str) -> bool:
        return any(source == "reserved" for source, _ in self._values.get(name, ()))

    def holds(self, requirement: Requirement) -> bool:
        source = requirement.source
        values = [
            value for own, value in self._values.get(requirement.key, ()) if source == "any" or source == own
        ]
        operator = requirement.operator
        if operator is Operator.EXISTS:
            return bool(values)
        if operator is Operator.DOES_NOT_EXIST:
            return not values
        found = any(value in requirement.values for value in values)
        return found is not (operator is Operator.NOT_IN)

    def matches(self, peer: Peer) -> bool:
        if isinstance(peer, Selector):
            return all(self.holds(requirement) for requirement in peer.requirements)
        if self.prefix is not None and any(_inside(self.prefix, one) for one in peer.excepts):
            return False
        if isinstance(peer.base, Selector):
            return self.prefix is not None and self.matches(peer.base)
        return self._in_prefix(peer.base)

    def _in_prefix(self, base: Network) -> bool:
        """All of a family is the world of that family, also where no policy mentions a prefix."""
        if self.prefix is not None:
            return _inside(self.prefix, base)
        if base.prefixlen:
            return False
        return any(self._is_reserved(name) for name in ("world", f"world-ipv{base.version}"))

    def anchors(self) -> Iterator[Anchor]:
        """Everything that a selector satisfied by these labels can be filed under."""
        for key, pairs in self._values.items():
            found: dict[Anchor, None] = {}
            for source, value in pairs:
                found |= dict.fromkeys(
                    [(source, key), ("any", key), (source, key, value), ("any", key, value)]
                )
            yield from found


def _inside(prefix: Network, base: Network) -> bool:
    if prefix.version != base.version or prefix.prefixlen < base.prefixlen:
        return False
    shift = base.max_prefixlen - base.prefixlen
    return int(prefix.network_address) >> shift == int(base.network_address) >> shift


def anchors_of(peer: Peer) -> tuple[Anchor, ...]:
    """What to file a selector under; empty if any identity might satisfy it."""
    if isinstance(peer, CidrSelector):
        if isinstance(peer.base, Selector):
            return anchors_of(peer.base)
        worlds = ("world", f"world-ipv{peer.base.version}") if not peer.base.prefixlen else ()
        return (peer.base, *(("reserved", name) for name in worlds))
    for requirement in peer.requirements:
        name = (requirement.source, requirement.key)
        if requirement.operator in (Operator.EQUALS, Operator.IN):
            return tuple((*name, value) for value in requirement.values)
    for requirement in peer.requirements:
        if requirement.operator is Operator.EXISTS:
            return ((requirement.source, requirement.key),)
    return ()


@frozen
class Identity:
    """A number that stands for a label set (`source:key=value` texts)."""

    number: int
    labels: tuple[str, ...]


@define
class _Known:
    peer: Peer
    bits: int = 0
    users: int = 0


class PeerIndex:
    """Selectors filed so that those which a label set satisfies are found without trying all."""

    def __init__(self) -> None:
        self._filed: dict[Anchor, set[str]] = {}
        self._unfiled: set[str] = set()
        self._lengths: dict[tuple[int, int], int] = {}

    def add(self, peer: Peer) -> None:
        anchors = anchors_of(peer)
        if not anchors:
            self._unfiled.add(peer.text)
        for anchor in anchors:
            filed = self._filed.get(anchor)
            if filed is None:
                self._filed[anchor] = {peer.text}
            else:
                filed.add(peer.text)
            if not isinstance(anchor, tuple):
                size = (anchor.version, anchor.prefixlen)
                self._lengths[size] = self._lengths.get(size, 0) + 1

    def remove(self, peer: Peer) -> None:
        self._unfiled.discard(peer.text)
        for anchor in anchors_of(peer):
            filed = self._filed[anchor]
            filed.discard(peer.text)
            if not filed:
                del self._filed[anchor]
            if not isinstance(anchor, tuple):
                self._lengths[anchor.version, anchor.prefixlen] -= 1

    def candidates(self, labels: Labels) -> set[str]:
        found = set(self._unfiled)
        for anchor in labels.anchors():
            found |= self._filed.get(anchor, set())
        if labels.prefix is not None:
            for (version, length), count in self._lengths.items():
                if count and version == labels.prefix.version and length <= labels.prefix.prefixlen:
                    found |= self._filed.get(labels.prefix.supernet(new_prefix=length), set())
        return found


@define
class Universe:
    """The known identities, and for each selector in use the bitmap of those it selects."""

    _labels: dict[int, Labels] = field(factory=dict)
    _bit_of: dict[int, int] = field(factory=dict)
    _number_at: list[int] = field(factory=list)
    _free: list[int] = field(factory=list)
    _known: dict[str, _Known] = field(factory=dict)
    _index: PeerIndex = field(factory=PeerIndex)
    _by_label: dict[Anchor, int] = field(factory=dict)
    _worlds: dict[int, Labels] = field(factory=dict)
    _all: int = 0

    def __contains__(self, number: int) -> bool:
        return number in self._labels

    def __len__(self) -> int:
        return len(self._labels)

    def labels(self, number: int) -> Labels | None:
        return self._labels.get(number)

    def numbers(self) -> Iterable[int]:
        return self._labels

    def bit_of(self, number: int) -> int:
        """Where a known identity stands in bitmaps; when it is gone, another one takes the place."""
        return self._bit_of[number]

    def number_at(self, bit: int) -> int:
        return self._number_at[bit]

    @property
    def width(self) -> int:
        """The number of bits that a bitmap may have."""
        return len(self._number_at)

    def add(self, identity: Identity) -> None:
        """Adds an identity, or replaces the labels of a number that is known."""
        if identity.number in self._labels:
            if self._labels[identity.number].texts == tuple(sorted(set(identity.labels))):
                return
            self.remove(identity.number)
        labels = Labels(identity.labels)
        mask = 1 << self._take_bit(identity.number)
        self._labels[identity.number] = labels
        if labels.is_world:
            self._worlds[identity.number] = labels
        self._all |= mask
        for anchor in labels.anchors():
            self._by_label[anchor] = self._by_label.get(anchor, 0) | mask
        for known in self._selecting(labels):
            known.bits |= mask

    def remove(self, number: int) -> None:
        labels = self._labels.pop(number, None)
        if labels is None:
            return
        self._worlds.pop(number, None)
        bit = self._bit_of.pop(number)
        self._free.append(bit)
        mask = ~(1 << bit)
        self._all &= mask
        for anchor in labels.anchors():
            left = self._by_label[anchor] & mask
            if left:
                self._by_label[anchor] = left
            else:
                del self._by_label[anchor]
        for known in self._selecting(labels):
            known.bits &= mask

    def _take_bit(self, number: int) -> int:
        if self._free:
            bit = self._free.pop()
            self._number_at[bit] = number
        else:
            bit = len(self._number_at)
            self._number_at.append(number)
        self._bit_of[number] = bit
        return bit

    def _selecting(self, labels: Labels) -> Iterator[_Known]:
        for text in self._index.candidates(labels):
            known = self._known[text]
            if labels.matches(known.peer):
                yield known

    def selectors_of(self, number: int) -> set[str]:
        """The texts of the selectors in use that select the identity."""
        return {known.peer.text for known in self._selecting(self._labels[number])}

    def use(self, peer: Peer) -> None:
        """Keeps the bitmap of a selector up to date until as many `release` calls."""
        known = self._known.get(peer.text)
        if known is None:
            known = self._known[peer.text] = _Known(peer, self.evaluate(peer))
            self._index.add(peer)
        known.users += 1

    def release(self, peer: Peer) -> None:
        known = self._known[peer.text]
        known.users -= 1
        if not known.users:
            del self._known[peer.text]
            self._index.remove(peer)

    def bits(self, peer: Peer) -> int:
        known = self._known.get(peer.text)
        return self.evaluate(peer) if known is None else known.bits

    def evaluate(self, peer: Peer) -> int:
        if isinstance(peer, CidrSelector):
            return self._evaluate_cidr(peer)
        bits = self._all
        for requirement in peer.requirements:
            if requirement.operator is Operator.EQUALS:
                bits &= self._by_label.get((requirement.source, requirement.key, *requirement.values), 0)
            else:
                bits &= self._requirement(requirement)
        return bits

    def _requirement(self, requirement: Requirement) -> int:
        name = (requirement.source, requirement.key)
        if requirement.operator in (Operator.EXISTS, Operator.DOES_NOT_EXIST):
            bits = self._by_label.get(name, 0)
        else:
            bits = 0
            for value in requirement.values:
                bits |= self._by_label.get((*name, value), 0)
        return self._all & ~bits if requirement.operator in _NEGATIVE else bits

    def _evaluate_cidr(self, peer: CidrSelector) -> int:
        bits = 0
        for number, labels in self._worlds.items():
            if labels.matches(peer):
                bits |= 1 << self._bit_of[number]
        return bits


_NEGATIVE = (Operator.NOT_IN, Operator.DOES_NOT_EXIST)
