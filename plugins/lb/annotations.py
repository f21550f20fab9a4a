"""What annotations on services and slices mean. Those of Cilium have Cilium's meaning; `service.axoneme.io/…` are our own.

A name is looked for under both prefixes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from axoneme.core.state.resources import Envelope
from axoneme.plugins.lb.maps import TABLE_SIZES, Algorithm
from axoneme.plugins.lb.model import Address, FrontendKind, Pool
from axoneme.plugins.lb.values import virtual

T = TypeVar("T")
D = TypeVar("D")

PREFIXES: Final = ("service.axoneme.io/", "service.cilium.io/")
#: An address pool's annotations, and the older names of the same.
_IPS: Final = ("lbipam.cilium.io/ips", "io.cilium/lb-ipam-ips")
_KEY: Final = ("lbipam.cilium.io/sharing-key", "io.cilium/lb-ipam-sharing-key")
_ACROSS: Final = ("lbipam.cilium.io/sharing-cross-namespace", "io.cilium/lb-ipam-sharing-cross-namespace")

ALGORITHMS: Final[Mapping[str, Algorithm]] = {
    "random": Algorithm.RANDOM,
    "round-robin": Algorithm.ROUND_ROBIN,
    "maglev": Algorithm.MAGLEV,
    "least-connections": Algorithm.LEAST_CONNECTIONS,
}
MAX_WEIGHT: Final = 65_535

_KINDS: Final = {kind.value: kind for kind in FrontendKind}


class Annotations:
    """The annotations of one object; what is wrong with one is noted at its place."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope

    def __bool__(self) -> bool:
        return bool(self._envelope.annotations)

    def own(self, name: str, convert: Callable[[str], T], default: D) -> T | D:
        return self.first(tuple(prefix + name for prefix in PREFIXES), convert, default)

    def first(self, keys: tuple[str, ...], convert: Callable[[str], T], default: D) -> T | D:
        """The first of these annotations that is there, converted. `ValueError`s are noted."""
        for key in keys:
            text = self._envelope.annotations.get(key)
            if text is not None:
                try:
                    return convert(text)
                except ValueError as error:
                    self._envelope.fields.note(str(error), "metadata", "annotations", key)
        return default

    def algorithm(self) -> Algorithm | None:
        return self.own("lb-algorithm", algorithm, None)

    def table_size(self) -> int:
        return self.own("maglev-table-size", table_size, 0)

    def weights(self) -> Mapping[str, int]:
        return self.own("weights", weights, {})

    def weight(self) -> int:
        return self.own("weight", weight, 1)

    def forwards_directly(self) -> bool | None:
        return self.own("forwarding-mode", _forwarding, None)

    def exposed(self) -> frozenset[FrontendKind] | None:
        return self.own("type", _kinds, None)

    def pool(self, requested: tuple[Address, ...]) -> Pool:
        return Pool(
            requested=(*requested, *self.first(_IPS, _addresses, ())),
            sharing_key=self.first(_KEY, str, ""),
            sharing_namespaces=self.first(_ACROSS, _words, ()),
        )


def algorithm(text: str) -> Algorithm:
    return _one_of(text, ALGORITHMS)


def table_size(text: str) -> int:
    return _one_of(text, {str(size): size for size in TABLE_SIZES})


def weight(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_WEIGHT:
        raise ValueError(f"{text!r} is not a weight from 0 to {MAX_WEIGHT}")
    return int(text)


def weights(text: str) -> Mapping[str, int]:
    """`10.0.0.1=3, web-2=0`: an address or a workload's name each."""
    found = {}
    for word in _words(text):
        name, equals, number = word.rpartition("=")
        if not equals or not name:
            raise ValueError(f"{word!r} is not of the form ADDRESS=WEIGHT or NAME=WEIGHT")
        found[name] = weight(number)
    return found


def _forwarding(text: str) -> bool:
    return _one_of(text, {"dsr": True, "snat": False})


def _kinds(text: str) -> frozenset[FrontendKind]:
    return frozenset(_one_of(word, _KINDS) for word in _words(text))


def _addresses(text: str) -> tuple[Address, ...]:
    return tuple(virtual(word) for word in _words(text))


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for part in text.split(",") if (word := part.strip()))


def _one_of(text: str, values: Mapping[str, T]) -> T:
    if text.strip() not in values:
        raise ValueError(f"{text!r} is not possible here; it can be {', '.join(values)}")
    return values[text.strip()]
