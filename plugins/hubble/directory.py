"""Who is behind the numbers of the kernel's records: endpoints by id and identity, interfaces by index."""

from __future__ import annotations

import socket
from typing import Final

from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, Identity
from axoneme.core.workloads.endpoints import Endpoint as Row
from axoneme.plugins.hubble.enrich import Join
from axoneme.plugins.hubble.names import Names
from axoneme.plugins.hubble.proto.flow_pb2 import Endpoint, NetworkInterface, Workload

_NAMESPACE: Final = "k8s:io.kubernetes.pod.namespace="
_CLUSTER: Final = "k8s:io.cilium.k8s.policy.cluster="
#: What a workload of a plain host is, where Kubernetes would say Deployment.
_KIND: Final = "Workload"
#: Identities that nobody has any more and that the ring may still tell of.
_REMEMBERED: Final = 65_536


class Directory:
    """Resolves numbers by the agent's tables, as they are when a record is read.

    Records may come a moment after the workload that they are about is gone: what was known last counts.
    """

    def __init__(self, state: State, names: Names) -> None:
        self._names = names
        self._table = state.table(ENDPOINTS.name, Row)
        self._identities = state.table(IDENTITIES.name, Identity)
        self._rows: dict[int, Row] = {}
        self._labels: dict[int, tuple[str, ...]] = {}
        self._known = (-1, -1, -1)
        self.endpoints = Join(self._endpoint)
        self.interfaces = Join(self._interface)

    def refresh(self) -> None:
        """To be called before each use: what changed since is looked up anew."""
        now = (self._table.revision, self._identities.revision, self._names.generation)
        if now == self._known:
            return
        for change in self._table.changes(self._known[0]).changes:
            self._rows[change.row.id] = change.row
        for one in self._identities.changes(self._known[1]).changes:
            self._labels[one.row.number] = one.row.labels
        if len(self._labels) > _REMEMBERED + len(self._identities):
            self._labels = {row.number: row.labels for row in self._identities}
        self._known = now
        self.endpoints.forget()
        self.interfaces.forget()

    def endpoint(self, number: int, identity: int) -> Endpoint:
        """Who has this endpoint id and this identity, as flows tell it."""
        self.refresh()
        return endpoint_message(number, identity, self._rows.get(number), self._labels.get(identity, ()))

    def _endpoint(self, key: int) -> int:
        number, identity = key >> 32, key & 0xFFFFFFFF
        row = self._rows.get(number)
        labels = self._labels.get(identity, ())
        return self._names.endpoints.number(endpoint_message(number, identity, row, labels))

    def _interface(self, index: int) -> int:
        if not index:
            return 0
        found = self._table.by("ifindex", index)
        return self._names.interfaces.number(
            NetworkInterface(index=index, name=found[0].ifname if found else _name(index))
        )


def endpoint_message(number: int, identity: int, row: Row | None, labels: tuple[str, ...]) -> Endpoint:
    """An endpoint as flows tell of it.

    :param row: who has the number, if that is known.
    :param labels: those of the identity; empty if they are not known.
    """
    if not labels and row is not None and row.identity == identity:
        labels = row.labels
    made = Endpoint(ID=number, identity=identity, labels=labels)
    made.namespace, made.cluster_name = _value(labels, _NAMESPACE), _value(labels, _CLUSTER)
    if row is not None:
        made.namespace, made.pod_name = row.namespace, row.name
        made.workloads.append(Workload(name=row.name, kind=_KIND))
    return made


def _value(labels: tuple[str, ...], prefix: str) -> str:
    return next((label.removeprefix(prefix) for label in labels if label.startswith(prefix)), "")


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
