"""The parser of `Pod` (v1), of which only host ports matter: `spec.containers[].ports[].hostPort`.

The rest of a pod is somebody else's business, and not looked at.
"""

from __future__ import annotations

from typing import Any, Final

from axoneme.core.state.parsing import Fields
from axoneme.core.state.resources import Envelope
from axoneme.plugins.lb.model import Address, HostPort, Pod, Protocol
from axoneme.plugins.lb.values import address

_PROTOCOLS: Final = tuple(Protocol.__members__)


def parse_pod(envelope: Envelope) -> Pod:
    """Raises `ResourceError` with the field's place."""
    spec: Any = envelope.fields.fields("spec")
    status = envelope.fields.value.get("status")
    containers = [*spec.each("containers", _ports, ()), *spec.each("initContainers", _ports, ())]
    found = Pod(
        namespace=envelope.namespace,
        name=envelope.name,
        node=spec.text("nodeName", ""),
        addresses=_addresses(status),
        ports=()
        if spec.flag("hostNetwork", False) or _is_over(status)
        else tuple(port for ports in containers for port in ports),
        where=envelope.where(),
    )
    spec.unread()
    return found


def _ports(fields: Fields) -> tuple[HostPort, ...]:
    ports = fields.each("ports", _port, ())
    fields.unread()
    return tuple(port for port in ports if port.host_port)


def _port(fields: Fields) -> HostPort:
    fields.ignore("name")
    return HostPort(
        port=fields.number("containerPort", minimum=1, maximum=65535),
        host_port=fields.number("hostPort", 0, minimum=0, maximum=65535),
        protocol=Protocol[fields.text("protocol", "TCP", choices=_PROTOCOLS)],
        host_ip=fields.take("hostIP", _host, None),
    )


def _host(text: str) -> Address | None:
    """None for all of the node's addresses."""
    return None if text in ("", "0.0.0.0", "::") else address(text)  # noqa: S104 - what others write


def _is_over(status: Any) -> bool:
    """Its containers do not run any more, and will not again: its ports and addresses are others'."""
    return isinstance(status, dict) and status.get("phase") in ("Succeeded", "Failed")


def _addresses(status: Any) -> tuple[Address, ...]:
    """What a cluster says of the pod's addresses; it is status, so that what is odd in it is no error."""
    listed = status.get("podIPs") if isinstance(status, dict) else None
    ones = [one.get("ip") for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    found = []
    for text in ones:
        if not isinstance(text, str):
            continue
        try:
            found.append(address(text))
        except ValueError:
            continue
    return tuple(found)
