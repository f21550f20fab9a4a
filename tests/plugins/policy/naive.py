"""A naive evaluator of the policy language: one packet, all rules, no tables.

Written from the sentences of the language's description, on the objects as people write them, without any code of the
engine. It knows CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy with labels, entities, CIDRs, requires, ports, ICMP,
deny rules, default deny, authentication modes, and http and dns as redirects. Slow and plain on purpose.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

NAMESPACE = "io.kubernetes.pod.namespace"
MODES = {"disabled": 1, "required": 2, "test-always-fail": 3}
STRENGTH = {"": 0, "dns": 1, "http": 2}
Labels = list[str]


class Conflict(Exception):
    """Rules that cannot be merged."""


@dataclass
class Config:
    enforcement: str = "default"
    allow_localhost: bool = True
    cluster: str = "default"


@dataclass
class Statement:
    """What one rule says of one port range for one peer selector."""

    selector: str
    selects: Callable[[Labels], bool]
    protocols: tuple[str, ...]  # () is every protocol
    low: int
    high: int
    deny: bool
    l7: str = ""
    auth: int = 0  # 0 is none

    @property
    def wildcard(self) -> bool:
        return self.selector == "*"


def split(label: str) -> tuple[str, str, str]:
    source, _, rest = label.partition(":")
    key, _, value = rest.partition("=")
    return source, key, value


def values_of(labels: Labels, key: str) -> list[str]:
    """The values of a selector's key: of the named source, or of every source."""
    source, _, name = key.rpartition(":") if ":" in key else ("any", "", key)
    return [v for s, k, v in map(split, labels) if k == name and source in ("any", s)]


def expression_holds(expression: dict[str, Any], labels: Labels) -> bool:
    found = values_of(labels, expression["key"])
    match expression["operator"]:
        case "In":
            return any(value in expression["values"] for value in found)
        case "NotIn":
            return not any(value in expression["values"] for value in found)
        case "Exists":
            return bool(found)
        case _:
            return not found


def holds(selector: dict[str, Any], labels: Labels) -> bool:
    return all(
        value in values_of(labels, key) for key, value in selector.get("matchLabels", {}).items()
    ) and all(expression_holds(one, labels) for one in selector.get("matchExpressions", []))


def keys(selector: dict[str, Any]) -> list[str]:
    return [*selector.get("matchLabels", {}), *(one["key"] for one in selector.get("matchExpressions", []))]


def with_label(selector: dict[str, Any], key: str, value: str) -> dict[str, Any]:
    return {**selector, "matchLabels": {**selector.get("matchLabels", {}), key: value}}


def subject_selector(policy: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    if policy["kind"] == "CiliumClusterwideNetworkPolicy":
        return dict(spec["endpointSelector"])
    return with_label(
        spec["endpointSelector"], f"k8s:{NAMESPACE}", policy["metadata"].get("namespace", "default")
    )


def peer_selector(
    policy: dict[str, Any], spec: dict[str, Any], selector: dict[str, Any], requires: bool
) -> dict[str, Any]:
    """A selector of peers gets the policy's namespace, unless it speaks of namespaces or reserved labels itself."""
    names = keys(selector)
    if not requires and any(name.startswith("reserved:") for name in names):
        return selector
    about_namespace = [n for n in names if n in (NAMESPACE, f"k8s:{NAMESPACE}", f"any:{NAMESPACE}")]
    if policy["kind"] == "CiliumClusterwideNetworkPolicy":
        if about_namespace or "reserved:init" in keys(spec["endpointSelector"]):
            return selector
        exists = {"key": f"k8s:{NAMESPACE}", "operator": "Exists"}
        return {**selector, "matchExpressions": [*selector.get("matchExpressions", []), exists]}
    prefix = "io.cilium.k8s.namespace.labels."
    if about_namespace or any(n.removeprefix("k8s:").removeprefix("any:").startswith(prefix) for n in names):
        return selector
    return with_label(selector, f"k8s:{NAMESPACE}", policy["metadata"].get("namespace", "default"))


def prefix_of(labels: Labels) -> Any:
    found = [key for source, key, _ in map(split, labels) if source == "cidr"]
    return ipaddress.ip_network(found[0]) if found else None


def in_cidr(cidr: str, labels: Labels) -> bool:
    """CIDRs match only the world: prefixes inside, or all of the world of a family."""
    net, prefix = ipaddress.ip_network(cidr, strict=False), prefix_of(labels)
    if prefix is not None:
        return prefix.version == net.version and prefix.subnet_of(net)
    return net.prefixlen == 0 and any(
        w in labels for w in ("reserved:world", f"reserved:world-ipv{net.version}")
    )


def entity_matches(name: str, labels: Labels, cluster: str) -> bool:
    if name == "world":
        return any(
            world in labels for world in ("reserved:world", "reserved:world-ipv4", "reserved:world-ipv6")
        )
    if name == "cluster":
        local = f"k8s:io.cilium.k8s.policy.cluster={cluster}"
        nodes = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")
        return local in labels or any(f"reserved:{one}" in labels for one in nodes)
    return f"reserved:{name}" in labels


@dataclass
class Evaluator:
    policies: list[dict[str, Any]]
    config: Config = field(default_factory=Config)

    def side(self, labels: Labels, peer: Labels, direction: str, protocol: str, port: int) -> dict[str, Any]:
        """The answer of one side, as the corpus writes it."""
        try:
            for one in ("ingress", "egress"):
                statements, enforced, open_ = self.statements(labels, one)
                check_merging(statements)
                if one == direction:
                    answer = (statements, enforced, open_)
        except Conflict:
            return {"verdict": "error"}
        statements, enforced, open_ = answer
        if not enforced:
            return {"verdict": "allow", "enforced": False, "auth": "none", "l7": "none"}
        verdict = decide(statements, peer, protocol, port, open_)
        return {**verdict, "enforced": True}

    def specs(self, labels: Labels) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
        for policy in self.policies:
            for spec in [policy["spec"]] if "spec" in policy else policy["specs"]:
                if holds(subject_selector(policy, spec), labels):
                    yield policy, spec

    def statements(self, labels: Labels, direction: str) -> tuple[list[Statement], bool, bool]:
        """All statements, whether the direction is enforced, whether it is open to what nobody denies."""
        if self.config.enforcement == "never":
            return [], False, True
        deny_list = direction + "Deny"
        about = [(p, s) for p, s in self.specs(labels) if s.get(direction) or s.get(deny_list)]
        denies = [s for _, s in about if s.get("enableDefaultDeny", {}).get(direction, True)]
        always = self.config.enforcement == "always" or "reserved:init" in labels
        if not about and not always:
            return [], False, True
        open_ = not denies and not always
        found = []
        for name in (direction, deny_list):
            requires = [
                peer_selector(p, s, one, requires=True)
                for p, s in about
                for rule in s.get(name, [])
                for one in rule.get("fromRequires", rule.get("toRequires", []))
            ]
            for policy, spec in about:
                for rule in spec.get(name, []):
                    found += self.rule(policy, spec, rule, name == deny_list, requires)
        if open_:
            found.append(Statement("*", lambda _: True, (), 0, 65535, False))
        if direction == "ingress" and self.config.allow_localhost:
            found.append(
                Statement("allow-localhost", lambda one: "reserved:host" in one, (), 0, 65535, False)
            )
        return found, True, open_

    def rule(
        self,
        policy: dict[str, Any],
        spec: dict[str, Any],
        rule: dict[str, Any],
        deny: bool,
        requires: list[Any],
    ) -> list[Statement]:
        peers = self.peers(policy, spec, rule, requires)
        with_ports = bool(rule.get("toPorts") or rule.get("icmps"))
        if peers is None:  # no peer is named: anybody on the given ports, nobody without ports
            peers = {"*": lambda _: True} if with_ports else {}
        if "*" in peers:
            peers = {"*": peers["*"]}
        auth = MODES.get(rule.get("authentication", {}).get("mode", ""), 0)
        return [
            Statement(text, selects, protocols, low, high, deny, l7, auth)
            for text, selects in peers.items()
            for protocols, low, high, l7 in (ranges(rule) if with_ports else [((), 0, 65535, "")])
        ]

    def peers(
        self, policy: dict[str, Any], spec: dict[str, Any], rule: dict[str, Any], requires: list[Any]
    ) -> dict[str, Callable[[Labels], bool]] | None:
        """By selector text; "*" is the empty selector. None when no peer field is there."""
        named = {
            n.removeprefix("from").removeprefix("to"): v for n, v in rule.items() if n not in ("toPorts",)
        }
        kinds = [n for n in ("Endpoints", "CIDR", "CIDRSet", "Entities") if n in named]
        if not kinds:
            return None
        found: dict[str, Callable[[Labels], bool]] = {}
        for one in named.get("Endpoints", []):
            selector = [peer_selector(policy, spec, one, requires=False), *requires]
            text = json.dumps(selector, sort_keys=True)
            if not any(keys(part) for part in selector):
                text = "*"
            found[text] = lambda labels, selector=selector: all(holds(part, labels) for part in selector)  # type: ignore[misc]
        for one in named.get("CIDR", []):
            cidr = one if "/" in one else str(ipaddress.ip_network(one))
            found[str(ipaddress.ip_network(cidr, strict=False))] = lambda labels, cidr=cidr: in_cidr(
                cidr, labels
            )  # type: ignore[misc]
        for one in named.get("CIDRSet", []):
            found[json.dumps(one, sort_keys=True)] = lambda labels, one=one: (  # type: ignore[misc]
                in_cidr(one["cidr"], labels)
                and not any(in_cidr(less, labels) for less in one.get("except", []))
            )
        for one in named.get("Entities", []):
            if one == "all":
                found["*"] = lambda _: True
            elif one != "none":
                found[f"entity {one}"] = lambda labels, one=one: entity_matches(
                    one, labels, self.config.cluster
                )  # type: ignore[misc]
        return found


def ranges(rule: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], int, int, str]]:
    """(protocols, first, last, kind of redirect) of everything a rule's ports and icmps name."""
    for one in rule.get("icmps", []):
        for entry in one.get("fields", []):
            protocol = "ICMP" if entry.get("family", "IPv4") == "IPv4" else "ICMPv6"
            low, high = (entry["type"],) * 2 if entry["type"] else (0, 65535)
            yield (protocol,), low, high, ""
    for one in rule.get("toPorts", []):
        l7 = next((kind for kind in ("http", "dns") if one.get("rules", {}).get(kind)), "")
        for entry in one.get("ports", []):
            low = int(entry["port"])
            high = entry.get("endPort", 0)
            if high <= low:
                high = low or 65535
            protocol = entry.get("protocol", "ANY").upper()
            for name in ("TCP", "UDP", "SCTP") if protocol == "ANY" else (protocol,):
                yield (name,), low, high, l7


def check_merging(statements: list[Statement]) -> None:
    """Allows of the same selector and ports: two different modes, or two different parsers, cannot be merged."""
    seen: dict[Any, list[Statement]] = {}
    for one in statements:
        seen.setdefault((one.selector, one.protocols, one.low, one.high), []).append(one)
    for group in seen.values():
        if any(one.deny for one in group):
            continue
        if len({one.auth for one in group if one.auth}) > 1 or len({one.l7 for one in group if one.l7}) > 1:
            raise Conflict


def block_length(low: int, high: int, port: int) -> int:
    """Ranges are split into the largest aligned power-of-two blocks: how many bits the block with this port fixes."""
    for length in range(17):
        size = 1 << (16 - length)
        start = port - port % size
        if start >= low and start + size - 1 <= high:
            return length
    raise AssertionError("the port is not in the range")


@dataclass
class Level:
    """All allows of one peer kind (its own, or everybody's) with the same specificity."""

    specificity: int
    l7: str
    auth: int  # explicit


@dataclass
class Candidate:
    specificity: int
    l7: str
    auth: int
    explicit: bool


def levels(statements: list[Statement], port: int) -> list[Level]:
    found: dict[int, Level] = {}
    for one in statements:
        specificity = 8 + block_length(one.low, one.high, port) if one.protocols else 0
        level = found.setdefault(specificity, Level(specificity, "", 0))
        level.l7 = max(level.l7, one.l7, key=lambda kind: STRENGTH[kind])
        level.auth = max(level.auth, one.auth)
    return [found[specificity] for specificity in sorted(found)]


def candidate(statements: list[Statement], port: int) -> Candidate | None:
    """The longest port match, but a redirect that covers it takes over unless a stronger one is here."""
    kept: list[Candidate] = []
    for level in levels(statements, port):
        strongest = max((one.l7 for one in kept), key=lambda kind: STRENGTH[kind], default="")
        nearest = kept[-1].auth if kept else 0
        if STRENGTH[level.l7] >= STRENGTH[strongest]:
            kept.append(Candidate(level.specificity, level.l7, level.auth or nearest, bool(level.auth)))
        elif level.auth:
            kept.append(Candidate(level.specificity, strongest, level.auth, True))
    return kept[-1] if kept else None


def decide(
    statements: list[Statement], peer: Labels, protocol: str, port: int, open_: bool
) -> dict[str, str]:
    covering = [
        one
        for one in statements
        if (not one.protocols or protocol in one.protocols)
        and one.low <= port <= one.high
        and one.selects(peer)
    ]
    if any(one.deny for one in covering):
        return {"verdict": "deny", "auth": "none", "l7": "none"}
    own = candidate([one for one in covering if not one.wildcard], port)
    everybody = candidate([one for one in covering if one.wildcard], port)
    chosen = own or everybody
    if chosen is None:
        return {"verdict": "allow" if open_ else "deny", "auth": "none", "l7": "none"}
    if own is not None and everybody is not None:
        chosen = choose(own, everybody)
    names = {number: name for name, number in MODES.items()}
    auth = chosen.auth if chosen.auth > 1 or chosen.explicit else 0
    return {"verdict": "allow", "auth": names.get(auth, "none"), "l7": chosen.l7 or "none"}


def choose(own: Candidate, everybody: Candidate) -> Candidate:
    if STRENGTH[own.l7] != STRENGTH[everybody.l7]:
        return max(own, everybody, key=lambda one: STRENGTH[one.l7])
    chosen, other = (own, everybody) if own.specificity >= everybody.specificity else (everybody, own)
    if not chosen.explicit and other.auth > chosen.auth:
        return Candidate(chosen.specificity, chosen.l7, other.auth, False)
    return chosen
