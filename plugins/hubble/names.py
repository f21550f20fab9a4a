"""What flows are about, by number: each distinct endpoint, service, interface, node and list of DNS names once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from attrs import frozen

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import Endpoint, NetworkInterface, Service

T = TypeVar("T")
Array = np.ndarray[Any, Any]


class Interned(Generic[T]):
    """Values by number, equal ones once. The number 0 is no value.

    Numbers of values that no flow has any more are given anew after `keep`; `generation` tells that this happened, so that
    whoever remembers something by number forgets it.

    :param key: what tells two values apart.
    """

    def __init__(self, key: Callable[[T], Hashable]) -> None:
        self.values: list[T | None] = [None]
        self.generation = 0
        self._key = key
        self._numbers: dict[Hashable, int] = {}
        self._free: list[int] = []

    def __len__(self) -> int:
        """One more than the greatest number."""
        return len(self.values)

    def __getitem__(self, number: int) -> T | None:
        return self.values[number]

    def number(self, value: T) -> int:
        key = self._key(value)
        found = self._numbers.get(key)
        if found is not None:
            return found
        if self._free:
            number = self._free.pop()
            self.values[number] = value
        else:
            number = len(self.values)
            self.values.append(value)
        self._numbers[key] = number
        return number

    def keep(self, used: Array) -> None:
        """Forgets all values but those whose numbers are set in the mask, which may be shorter than there are numbers."""
        mask = np.zeros(len(self.values), bool)
        mask[: len(used)] = used[: len(mask)]
        mask[0] = True
        self._numbers = {key: number for key, number in self._numbers.items() if mask[number]}
        gone = np.flatnonzero(~mask).tolist()
        for number in gone:
            self.values[number] = None
        self._free = gone
        self.generation += 1

    @property
    def used(self) -> int:
        return len(self._numbers)


def _message(message: Any) -> bytes:
    wire: bytes = message.SerializeToString(deterministic=True)
    return wire


def _itself(value: Any) -> Hashable:
    return value  # type: ignore[no-any-return]


@frozen
class Node:
    """:param labels: sorted `key=value`."""

    name: str
    labels: tuple[str, ...] = ()


class Names:
    """All that is interned for one set of columns."""

    def __init__(self) -> None:
        self.endpoints: Interned[Endpoint] = Interned(_message)
        self.services: Interned[Service] = Interned(_message)
        self.interfaces: Interned[NetworkInterface] = Interned(_message)
        self.dns: Interned[tuple[str, ...]] = Interned(_itself)
        self.nodes: Interned[Node] = Interned(_itself)

    def parts(self) -> Mapping[str, Interned[Any]]:
        return {
            "endpoints": self.endpoints, "services": self.services, "interfaces": self.interfaces,
            "dns": self.dns, "nodes": self.nodes,
        }  # fmt: skip

    @property
    def generation(self) -> int:
        return sum(part.generation for part in self.parts().values())
