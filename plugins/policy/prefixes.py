"""The world outside the cluster: which prefixes policies speak of, and the labels of their identities.

Each distinct prefix that a policy mentions becomes an identity of its own; an address belongs to the longest one. What a
CIDR group or a DNS name says of a prefix also holds for the longer prefixes inside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network

from axoneme.plugins.policy.model import (
    CIDR_GROUP_KEY,
    CidrGroup,
    CidrSelector,
    Network,
    Peer,
    Policy,
    Selector,
)

Address = IPv4Address | IPv6Address


def peers_of(policies: Iterable[Policy]) -> Iterator[Peer]:
    for policy in policies:
        for spec in policy.specs:
            for rule in (*spec.egress.rules, *spec.ingress.rules):
                yield from rule.peers or ()


def mentioned(policies: Iterable[Policy]) -> set[Network]:
    """The prefixes that policies name themselves, excepted ones included."""
    found: set[Network] = set()
    for peer in peers_of(policies):
        if isinstance(peer, CidrSelector):
            found.update(peer.excepts)
            if not isinstance(peer.base, Selector):
                found.add(peer.base)
    return found


def names(policies: Iterable[Policy]) -> set[str]:
    """The DNS names and patterns that policies select."""
    return {
        requirement.key
        for peer in peers_of(policies)
        if isinstance(peer, Selector)
        for requirement in peer.requirements
        if requirement.source == "fqdn"
    }


def name_matches(pattern: str, name: str) -> bool:
    """Whether a DNS name is what a name or pattern of toFQDNs selects: `*.x` stands for exactly one label."""
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".")
    if pattern == "*":
        return True
    parts = [re.escape(part) for part in pattern.split("*")]
    return re.fullmatch("[-a-z0-9_]*".join(parts), name) is not None


def world_label(prefix: Network, dual_stack: bool) -> str:
    return f"reserved:world-ipv{prefix.version}" if dual_stack else "reserved:world"


def world_labels(
    policies: Iterable[Policy],
    groups: Iterable[CidrGroup] = (),
    resolved: Mapping[str, Iterable[Address]] | None = None,
    *,
    dual_stack: bool = True,
) -> dict[Network, tuple[str, ...]]:
    """The identity labels of every prefix that needs an identity of its own.

    :param resolved: DNS names with the addresses that are known for them.
    """
    policies = list(policies)
    own: dict[Network, set[str]] = {prefix: set() for prefix in mentioned(policies)}
    for group in groups:
        labels = {f"cidrgroup:{CIDR_GROUP_KEY}{group.name}"}
        labels |= {f"cidrgroup:{key}={value}" for key, value in group.labels}
        for prefix in group.prefixes:
            own.setdefault(prefix, set()).update(labels)
    for pattern in names(policies):
        for name, addresses in (resolved or {}).items():
            if name_matches(pattern, name):
                for address in addresses:
                    own.setdefault(ip_network(address), set()).add(f"fqdn:{pattern}")
    return {prefix: _labels(prefix, own, dual_stack) for prefix in own if prefix.prefixlen}


def _labels(prefix: Network, own: Mapping[Network, set[str]], dual_stack: bool) -> tuple[str, ...]:
    labels = {f"cidr:{prefix}", world_label(prefix, dual_stack)}
    for length in range(prefix.prefixlen + 1):
        labels |= own.get(prefix.supernet(new_prefix=length), set())
    return tuple(sorted(labels))


def longest(prefixes: Iterable[Network], address: Address) -> Network | None:
    """The longest of the prefixes that holds the address."""
    holding = [prefix for prefix in prefixes if prefix.version == address.version and address in prefix]
    return max(holding, key=lambda prefix: prefix.prefixlen, default=None)
