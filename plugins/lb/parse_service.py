"""The parser of `Service` (v1). See https://kubernetes.io/docs/reference/kubernetes-api/service-resources/service-v1/.

What makes no sense in a field is an error with its place. What makes sense, but has no effect here (a headless service,
an external name), is no error: `ServiceRow.problems` says so.
"""

from __future__ import annotations

from typing import Any

from axoneme.core.state.parsing import Fields
from axoneme.core.state.resources import Envelope
from axoneme.plugins.lb.annotations import Annotations
from axoneme.plugins.lb.model import Address, Distribution, Pool, Port, Protocol, Service, ServiceType
from axoneme.plugins.lb.values import network, virtual

_PROTOCOLS = tuple(Protocol.__members__)
_TYPES = {one.value: one for one in ServiceType}
_POLICIES = ("Cluster", "Local")
_DISTRIBUTIONS = {one.value: one for one in Distribution}
#: Kubernetes' bounds and default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
DEFAULT_AFFINITY, LONGEST_AFFINITY = 10_800, 86_400


def parse_service(envelope: Envelope) -> Service:
    """Raises `ResourceError` with the field's place."""
    spec: Any = envelope.fields.fields("spec")
    kind = _TYPES[spec.text("type", "ClusterIP", choices=_TYPES)]
    # Whose value only those who talk to a cloud, or to the API server, need.
    spec.ignore("externalName", "topologyKeys", "allocateLoadBalancerNodePorts", "ipFamilyPolicy")
    addresses, headless = _cluster_ips(spec)
    annotations = Annotations(envelope)
    exposed = kind in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)
    return Service(
        namespace=envelope.namespace,
        name=envelope.name,
        type=kind,
        labels=envelope.labels,
        selector=spec.labels("selector", {}),
        cluster_ips=addresses,
        headless=headless,
        external_ips=spec.takes("externalIPs", virtual, ()),
        families=_families(spec),
        ports=_ports(spec),
        affinity=_affinity(spec),
        internal_local=spec.text("internalTrafficPolicy", "Cluster", choices=_POLICIES) == "Local",
        external_local=spec.text("externalTrafficPolicy", "Cluster", choices=_POLICIES) == "Local",
        health_check_port=spec.number("healthCheckNodePort", 0, minimum=0, maximum=65535),
        distribution=_DISTRIBUTIONS[spec.text("trafficDistribution", "", choices=_DISTRIBUTIONS)],
        source_ranges=spec.takes("loadBalancerSourceRanges", network, ()),
        publish_not_ready=spec.flag("publishNotReadyAddresses", False),
        load_balancer_class=spec.text("loadBalancerClass", ""),
        pool=_pool(spec, annotations) if exposed else Pool(),
        where=envelope.where(),
        **(_annotated(annotations) if annotations else {}),
    )


def _annotated(annotations: Annotations) -> dict[str, Any]:
    return {
        "weights": annotations.weights(),
        "algorithm": annotations.algorithm(),
        "maglev_size": annotations.table_size(),
        "dsr": annotations.forwards_directly(),
        "exposed": annotations.exposed(),
    }


def _pool(spec: Fields, annotations: Annotations) -> Pool:
    asked = spec.take("loadBalancerIP", virtual, None)
    return annotations.pool(() if asked is None else (asked,))


def _cluster_ips(spec: Fields) -> tuple[tuple[Address, ...], bool]:
    """The addresses, and whether it has none on purpose."""
    first = spec.text("clusterIP", "")
    listed = spec.texts("clusterIPs", ())
    texts = tuple(text for text in (listed or (first,)) if text)
    if "None" in texts:
        if len(texts) > 1:
            raise spec.error("None stands alone", "clusterIPs")
        return (), True
    if first and listed and first != listed[0]:
        spec.note("clusterIP is not the first of clusterIPs", "clusterIP")
    name = "clusterIPs" if listed else "clusterIP"
    found = []
    for text in texts:
        try:
            found.append(virtual(text))
        except ValueError as error:
            spec.note(str(error), name)
    if len(found) > 1 and len({one.version for one in found}) < len(found):
        spec.note("at most one address per family", name)
    return tuple(found), False


def _families(spec: Fields) -> tuple[int, ...]:
    names = spec.texts("ipFamilies", ())
    for name in names:
        if name not in ("IPv4", "IPv6"):
            spec.note(f"{name!r} is not possible here", "ipFamilies", hint="it can be IPv4, IPv6")
    return tuple(4 if name == "IPv4" else 6 for name in names)


def _ports(spec: Fields) -> tuple[Port, ...]:
    ports = spec.each("ports", _port, ())
    if len(ports) > 1:
        _check_ports(spec, ports)
    return ports


def _check_ports(spec: Fields, ports: tuple[Port, ...]) -> None:
    seen: set[object] = set()
    for number, port in enumerate(ports):
        if not port.name:
            spec.note("with several ports, each needs a name", "ports", number, "name")
        for what, field in (((port.port, port.protocol), "port"), (port.name, "name")):
            if what in seen:
                spec.note(
                    f"{port.text if field == 'port' else repr(what)} is here twice", "ports", number, field
                )
            seen.add(what)


def _port(fields: Fields) -> Port:
    fields.ignore("appProtocol")
    target = fields.raw("targetPort", 0)
    if type(target) is int:
        fields.number("targetPort", 0, minimum=0, maximum=65535)
    else:
        target = fields.text("targetPort")
        if target.isdecimal():
            raise fields.error("a port's number without quotes, or its name", "targetPort")
    return Port(
        port=fields.number("port", minimum=1, maximum=65535),
        protocol=Protocol[fields.text("protocol", "TCP", choices=_PROTOCOLS)],
        name=fields.text("name", ""),
        target=target,
        node_port=fields.number("nodePort", 0, minimum=0, maximum=65535),
    )


def _affinity(spec: Fields) -> int:
    wanted = spec.text("sessionAffinity", "None", choices=("None", "ClientIP")) == "ClientIP"
    config = spec.fields("sessionAffinityConfig", None)
    client = config.fields("clientIP", None) if config is not None else None
    seconds = DEFAULT_AFFINITY
    if client is not None:
        seconds = client.number("timeoutSeconds", DEFAULT_AFFINITY, minimum=1, maximum=LONGEST_AFFINITY)
    return seconds if wanted else 0
