"""Parsing of CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and CiliumCIDRGroup.

Strict: what is not understood is refused with the field's path, never ignored, because a policy that is silently weaker
than it reads is the worst that can happen. What Cilium's own parser refuses (`Sanitize` in `pkg/policy/api`) is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from axoneme.core.errors import ResourceError
from axoneme.core.state.parsing import ResourceErrors
from axoneme.plugins.policy import peers, ports
from axoneme.plugins.policy.fields import Field, Locate, nowhere
from axoneme.plugins.policy.model import (
    Auth,
    CidrGroup,
    Direction,
    DirectionRules,
    Peer,
    PeerRule,
    Policy,
    PortRule,
    Requirement,
    Selector,
    ServiceRef,
    Spec,
)
from axoneme.plugins.policy.peers import Scope

#: The annotation that says `audit` of a policy that is to be rehearsed, not enforced.
MODE = "axoneme.io/mode"
CILIUM_API = "cilium.io/v2"
CIDR_GROUP_APIS = (CILIUM_API, "cilium.io/v2alpha1")
#: So many errors of one direction's rules are told at once; more don't help anybody.
MOST_ERRORS = 100
_SPEC_FIELDS = (
    "endpointSelector",
    "nodeSelector",
    "ingress",
    "ingressDeny",
    "egress",
    "egressDeny",
    "labels",
    "description",
    "enableDefaultDeny",
    "log",
)
_UNSUPPORTED = {
    "Groups": ("groups of a cloud provider are not supported", "name their addresses with CIDRSet"),
    "Nodes": (
        "selecting nodes by label is not enabled",
        "use the entities host, remote-node and kube-apiserver",
    ),
}
#: What `authentication.mode` was called in Cilium 1.13, and what it is now.
_OLD_AUTH = {"null": None, "mtls-spiffe": Auth.REQUIRED, "always-fail": Auth.ALWAYS_FAIL}


def envelope(value: Any, locate: Locate = nowhere) -> tuple[Field, str, str]:
    """The object as a field, its namespace ('' if none) and name. Raises `ResourceError`."""
    root = Field(value, (), locate)
    parts = root.mapping(("apiVersion", "kind", "metadata", "spec", "specs", "status"))
    metadata = parts["metadata"].mapping() if "metadata" in parts else {}
    name = metadata["name"].string() if "name" in metadata else ""
    if not name:
        root.fail("metadata.name must be given")
    namespace = metadata["namespace"].string() if "namespace" in metadata else ""
    return root, namespace, name


def is_audited(root: Field) -> bool:
    """Whether the object is only to be rehearsed. Raises `ResourceError` for a mode that there is not."""
    metadata = root.child("metadata").mapping()
    annotations = metadata["annotations"].value if "annotations" in metadata else {}
    if not isinstance(annotations, dict) or MODE not in annotations:
        return False
    return metadata["annotations"].child(MODE).one_of(("audit", "enforce")) == "audit"


def parse_policy(value: Any, locate: Locate = nowhere, scope: Scope | None = None) -> Policy:
    """A CiliumNetworkPolicy or CiliumClusterwideNetworkPolicy. Raises `ResourceError` with the field's place."""
    scope = scope or Scope()
    root, namespace, name = envelope(value, locate)
    kind = str(root.value.get("kind"))
    clusterwide = kind == "CiliumClusterwideNetworkPolicy"
    scope = scope.within("" if clusterwide else namespace or "default")
    parts = root.mapping()
    fields = [parts["spec"]] if "spec" in parts else []
    if "specs" in parts:
        fields += parts["specs"].sequence()
    if not fields:
        root.fail("the policy is empty", "give 'spec' or 'specs'")
    specs = tuple(_spec(one, scope, clusterwide) for one in fields)
    return Policy(kind, scope.namespace, name, specs, locate(()), audit=is_audited(root))


def parse_rules(value: Any, locate: Locate = nowhere, scope: Scope | None = None) -> Policy:
    """The bare list of rules of Cilium's agent API and policy files: no object around, no namespace, and nothing added to its
    selectors. Raises `ResourceError`."""
    scope = (scope or Scope()).within("")
    root = Field(value, (), locate)
    return Policy(
        "rules", "", "", tuple(_spec(one, scope, True, bare=True) for one in root.sequence()), locate(())
    )


def _spec(item: Field, scope: Scope, clusterwide: bool, *, bare: bool = False) -> Spec:
    parts = item.mapping(_SPEC_FIELDS)
    subject, node = _subject(item, parts, scope, clusterwide)
    if not any(parts[name].sequence() for name in _SPEC_FIELDS[2:6] if name in parts):
        item.fail(
            "needs at least one rule in ingress, ingressDeny, egress or egressDeny",
            "'- {}' denies everything",
        )
    for_init = any(one.source == "reserved" and one.key == "init" for one in subject.requirements)
    reader = _Rules(scope, for_init or bare, node)
    flags = parts["enableDefaultDeny"].mapping(("ingress", "egress")) if "enableDefaultDeny" in parts else {}
    return Spec(
        item.path,
        subject,
        reader.direction(parts, Direction.EGRESS, flags),
        reader.direction(parts, Direction.INGRESS, flags),
        node,
    )


def _subject(item: Field, parts: dict[str, Field], scope: Scope, clusterwide: bool) -> tuple[Selector, bool]:
    if "nodeSelector" in parts:
        if not clusterwide:
            parts["nodeSelector"].fail("only a CiliumClusterwideNetworkPolicy can select nodes")
        if "endpointSelector" in parts:
            item.fail("cannot have both endpointSelector and nodeSelector")
        return peers.selector(parts["nodeSelector"]), True
    if "endpointSelector" not in parts:
        item.fail("needs endpointSelector", "'endpointSelector: {}' selects every workload of the namespace")
    return peers.subject(parts["endpointSelector"], scope), False


class _Rules:
    """Reads the rule lists of one spec."""

    def __init__(self, scope: Scope, for_init: bool, node: bool) -> None:
        self._scope = scope
        self._for_init = for_init
        self._node = node

    def direction(
        self, parts: dict[str, Field], direction: Direction, flags: dict[str, Field]
    ) -> DirectionRules:
        rules, errors = [], []
        for name, deny in ((direction.value, False), (f"{direction.value}Deny", True)):
            for one in parts[name].sequence() if name in parts else ():
                try:
                    rules.append(self._rule(one, direction, deny))
                except ResourceError as error:
                    errors.append(error)
                if len(errors) == MOST_ERRORS:
                    raise ResourceErrors(errors)
        if errors:
            raise ResourceErrors(errors)
        enabled = flags[direction.value].boolean() if direction.value in flags else True
        return DirectionRules(tuple(rules), enabled)

    def _rule(self, item: Field, direction: Direction, deny: bool) -> PeerRule:
        side = "from" if direction is Direction.INGRESS else "to"
        known = [
            side + name for name in ("Endpoints", "Requires", "CIDR", "CIDRSet", "Entities", *_UNSUPPORTED)
        ]
        known += ["toPorts", "icmps"] + ([] if deny else ["authentication", "auth"])
        if direction is Direction.EGRESS:
            known += ["toServices"] + ([] if deny else ["toFQDNs"])
        parts = item.mapping(known)
        found, endpoint_peers = self._peers(item, parts, side)
        return PeerRule(
            path=item.path,
            deny=deny,
            peers=found,
            ports=self._ports(item, parts, direction, deny),
            endpoint_peers=endpoint_peers,
            requires=self._requires(parts, side),
            services=self._services(parts),
            auth=None if deny else self._auth(parts),
            where=item.where(),
            text=json.dumps(item.value, sort_keys=True, default=str),
        )

    def _peers(self, item: Field, parts: dict[str, Field], side: str) -> tuple[tuple[Peer, ...] | None, int]:
        """None for anybody; the second value counts those that came from endpoint selectors."""
        for name, (reason, hint) in _UNSUPPORTED.items():
            if side + name in parts and parts[side + name].sequence():
                parts[side + name].fail(reason, hint)
        readers: dict[str, Callable[[Field], tuple[Peer, ...]]] = {
            f"{side}Endpoints": self._endpoint,
            f"{side}CIDR": lambda one: (peers.cidr(one),),
            f"{side}CIDRSet": lambda one: (peers.cidr_rule(one),),
            f"{side}Entities": lambda one: peers.entity(one, self._scope),
            "toFQDNs": lambda one: (peers.fqdn(one),),
            "toServices": lambda one: (),  # nobody, until it is known who serves: see services.py
        }
        present = {name: parts[name].sequence() for name in readers if name in parts}
        used = [name for name, elements in present.items() if elements]
        if len(used) > 1:
            item.fail(f"cannot combine {used[0]} and {used[1]} in one rule", "write one rule for each")
        if any(not elements for name, elements in present.items() if name not in ("toFQDNs", "toServices")):
            return (), 0  # present and empty selects nobody, whatever else the rule says
        if not used:
            return None, 0
        found = tuple(peer for one in present[used[0]] for peer in readers[used[0]](one))
        return found, len(found) if used[0] == f"{side}Endpoints" else 0

    def _endpoint(self, item: Field) -> tuple[Peer, ...]:
        return (peers.peer_selector(item, self._scope, for_init=self._for_init),)

    def _services(self, parts: dict[str, Field]) -> tuple[ServiceRef, ...]:
        elements = parts["toServices"].sequence() if "toServices" in parts else []
        return tuple(peers.service(one, self._scope) for one in elements)

    def _requires(self, parts: dict[str, Field], side: str) -> tuple[Requirement, ...]:
        if f"{side}Requires" not in parts:
            return ()
        found = [
            peers.peer_selector(one, self._scope, for_init=self._for_init, exempt_reserved=False)
            for one in parts[f"{side}Requires"].sequence()
        ]
        return tuple(requirement for one in found for requirement in one.requirements)

    def _ports(
        self, item: Field, parts: dict[str, Field], direction: Direction, deny: bool
    ) -> tuple[PortRule, ...] | None:
        with_ports = parts["toPorts"].sequence() if "toPorts" in parts else []
        with_icmps = parts["icmps"].sequence() if "icmps" in parts else []
        if with_ports and with_icmps:
            item.fail("cannot have both toPorts and icmps", "write one rule for each")
        if with_icmps:
            return ports.icmps(parts["icmps"])
        if not with_ports:
            return None
        if deny:
            return tuple(ports.deny_port_rule(one, self._scope) for one in with_ports)
        rules = tuple(ports.port_rule(one, direction, self._scope) for one in with_ports)
        if self._node and any(rule.l7 for rule in rules):
            parts["toPorts"].fail("layer 7 rules cannot apply to nodes")
        return rules

    def _auth(self, parts: dict[str, Field]) -> Auth | None:
        if "auth" in parts and "authentication" not in parts:
            fields = parts["auth"].mapping(("type",))
            return _OLD_AUTH[fields["type"].one_of(_OLD_AUTH)] if "type" in fields else None
        if "authentication" not in parts:
            return None
        fields = parts["authentication"].mapping(("mode",))
        if "mode" not in fields:
            parts["authentication"].fail("needs 'mode'")
        modes = {mode.text: mode for mode in Auth}
        if not self._scope.schema:
            return modes.get(fields["mode"].string())
        return modes[fields["mode"].one_of(modes)]


def parse_cidr_group(value: Any, locate: Locate = nowhere, scope: Scope | None = None) -> CidrGroup:
    """A CiliumCIDRGroup. Raises `ResourceError`. It stands in no scope."""
    del scope
    root, _, name = envelope(value, locate)
    spec = root.mapping()
    if "spec" not in spec:
        root.fail("needs 'spec'")
    parts = spec["spec"].mapping(("externalCIDRs",))
    prefixes = tuple(peers.prefix(one) for one in parts["externalCIDRs"].sequence()) if parts else ()
    metadata = root.child("metadata").mapping()
    labels = metadata["labels"].mapping() if "labels" in metadata else {}
    pairs = tuple((key, value.string()) for key, value in sorted(labels.items()))
    return CidrGroup(name, prefixes, pairs, locate(()))
