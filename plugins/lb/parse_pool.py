"""The parsers of `CiliumLoadBalancerIPPool` and `CiliumLocalRedirectPolicy` (cilium.io/v2, v2alpha1)."""

from __future__ import annotations

from typing import Any, Final

from axoneme.core.state.parsing import Fields
from axoneme.core.state.resources import Envelope
from axoneme.plugins.lb.model import AddressPool, Block, Port, Protocol, Redirect, Requirement
from axoneme.plugins.lb.values import address, is_loopback, network, port_number, virtual

_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")
_PROTOCOLS: Final = tuple(Protocol.__members__)
#: What a label's key in a selector may have in front, which says where the label comes from.
_SOURCES: Final = ("k8s:", "any:")


def parse_pool(envelope: Envelope) -> AddressPool:
    spec: Any = envelope.fields.fields("spec")
    edges = spec.text("allowFirstLastIPs", "Yes", choices=("Yes", "No")) == "Yes"
    return AddressPool(
        name=envelope.name,
        blocks=spec.each("blocks", lambda fields: _block(fields, edges), ()),
        selector=spec.read("serviceSelector", selector, ()),
        disabled=spec.flag("disabled", False),
        where=envelope.where(),
    )


def _block(fields: Fields, edges: bool) -> Block:
    if fields.one_of("cidr", "start") == "cidr":
        whole = fields.take("cidr", network)
        first, last = whole[0], whole[-1]
        if not edges and whole.num_addresses > 2:
            first, last = first + 1, last - 1
        return _checked(fields, Block(first, last), "cidr")
    first = fields.take("start", address)
    last = fields.take("stop", address, first)
    if first.version != last.version:
        raise fields.error("start and stop are of different families", "stop")
    if int(last) < int(first):
        raise fields.error(f"{last} is before {first}", "stop")
    return _checked(fields, Block(first, last), "start")


def _checked(fields: Fields, block: Block, name: str) -> Block:
    if is_loopback(block.first, block.last):
        raise fields.error("loopback addresses are every workload's own: a service cannot have one", name)
    return block


def selector(fields: Fields) -> tuple[Requirement, ...]:
    """A label selector, as conditions that must all hold."""
    equal = fields.labels("matchLabels", {})
    return (
        *(Requirement(_bare(key), "In", (value,)) for key, value in equal.items()),
        *fields.each("matchExpressions", _requirement, ()),
    )


def _requirement(fields: Fields) -> Requirement:
    operator = fields.text("operator", choices=_OPERATORS)
    values = fields.texts("values", ())
    if operator in ("In", "NotIn") and not values:
        raise fields.error(f"{operator} needs values", "values")
    if operator in ("Exists", "DoesNotExist") and values:
        raise fields.error(f"{operator} has no values", "values")
    return Requirement(_bare(fields.text("key")), operator, values)


def _bare(key: str) -> str:
    for source in _SOURCES:
        if key.startswith(source):
            return key[len(source) :]
    return key


def parse_redirect(envelope: Envelope) -> Redirect:
    spec: Any = envelope.fields.fields("spec")
    spec.ignore("description")
    front: Fields = spec.fields("redirectFrontend")
    backend: Fields = spec.fields("redirectBackend")
    common: dict[str, Any] = {
        "namespace": envelope.namespace,
        "name": envelope.name,
        "selector": backend.read("localEndpointSelector", selector),
        "backend_ports": backend.each("toPorts", _port),
        "skip_backends": spec.flag("skipRedirectFromBackend", False),
        "where": envelope.where(),
    }
    if front.one_of("addressMatcher", "serviceMatcher") == "addressMatcher":
        matcher = front.fields("addressMatcher")
        made = Redirect(address=matcher.take("ip", virtual), ports=matcher.each("toPorts", _port), **common)
    else:
        matcher = front.fields("serviceMatcher")
        if matcher.text("namespace", envelope.namespace) != envelope.namespace:
            matcher.note("a service of another namespace cannot be redirected", "namespace")
        made = Redirect(
            service=matcher.text("serviceName"), ports=matcher.each("toPorts", _port, ()), **common
        )
    _check(made, front, backend)
    return made


def _check(made: Redirect, front: Fields, backend: Fields) -> None:
    if not made.backend_ports:
        raise backend.error("it needs a port", "toPorts")
    if made.address is not None and not made.ports:
        raise front.error("it needs a port", "addressMatcher", "toPorts")
    several = len(made.ports) > 1 or len(made.backend_ports) > 1
    if several and not all(port.name for port in (*made.ports, *made.backend_ports)):
        raise backend.error("with several ports, each needs a name, here and in the frontend", "toPorts")


def _port(fields: Fields) -> Port:
    return Port(
        port=fields.take("port", port_number),
        protocol=Protocol[fields.text("protocol", choices=_PROTOCOLS)],
        name=fields.text("name", "").lower(),
    )
