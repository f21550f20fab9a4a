"""Who stands on the map: workloads, and what is outside of them, each once whatever it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
from attrs import frozen

from axoneme.plugins.hubble.columns import Array, View

if TYPE_CHECKING:
    from axoneme.plugins.hubble.names import Names
    from axoneme.plugins.hubble.proto.flow_pb2 import Endpoint

#: Parties that are told apart; what comes then is one.
MOST: Final = 4096


@frozen
class Party:
    """One of them.

    :param id: the same after a restart: a kind and a name.
    :param kind: workload, host, node, world, cidr, name (of DNS), or other.
    """

    id: str
    kind: str
    name: str
    namespace: str = ""
    identity: int = 0
    labels: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        return {
            "id": self.id, "kind": self.kind, "name": self.name, "namespace": self.namespace,
            "identity": self.identity, "labels": list(self.labels),
        }  # fmt: skip


_OTHERS: Final = Party("other:", "other", "others")


def party(endpoint: Endpoint | None) -> Party:
    """Who an endpoint is to people."""
    if endpoint is None:
        return Party("other:unknown", "other", "unknown")
    labels = tuple(endpoint.labels)
    if endpoint.pod_name or endpoint.workloads:
        name = endpoint.workloads[0].name if endpoint.workloads else endpoint.pod_name
        full = f"{endpoint.namespace}/{name}"
        return Party(f"workload:{full}", "workload", name, endpoint.namespace, endpoint.identity, labels)
    for label in labels:
        source, _, rest = label.partition(":")
        if source == "cidr":
            return Party(f"cidr:{rest}", "cidr", rest.replace("-", ":"), "", endpoint.identity, labels)
    for kind, reserved in _RESERVED:
        if reserved in labels:
            return Party(f"{kind}:", kind, _NAMES[kind], "", endpoint.identity, labels)
    if app := _app(labels):  # a workload that is gone, or of another node
        return Party(f"workload:{endpoint.namespace}/{app}", "workload", app, endpoint.namespace, endpoint.identity, labels)  # fmt: skip
    name = labels[0].partition(":")[2] if labels else f"identity {endpoint.identity}"
    return Party(f"other:{name}", "other", name, "", endpoint.identity, labels)


_RESERVED: Final = (
    ("host", "reserved:host"),
    ("node", "reserved:remote-node"),
    ("world", "reserved:world"),
    ("world", "reserved:world-ipv4"),
    ("world", "reserved:world-ipv6"),
)
_NAMES: Final = {"host": "this host", "node": "other nodes", "world": "world"}


def _app(labels: tuple[str, ...]) -> str:
    for prefix in ("k8s:app.kubernetes.io/name=", "k8s:app=", "k8s:k8s-app="):
        for label in labels:
            if label.startswith(prefix):
                return label[len(prefix) :]
    return ""


class Parties:
    """Gives numbers to parties, and tells of whole columns who is in them."""

    def __init__(self, names: Names) -> None:
        self.all: list[Party] = []
        self._names = names
        self._numbers: dict[str, int] = {}
        self._generation = -1
        self._of_endpoint = np.full(0, -1, np.int64)
        self._of_name = np.full(0, -1, np.int64)

    def number(self, one: Party) -> int:
        """A party's number; what is known of it is what was said last."""
        found = self._numbers.get(one.id)
        if found is None:
            if len(self.all) >= MOST and one is not _OTHERS:
                return self.number(_OTHERS)
            found = self._numbers[one.id] = len(self.all)
            self.all.append(one)
        elif self.all[found] != one:
            self.all[found] = one
        return found

    def ends(self, view: View) -> tuple[Array, Array]:
        """The numbers of sources and destinations. Behind an address of the world that has a name is that name."""
        self._grow()
        source = self._of(view["source"])
        destination = self._of(view["destination"])
        names = view["destination_names"]
        if names.any():
            outside = np.array([each.kind in ("world", "cidr") for each in self.all])
            named = np.flatnonzero((names != 0) & outside[destination])
            destination[named] = self._named(names[named])
        return source, destination

    def _grow(self) -> None:
        if self._generation != self._names.generation:
            self._generation = self._names.generation
            self._of_endpoint = np.full(0, -1, np.int64)
            self._of_name = np.full(0, -1, np.int64)
        self._of_endpoint = _grown(self._of_endpoint, len(self._names.endpoints))
        self._of_name = _grown(self._of_name, len(self._names.dns))

    def _of(self, numbers: Array) -> Array:
        found: Array = self._of_endpoint[numbers]
        if (found < 0).any():
            for number in np.unique(numbers[found < 0]).tolist():
                self._of_endpoint[number] = self.number(party(self._names.endpoints[number]))
            found = self._of_endpoint[numbers]
        return found

    def _named(self, numbers: Array) -> Array:
        for number in np.unique(numbers[self._of_name[numbers] < 0]).tolist():
            names = self._names.dns[number] or ("unknown",)
            self._of_name[number] = self.number(Party(f"name:{names[0]}", "name", names[0]))
        found: Array = self._of_name[numbers]
        return found


def _grown(array: Array, size: int) -> Array:
    if len(array) >= size:
        return array
    return np.concatenate([array, np.full(size - len(array), -1, np.int64)])
