"""The labels that say whose flow it was: `source`, `destination` and those of `labelsContext`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from attrs import frozen

from axoneme.plugins.hubble.metrics.options import Contexts

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import Endpoint, Flow

_DIRECTIONS: Final = {1: "ingress", 2: "egress"}
_APP_LABELS: Final = ("k8s:app.kubernetes.io/name=", "k8s:k8s-app=", "k8s:app=")
_KUBE_APISERVER: Final = "reserved:kube-apiserver"


@frozen
class Side:
    """One end of a flow."""

    endpoint: Endpoint
    ip: str
    names: tuple[str, ...]

    def of(self, identifier: str) -> str:
        """What an identifier says of it; empty if nothing."""
        return _IDENTIFIERS[identifier](self)


def sides(flow: Flow) -> tuple[Side, Side]:
    """Source and destination, as they stand in the flow."""
    return (
        Side(flow.source, flow.IP.source, tuple(flow.source_names)),
        Side(flow.destination, flow.IP.destination, tuple(flow.destination_names)),
    )


def names(contexts: Contexts) -> tuple[str, ...]:
    """The labels' names, in the order of `values`."""
    return (*(side for side in ("source", "destination") if contexts.identifiers(side)), *contexts.labels)


def values(contexts: Contexts, flow: Flow, *, swapped: bool = False) -> tuple[str, ...]:
    """The labels' values for a flow.

    :param swapped: the flow is a response and the labels are to name the sides as its request did.
    """
    source, destination = reversed(sides(flow)) if swapped else sides(flow)
    direction = _DIRECTIONS.get(flow.traffic_direction, "unknown")
    both = (("source", source), ("destination", destination))
    found = [_chosen(contexts, name, side, direction) for name, side in both if contexts.identifiers(name)]
    for label in contexts.labels:
        if label == "traffic_direction":
            found.append(direction)
        else:
            name, _, what = label.partition("_")
            found.append(_LABELS[what](source if name == "source" else destination))
    return tuple(found)


def _chosen(contexts: Contexts, name: str, side: Side, direction: str) -> str:
    preferred: tuple[str, ...] = getattr(contexts, f"{name}_{direction}", ()) or getattr(contexts, name)
    return next((text for identifier in preferred if (text := side.of(identifier))), "")


def _pod(side: Side) -> str:
    namespace, pod = side.endpoint.namespace, side.endpoint.pod_name
    return f"{namespace}/{pod}" if namespace and pod else pod


def _workload_name(side: Side) -> str:
    workloads = side.endpoint.workloads
    return workloads[0].name if workloads else ""


def _workload_kind(side: Side) -> str:
    workloads = side.endpoint.workloads
    return workloads[0].kind if workloads else ""


def _workload(side: Side) -> str:
    namespace, name = side.endpoint.namespace, _workload_name(side)
    return f"{namespace}/{name}" if namespace and name else name


def _app(side: Side) -> str:
    for label in side.endpoint.labels:
        for prefix in _APP_LABELS:
            if label.startswith(prefix):
                return label[len(prefix) :]
    return ""


def _reserved(side: Side) -> str:
    reserved = [label for label in side.endpoint.labels if label.startswith("reserved:")]
    if _KUBE_APISERVER in reserved:
        return _KUBE_APISERVER
    return reserved[0] if reserved else ""


_IDENTIFIERS: Final[Mapping[str, Callable[[Side], str]]] = {
    "identity": lambda side: ",".join(side.endpoint.labels),
    "namespace": lambda side: side.endpoint.namespace,
    "pod": _pod,
    "pod-name": lambda side: side.endpoint.pod_name,
    "dns": lambda side: ",".join(side.names),
    "ip": lambda side: side.ip,
    "reserved-identity": _reserved,
    "workload": _workload,
    "workload-name": _workload_name,
    "app": _app,
}

_LABELS: Final[Mapping[str, Callable[[Side], str]]] = {
    "ip": lambda side: side.ip,
    "pod": lambda side: side.endpoint.pod_name,
    "namespace": lambda side: side.endpoint.namespace,
    "workload": _workload_name,
    "workload_kind": _workload_kind,
    "app": _app,
}
