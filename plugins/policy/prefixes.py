"""The world outside the cluster: which prefixes policies speak of, and the labels of their identities.

Each distinct prefix that a policy mentions becomes an identity of its own; an address belongs to the longest one. What a
CIDR group or a DNS name says of a prefix also holds for the longer prefixes inside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_network

from axoneme.core.workloads.names import name_matches
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
    found = cidr_labels(policies, groups, dual_stack=dual_stack)
    selecting: dict[Address, set[str]] = {}
    for pattern in names(policies):
        for name, addresses in (resolved or {}).items():
            if name_matches(pattern, name):
                for address in addresses:
                    selecting.setdefault(address, set()).add(pattern)
    named = {
        ip_network(address): name_labels(
            patterns, _around(found, address), world_label(ip_network(address), dual_stack)
        )
        for address, patterns in selecting.items()
    }
    return found | named


def _around(labels: Mapping[Network, tuple[str, ...]], address: Address) -> tuple[str, ...]:
    prefix = longest(labels, address)
    return () if prefix is None else labels[prefix]


def cidr_labels(
    policies: Iterable[Policy], groups: Iterable[CidrGroup], *, dual_stack: bool
) -> dict[Network, tuple[str, ...]]:
    """The labels of every prefix that policies and groups name themselves."""
    own: dict[Network, set[str]] = {prefix: set() for prefix in mentioned(policies)}
    for group in groups:
        labels = {f"cidrgroup:{CIDR_GROUP_KEY}{group.name}"}
        labels |= {f"cidrgroup:{key}={value}" for key, value in group.labels}
        for prefix in group.prefixes:
            own.setdefault(prefix, set()).update(labels)
    return {prefix: _labels(prefix, own, dual_stack) for prefix in own if prefix.prefixlen}


def name_labels(patterns: Iterable[str], around: Iterable[str], world: str) -> tuple[str, ...]:
    """The labels of an address that names stand for.

    Not its own prefix: addresses that nothing tells apart share an identity, however many a name has.

    :param around: the labels of the longest prefix around it that policies name.
    """
    return tuple(sorted({world, *around, *(f"fqdn:{pattern}" for pattern in patterns)}))


def _labels(prefix: Network, own: Mapping[Network, set[str]], dual_stack: bool) -> tuple[str, ...]:
    labels = {f"cidr:{prefix}", world_label(prefix, dual_stack)}
    for length in range(prefix.prefixlen + 1):
        labels |= own.get(prefix.supernet(new_prefix=length), set())
    return tuple(sorted(labels))


def longest(prefixes: Iterable[Network], address: Address) -> Network | None:
    """The longest of the prefixes that holds the address."""
    holding = [prefix for prefix in prefixes if prefix.version == address.version and address in prefix]
    return max(holding, key=lambda prefix: prefix.prefixlen, default=None)
