"""Who a workload is: a number for its label set, the same for all that carry the same labels.

Labels are written `source:key=value`, or `source:key` when the value is empty. A workload's own have the source `k8s`, as those of a pod in Cilium, so that
policies written for pods hold for workloads of plain hosts too; `reserved` is the source of the peers that always exist.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from types import MappingProxyType

import attrs

from axoneme.core import logs
from axoneme.core.errors import AxonemeError
from axoneme.core.state.persist import Numbers, PersistError
from axoneme.core.state.table import State, Transaction
from axoneme.core.workloads.endpoints import IDENTITIES, Identity

log = logs.get(__name__)

HOST, WORLD, UNMANAGED, HEALTH, INIT, REMOTE_NODE, KUBE_APISERVER, INGRESS, WORLD_IPV4, WORLD_IPV6 = range(
    1, 11
)

#: The identities that always exist.
RESERVED: Mapping[int, tuple[str, ...]] = MappingProxyType(
    {
        HOST: ("reserved:host",),
        WORLD: ("reserved:world",),
        UNMANAGED: ("reserved:unmanaged",),
        HEALTH: ("reserved:health",),
        INIT: ("reserved:init",),
        REMOTE_NODE: ("reserved:remote-node",),
        KUBE_APISERVER: ("reserved:kube-apiserver", "reserved:remote-node"),
        INGRESS: ("reserved:ingress",),
        WORLD_IPV4: ("reserved:world-ipv4",),
        WORLD_IPV6: ("reserved:world-ipv6",),
    }
)

#: Numbers of label sets, on all nodes of a cluster; VXLAN carries 24 bits.
FIRST, LAST = 256, (1 << 24) - 1
#: From here on numbers are this node's own, for prefixes that policies mention.
FIRST_LOCAL = 1 << 24

NAMESPACE_LABEL = "io.kubernetes.pod.namespace"
NAMESPACE_LABELS = "io.cilium.k8s.namespace.labels."
CLUSTER_LABEL = "io.cilium.k8s.policy.cluster"
SERVICE_ACCOUNT_LABEL = "io.cilium.k8s.policy.serviceaccount"
#: The label that Kubernetes gives every namespace.
NAMESPACE_NAME = "kubernetes.io/metadata.name"

# The default label filter: labels that say nothing about who a workload is, or change with every roll-out, would give
# nearly every workload an identity of its own. Patterns are anchored at the start of the key only.
_KEPT = re.compile(r"io\.kubernetes\.pod\.namespace|io\.cilium\.k8s\.|app\.kubernetes\.io/")
_DROPPED = re.compile(
    r"io\.kubernetes|kubernetes\.io|k8s\.io|.*beta\.kubernetes\.io"
    r"|statefulset\.kubernetes\.io/pod-name|apps\.kubernetes\.io/pod-index"
    r"|batch\.kubernetes\.io/(job-completion-index|controller-uid)"
    r"|pod-template-(generation|hash)|controller-revision-hash|controller-uid|annotation|etcd_node"
)
#: Only the agent may say these of a workload: whoever could set them could pose as another namespace or cluster.
_FORGED = "io.cilium.k8s."

# The syntax of label keys and values in Kubernetes.
_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


class LabelError(AxonemeError):
    """A label that is not one."""


class IdentityError(AxonemeError):
    """An identity that cannot be given."""


def check_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """A copy of a workload's own labels. Raises `LabelError` naming the first one that Kubernetes would not accept."""
    for key, value in labels.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise LabelError(
                f"{key!r} is not a label key",
                hint="at most 63 letters, digits, '-', '_' and '.', perhaps after a DNS name and '/'",
            )
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise LabelError(
                f"{value!r} is not a label value (of {key})",
                hint="at most 63 letters, digits, '-', '_' and '.'",
            )
    return dict(labels)


def relevant(key: str) -> bool:
    """Whether the default label filter lets a key be part of an identity."""
    return bool(_KEPT.match(key)) or not _DROPPED.match(key)


def workload_labels(
    labels: Mapping[str, str],
    namespace: str,
    *,
    namespace_labels: Mapping[str, str] | None = None,
    service_account: str = "",
    cluster: str = "default",
) -> tuple[str, ...]:
    """The labels that make a workload's identity, sorted, as `source:key=value`.

    :param labels: its own; `io.cilium.k8s.*` among them are ignored.
    :param namespace_labels: of its namespace; None for those that every namespace has, its name.
    """
    found = {key: value for key, value in labels.items() if not key.startswith(_FORGED)}
    if namespace_labels is None:
        namespace_labels = {NAMESPACE_NAME: namespace}
    found |= {f"{NAMESPACE_LABELS}{key}": value for key, value in namespace_labels.items()}
    found |= {NAMESPACE_LABEL: namespace, CLUSTER_LABEL: cluster}
    if service_account:
        found[SERVICE_ACCOUNT_LABEL] = service_account
    return tuple(sorted(label("k8s", key, value) for key, value in found.items() if relevant(key)))


def label(source: str, key: str, value: str) -> str:
    """A label as it is written everywhere: `source:key=value`, and `source:key` when the value is empty."""
    return f"{source}:{key}={value}" if value else f"{source}:{key}"


class Identities:
    """Gives label sets their numbers and counts who uses them; keeps the `identities` table.

    A number stays with its labels, also over restarts, until nobody has them any more; it is not given to others soon.
    """

    def __init__(self, state: State, numbers: Numbers) -> None:
        self._state = state
        self._table = state.writer(IDENTITIES.name, Identity)
        self._numbers = numbers

    def start(self) -> None:
        """Writes the reserved identities."""
        self._table.upsert(*(Identity(number=number, labels=labels) for number, labels in RESERVED.items()))

    def get(self, number: int) -> Identity | None:
        return self._table.get(number)

    def lookup(self, labels: tuple[str, ...]) -> Identity | None:
        """The identity of exactly these labels, if it is in use or reserved."""
        found = self._table.by("labels", labels[0]) if labels else []
        return next((identity for identity in found if identity.labels == labels), None)

    def acquire(self, labels: tuple[str, ...], txn: Transaction | None = None) -> Identity:
        """The identity of these labels, with one reference more.

        Raises `IdentityError` when no number is left or it cannot be written down.
        """
        if txn is None:
            with self._state.transaction() as own:
                return self.acquire(labels, own)
        try:
            number = self._numbers.allocate(_name(labels))
        except PersistError as error:
            raise IdentityError(f"no identity for a workload: {error}", hint=error.hint) from error
        row = txn.get(self._table, number) or Identity(number=number, labels=labels)
        row = attrs.evolve(row, references=row.references + 1)
        txn.upsert(self._table, row)
        return row

    def release(self, number: int, txn: Transaction | None = None) -> None:
        """Takes one reference away; without any the identity ends. Reserved and unknown ones are left alone."""
        if txn is None:
            with self._state.transaction() as own:
                return self.release(number, own)
        row = txn.get(self._table, number)
        if row is None or number < FIRST:
            return None
        if row.references > 1:
            txn.upsert(self._table, attrs.evolve(row, references=row.references - 1))
            return None
        txn.delete(self._table, number)
        try:
            self._numbers.release(_name(row.labels))
        except PersistError as error:  # `forget_unused` frees it at the next start
            log.warning("identity not freed yet", identity=number, error=str(error))
        return None

    def forget_unused(self) -> int:
        """Frees numbers that nobody refers to, after a restart found out who is still there; returns how many."""
        unused = [name for name, number in self._numbers.items().items() if number not in self._table]
        self._numbers.release(*unused)
        return len(unused)


def _name(labels: tuple[str, ...]) -> str:
    """One string per label set; labels may contain any separator, so it is JSON."""
    return json.dumps(labels, separators=(",", ":"))
