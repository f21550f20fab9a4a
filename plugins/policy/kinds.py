"""The resource kinds of the policy language and their parsers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol

from axoneme.core.records import ResourceKind
from axoneme.core.state.resources import Envelope
from axoneme.plugins.policy.fields import Locate, nowhere
from axoneme.plugins.policy.language import CIDR_GROUP_APIS, CILIUM_API, parse_cidr_group, parse_policy
from axoneme.plugins.policy.model import CidrGroup, Policy
from axoneme.plugins.policy.netpol import NETWORKING_API, parse_network_policy
from axoneme.plugins.policy.peers import Scope


class Parser(Protocol):
    def __call__(
        self, value: Any, locate: Locate = nowhere, scope: Scope | None = None
    ) -> Policy | CidrGroup: ...


PARSERS: Mapping[str, Parser] = {
    "CiliumNetworkPolicy": parse_policy,
    "CiliumClusterwideNetworkPolicy": parse_policy,
    "NetworkPolicy": parse_network_policy,
    "CiliumCIDRGroup": parse_cidr_group,
}
_NAMESPACED = ("CiliumNetworkPolicy", "NetworkPolicy")
_APIS = {"NetworkPolicy": (NETWORKING_API,), "CiliumCIDRGroup": CIDR_GROUP_APIS}


@cache
def resource_kinds() -> tuple[ResourceKind, ...]:
    """Always the same records: a reload then sees that nothing changed."""
    return tuple(
        ResourceKind(api_version=api, kind=kind, namespaced=kind in _NAMESPACED, parse=_from_envelope(parser))
        for kind, parser in PARSERS.items()
        for api in _APIS.get(kind, (CILIUM_API,))
    )


def _from_envelope(parser: Parser) -> Callable[[Envelope], Policy | CidrGroup]:
    def parse(envelope: Envelope) -> Policy | CidrGroup:
        fields = envelope.fields
        fields.ignore(
            "spec", "specs"
        )  # read from the raw value, whose unknown fields the parser reports itself
        value = {**fields.value, "metadata": {**fields.value["metadata"], "namespace": envelope.namespace}}
        return parser(value, fields.document.position)

    return parse
