"""The parsers of `EndpointSlice` (discovery.k8s.io/v1) and of `Endpoints` (v1), which says the same in an older way."""

from __future__ import annotations

from functools import partial
from ipaddress import IPv4Address, IPv6Address
from sys import intern
from typing import Any, Final

from axoneme.core.state.parsing import Fields
from axoneme.core.state.resources import Envelope
from axoneme.plugins.lb.annotations import Annotations
from axoneme.plugins.lb.model import Address, Endpoint, Protocol, Slice, SlicePort
from axoneme.plugins.lb.values import address

#: The label that names the service of a slice.
SERVICE_LABEL: Final = "kubernetes.io/service-name"
_FAMILIES: Final = {"IPv4": 4, "IPv6": 6}
_CLASSES: Final[dict[int, type[Address]]] = {4: IPv4Address, 6: IPv6Address}
_PROTOCOLS: Final = tuple(Protocol.__members__)
#: Kubernetes' limit.
_MOST: Final = 1000


def parse_slice(envelope: Envelope) -> tuple[Slice, ...]:
    """Nothing for a slice that belongs to no service, or that has names instead of addresses (FQDN)."""
    top = envelope.fields
    kind = top.text("addressType", choices=("IPv4", "IPv6", "FQDN"))
    service = envelope.labels.get(SERVICE_LABEL, "")
    if kind == "FQDN":
        top.ignore("endpoints", "ports")
        return ()
    family = _FAMILIES[kind]
    endpoints = top.each("endpoints", partial(_endpoint, family), (), usual=partial(_usual, family))
    if len(endpoints) > _MOST:
        top.note(f"{len(endpoints)} endpoints, the limit is {_MOST}", "endpoints")
    found = Slice(
        namespace=envelope.namespace,
        name=envelope.name,
        service=service,
        family=family,
        ports=top.each("ports", _port, ()),
        endpoints=endpoints,
        weight=Annotations(envelope).weight() if envelope.annotations else 1,
        where=envelope.where(),
    )
    return (found,) if service else ()


def _endpoint(family: int, fields: Fields) -> Endpoint:
    fields.ignore("hostname", "deprecatedTopology")
    conditions = fields.fields("conditions", None)
    ready: bool | None = None
    serving: bool | None = None
    terminating = False
    if conditions is not None:
        ready = conditions.flag("ready", None)
        serving = conditions.flag("serving", None)
        terminating = conditions.flag("terminating", False)
    # "A nil value should be interpreted as true"; serving defaults to what ready says.
    is_ready = ready is not False
    zones, nodes = _hints(fields)
    return Endpoint(
        addresses=_addresses(family, fields),
        ready=is_ready,
        serving=is_ready if serving is None else serving,
        terminating=terminating,
        node=fields.text("nodeName", ""),
        zone=fields.text("zone", ""),
        zones=zones,
        nodes=nodes,
        target=_target(fields),
    )


#: What nearly all endpoints have, and nothing else.
_USUAL: Final = frozenset(("addresses", "conditions", "nodeName", "targetRef", "zone"))
_CONDITIONS: Final = frozenset(("ready", "serving", "terminating"))
_TARGET: Final = frozenset(("kind", "name", "namespace", "uid"))
_NOTHING: Final[dict[str, Any]] = {}


def _usual(family: int, value: dict[str, Any]) -> Endpoint | None:
    """An endpoint in which all is as usual: a slice may have a thousand. See `_endpoint`, which reads any."""
    get, conditions, target = value.get, value.get("conditions", _NOTHING), value.get("targetRef", _NOTHING)
    listed, node, zone = get("addresses"), get("nodeName", ""), get("zone", "")
    if not (_USUAL.issuperset(value) and type(conditions) is type(target) is dict and type(listed) is list):
        return None
    if not (
        _CONDITIONS.issuperset(conditions) and _TARGET.issuperset(target) and type(node) is type(zone) is str
    ):
        return None
    ready, terminating = conditions.get("ready", True), conditions.get("terminating", False)
    serving = conditions.get("serving", ready)
    kind, name, namespace = target.get("kind", ""), target.get("name", ""), target.get("namespace", "")
    if not (
        type(ready) is type(serving) is type(terminating) is bool
        and type(kind) is type(name) is type(namespace) is str
    ):
        return None
    try:
        addresses = tuple(map(address, listed))
    except (ValueError, TypeError):
        return None
    wanted = _CLASSES[family]
    for one in addresses:
        if type(one) is not wanted:
            return None
    workload = f"{namespace or 'default'}/{name}" if kind == "Pod" and name else ""
    return Endpoint(addresses, ready, serving, terminating, intern(node), intern(zone), (), (), workload)


def _addresses(family: int, fields: Fields) -> tuple[Address, ...]:
    found = fields.takes("addresses", address)
    for number, one in enumerate(found):
        if one.version != family:
            fields.note(f"{one} is no IPv{family} address", "addresses", number)
    return found


def _hints(fields: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    hints = fields.fields("hints", None)
    if hints is None:
        return (), ()
    return hints.each("forZones", _name, ()), hints.each("forNodes", _name, ())


def _name(fields: Fields) -> str:
    return fields.text("name")


def _target(fields: Fields) -> str:
    target = fields.fields("targetRef", None)
    if target is None:
        return ""
    target.ignore("apiVersion", "fieldPath", "resourceVersion", "uid")
    kind, name, namespace = target.text("kind", ""), target.text("name", ""), target.text("namespace", "")
    return f"{namespace or 'default'}/{name}" if kind == "Pod" and name else ""


def _port(fields: Fields) -> SlicePort:
    fields.ignore("appProtocol")
    return SlicePort(
        port=fields.number("port", 0, minimum=0, maximum=65535),
        protocol=Protocol[fields.text("protocol", "TCP", choices=_PROTOCOLS)],
        name=fields.text("name", ""),
    )


def parse_endpoints(envelope: Envelope) -> tuple[Slice, ...]:
    """A slice per subset and family. The service has the object's own name."""
    weight = Annotations(envelope).weight() if envelope.annotations else 1
    found = []
    for number, (ports, endpoints) in enumerate(envelope.fields.each("subsets", _subset, ())):
        for family in (4, 6):
            members = tuple(one for one in endpoints if one.addresses[0].version == family)
            if members:
                found.append(
                    Slice(
                        namespace=envelope.namespace,
                        name=f"endpoints-{number}-{family}",
                        service=envelope.name,
                        family=family,
                        ports=ports,
                        endpoints=members,
                        weight=weight,
                        where=envelope.where(),
                    )
                )
    return tuple(found)


def _subset(fields: Fields) -> tuple[tuple[SlicePort, ...], tuple[Endpoint, ...]]:
    ready = fields.each("addresses", partial(_old_endpoint, True), ())
    others = fields.each("notReadyAddresses", partial(_old_endpoint, False), ())
    return fields.each("ports", _port, ()), (*ready, *others)


def _old_endpoint(ready: bool, fields: Fields) -> Endpoint:
    fields.ignore("hostname")
    one = fields.take("ip", address)
    return Endpoint(
        (one,), ready=ready, serving=ready, node=fields.text("nodeName", ""), target=_target(fields)
    )
