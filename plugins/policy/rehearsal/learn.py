"""Least-privilege policies out of what was observed: everything that came through stays allowed, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_network
from pathlib import Path
from typing import Any, TypeVar

from attrs import frozen

from axoneme.core.api.wire import NotFoundError, RequestError
from axoneme.plugins.policy.language import MODE
from axoneme.plugins.policy.model import NAMESPACE_KEY, Direction, Protocol
from axoneme.plugins.policy.parties import Address, Party, label_value
from axoneme.plugins.policy.rehearsal.inputs import Inputs
from axoneme.plugins.policy.rehearsal.recorded import Actor, FlowKey, Recorded, recorded
from axoneme.plugins.policy.rehearsal.replay import summary_of
from axoneme.plugins.policy.suggest import (
    NoRuleError,
    Opening,
    object_name,
    peer_fields,
    peer_selector,
    policy_object,
    port_fields,
    yaml_text,
)

_N = TypeVar("_N", IPv4Network, IPv6Network)

#: Labels that say which version or copy of a workload it is: a policy must survive the next roll-out.
NOISE = (
    "app.kubernetes.io/version", "helm.sh/chart", "chart", "heritage", "pod-template-hash", "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "version", "revision", "rollouts-pod-template-hash",
)  # fmt: skip


@frozen(kw_only=True)
class Options:
    """:param noise: keys of labels that do not go into selectors.
    :param ipv4_prefix: addresses of the world are widened to prefixes of this length.
    :param most_prefixes: a rule with more prefixes than this one speaks of the whole world instead.
    :param names: addresses whose DNS names are known are allowed by name.
    :param audit: the policies are to be audited before they are enforced.
    :param directions: those that the policies are about.
    """

    noise: tuple[str, ...] = NOISE
    ipv4_prefix: int = 32
    ipv6_prefix: int = 128
    most_prefixes: int = 32
    names: bool = True
    audit: bool = False
    directions: tuple[Direction, ...] = tuple(Direction)


def learn(
    inputs: Inputs, folder: Path, selector: str, since: int | None, until: int | None, options: Options
) -> dict[str, Any]:
    """The answer of `policy.learn`: a policy for each namespace that has workloads with these labels.

    :param selector: `app=web,tier=front`.
    :raises NotFoundError: no such workload is here, and none was recorded.
    """
    wanted = _labels(selector)
    found = recorded(folder, since, until)
    objects = policies_of(inputs, found, wanted, options)
    if not objects:
        raise NotFoundError(
            f"no workload with {selector} is here or was recorded", hint="see `axoneme endpoint list`"
        )
    return {"policies": objects, "yaml": yaml_text(*objects)} | summary_of(found)


def _labels(selector: str) -> dict[str, str]:
    found = {}
    for part in selector.split(","):
        key, equals, value = part.strip().partition("=")
        if not key or not equals:
            raise RequestError(f"{part!r} is no label", hint="for example app=web,tier=front")
        found[key] = value
    return found


def policies_of(
    inputs: Inputs, found: Recorded, wanted: dict[str, str], options: Options
) -> list[dict[str, Any]]:
    """One object for each namespace."""
    here = {
        label_value(one.subject.labels, f"k8s:{NAMESPACE_KEY}")
        for one in inputs.workloads
        if _is(one.subject.labels, wanted)
    }
    flows = [key for key in found.flows if key.allowed]
    then = {
        _namespace(end)
        for key in flows
        for end in (key.source, key.destination)
        if end.local and _is(end.labels, wanted)
    }
    return [_policy(inputs, flows, namespace, wanted, options) for namespace in sorted(here | then)]


def _policy(
    inputs: Inputs, flows: list[FlowKey], namespace: str, wanted: dict[str, str], options: Options
) -> dict[str, Any]:
    rules = {}
    names = _names_of(inputs, flows) if options.names else {}
    for direction in options.directions:
        peers = _Peers(direction, namespace, options, names)
        for key in flows:
            own, peer = (
                (key.source, key.destination)
                if direction is Direction.EGRESS
                else (key.destination, key.source)
            )
            if (
                own.local
                and _namespace(own) == namespace
                and _is(own.labels, wanted)
                and not _implied(peer, direction, inputs)
            ):
                peers.add(peer, Opening(key.protocol, key.port))
        rules[direction.value] = peers.rules() or [
            {}
        ]  # an empty rule allows nothing and turns default deny on
    name = object_name("learned", *wanted.values())
    made = policy_object(name, namespace, {"matchLabels": dict(sorted(wanted.items()))}, rules)
    if options.audit:
        made["metadata"]["annotations"] = {MODE: "audit"}
    return made


def _is(labels: Iterable[str], wanted: dict[str, str]) -> bool:
    texts = set(labels)
    have = texts | {text.partition(":")[2] for text in texts}
    return all((f"{key}={value}" if value else key) in have for key, value in wanted.items())


def _namespace(actor: Actor) -> str:
    return label_value(actor.labels, f"k8s:{NAMESPACE_KEY}")


def _names_of(inputs: Inputs, flows: Iterable[FlowKey]) -> dict[Address, str]:
    """A name for each address that was talked to and has one now; as few names as there have to be, nearly."""
    met = {key.destination.address for key in flows if key.destination.address is not None}
    every = {name: met.intersection(addresses) for name, addresses in sorted(inputs.names.items())}
    chosen: list[str] = []
    left = set().union(*every.values())
    while left:
        chosen.append(max(every, key=lambda name: len(every[name] & left)))
        left -= every[chosen[-1]]
    for name in reversed(tuple(chosen)):  # what came first may be covered by what came later
        if every[name] <= set().union(*(every[other] for other in chosen if other != name)):
            chosen.remove(name)
    return {address: name for name in chosen for address in every[name]}


def _implied(peer: Actor, direction: Direction, inputs: Inputs) -> bool:
    """The host reaches its workloads without a rule."""
    return (
        direction is Direction.INGRESS and inputs.settings.allow_localhost and "reserved:host" in peer.labels
    )


class _Peers:
    """The rules of one direction, as few as say what was seen."""

    def __init__(
        self, direction: Direction, namespace: str, options: Options, names: Mapping[Address, str]
    ) -> None:
        self._side = "from" if direction is Direction.INGRESS else "to"
        self._namespace, self._options = namespace, options
        self._known = names if direction is Direction.EGRESS else {}
        #: What each peer needs: workloads by selector, entities and DNS names or patterns by name, addresses.
        self._names: dict[str, set[Opening]] = {}
        self._workloads: dict[tuple[tuple[str, str], ...], set[Opening]] = {}
        self._entities: dict[str, set[Opening]] = {}
        self._addresses: dict[Any, set[Opening]] = {}

    def add(self, peer: Actor, opening: Opening) -> None:
        if peer.address is not None:
            if name := self._name(peer):
                self._names.setdefault(name, set()).add(opening)
            else:
                self._addresses.setdefault(peer.address, set()).add(opening)
            return
        if any(text.startswith("reserved:") for text in peer.labels):
            party = Party(name=peer.name, identity=0, labels=peer.labels)
            (entity,) = peer_fields(party, self._side, self._namespace)[f"{self._side}Entities"]
            self._entities.setdefault(entity, set()).add(opening)
            return
        if not peer.labels:
            raise NoRuleError(f"nothing is known of {peer.name} that a rule could select")
        selector = peer_selector(self._telling(peer.labels), self._namespace)["matchLabels"]
        self._workloads.setdefault(tuple(selector.items()), set()).add(opening)

    def _name(self, peer: Actor) -> str:
        """The DNS name that an address has now, or a name or pattern that a policy selected it by then; empty for none."""
        if self._side == "from" or not self._options.names:
            return ""
        then = sorted(text.removeprefix("fqdn:") for text in peer.labels if text.startswith("fqdn:"))
        now = self._known.get(peer.address) if peer.address else None
        return now or next(iter(then), "")

    def _telling(self, labels: Iterable[str]) -> Iterator[str]:
        for text in labels:
            if text.partition("=")[0].partition(":")[2] not in self._options.noise:
                yield text

    def rules(self) -> list[dict[str, Any]]:
        return [*self._of_workloads(), *self._of_entities(), *self._of_names(), *self._of_world()]

    def _of_workloads(self) -> Iterator[dict[str, Any]]:
        for openings, selectors in _alike(self._workloads):
            endpoints = [{"matchLabels": dict(one)} for one in sorted(selectors)]
            yield from self._for(f"{self._side}Endpoints", endpoints, openings)

    def _of_entities(self) -> Iterator[dict[str, Any]]:
        for openings, entities in _alike(self._entities):
            yield from self._for(f"{self._side}Entities", sorted(entities), openings)

    def _of_names(self) -> Iterator[dict[str, Any]]:
        for openings, names in _alike(self._names):
            selectors = [{"matchPattern" if "*" in one else "matchName": one} for one in sorted(names)]
            yield from self._for("toFQDNs", selectors, openings)

    def _of_world(self) -> Iterator[dict[str, Any]]:
        for openings, addresses in _alike(self._addresses):
            prefixes = self._prefixes(addresses)
            if len(prefixes) > self._options.most_prefixes:
                yield from self._for(f"{self._side}Entities", ["world"], openings)
            else:
                yield from self._for(f"{self._side}CIDR", prefixes, openings)

    def _prefixes(self, addresses: Iterable[Any]) -> list[str]:
        """As few as hold all of them, none shorter than what was asked for, but for whole blocks that were all seen."""
        lengths = {4: self._options.ipv4_prefix, 6: self._options.ipv6_prefix}
        every = [ip_network((one, lengths[one.version]), strict=False) for one in addresses]
        four = collapse_addresses(one for one in every if isinstance(one, IPv4Network))
        six = collapse_addresses(one for one in every if isinstance(one, IPv6Network))
        return [str(one) for one in (*four, *six)]

    def _for(self, field: str, peers: list[Any], openings: frozenset[Opening]) -> Iterator[dict[str, Any]]:
        """A rule for ports, one for DNS where names are to be learnt, one for ICMP, or one for all of other protocols."""
        icmp = {one for one in openings if one.protocol in (Protocol.ICMP, Protocol.ICMPV6)}
        ports = {one for one in openings if one.protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP)}
        if openings - icmp - ports:
            yield {field: peers}
            return
        dns = {one for one in ports if self._names and one.port == 53 and one.protocol != Protocol.SCTP}
        if dns:
            opened = port_fields(dns)["toPorts"][0]
            yield {field: peers, "toPorts": [opened | {"rules": {"dns": [{"matchPattern": "*"}]}}]}
        for some in (ports - dns, icmp):
            if some:
                yield {field: peers, **port_fields(some)}


def _alike(found: dict[Any, set[Opening]]) -> list[tuple[frozenset[Opening], list[Any]]]:
    """Peers with the same openings together, in an order that does not depend on when they were seen."""
    groups: dict[frozenset[Opening], list[Any]] = {}
    for peer, openings in found.items():
        groups.setdefault(frozenset(openings), []).append(peer)

    def order(one: tuple[frozenset[Opening], list[Any]]) -> list[tuple[int, int]]:
        return sorted((opening.protocol, opening.port) for opening in one[0])

    return sorted(groups.items(), key=order)
