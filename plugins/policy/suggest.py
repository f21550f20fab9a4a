"""The smallest rule that allows a flow, as a policy object, tried out before it is proposed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from attrs import frozen

from axoneme.core.errors import AxonemeError
from axoneme.plugins.policy.engine import Engine
from axoneme.plugins.policy.language import CILIUM_API, MODE, parse_policy
from axoneme.plugins.policy.model import CLUSTER_KEY, NAMESPACE_KEY, Direction, Protocol
from axoneme.plugins.policy.parties import Party
from axoneme.plugins.policy.selectors import Identity, Labels

NAMESPACE_LABEL = f"k8s:{NAMESPACE_KEY}"
#: Labels that a workload has because of where it runs, not because of what it is.
_DERIVED = ("io.cilium.", "io.kubernetes.")
#: The most elements that `ports` and `fields` may have.
MAX_PORTS = 40

#: Entities in the order in which they are tried: kube-apiserver is a remote node, too.
_ENTITIES = (
    "kube-apiserver", "host", "remote-node", "health", "init", "ingress", "unmanaged", "world", "world-ipv4", "world-ipv6",
)  # fmt: skip


class NoRuleError(AxonemeError):
    """No rule can say what is asked for; the message says why."""


@frozen
class Opening:
    """What is to be opened: a port, or for ICMP a type, of a protocol."""

    protocol: int
    port: int


def own_labels(labels: Iterable[str]) -> dict[str, str]:
    """A workload's own labels as `matchLabels` have them, without namespace and what follows from it."""
    found = {}
    for text in labels:
        name, _, value = text.partition("=")
        source, _, key = name.partition(":")
        if not key.startswith(_DERIVED):
            found[key if source == "k8s" and ":" not in key else name] = value
    return found


def peer_selector(labels: Iterable[str], namespace: str) -> dict[str, Any]:
    """A selector for exactly these labels of a workload, in a policy of a namespace (empty: of the whole cluster)."""
    texts = tuple(labels)
    wanted = own_labels(texts)
    for text in texts:
        name, _, value = text.partition("=")
        if name == NAMESPACE_LABEL and value != namespace:
            wanted[name] = value
        if name == f"k8s:{CLUSTER_KEY}" and value != "default":
            wanted[name] = value
    return {"matchLabels": dict(sorted(wanted.items()))}


def peer_fields(peer: Party, side: str, namespace: str) -> dict[str, Any]:
    """The fields of a rule that select a peer and as few others as can be said. Raises `NoRuleError`.

    :param side: `from` or `to`.
    """
    reserved = {text.partition(":")[2] for text in peer.labels if text.startswith("reserved:")}
    prefixes = [text.partition(":")[2] for text in peer.labels if text.startswith("cidr:")]
    if any(name.startswith("world") for name in reserved) and peer.address is not None:
        return {f"{side}CIDR": [f"{peer.address}/{peer.address.max_prefixlen}"]}
    if prefixes:
        return {
            f"{side}CIDR": [max(prefixes, key=lambda text: int(text.rpartition("/")[2])).replace("-", ":")]
        }
    for name in _ENTITIES:
        if name in reserved:
            return {f"{side}Entities": [name]}
    if not peer.labels:
        raise NoRuleError(f"nothing is known of {peer.name} that a rule could select")
    return {f"{side}Endpoints": [peer_selector(peer.labels, namespace)]}


def port_fields(openings: Iterable[Opening]) -> dict[str, Any]:
    """`toPorts` or `icmps` for openings that are all of one sort; nothing, which is everything, for other protocols."""
    ports, icmps = [], []
    for one in sorted(set(openings), key=lambda one: (one.protocol, one.port)):
        if one.protocol in (Protocol.TCP, Protocol.UDP, Protocol.SCTP):
            ports.append({"port": str(one.port), "protocol": Protocol(one.protocol).name})
        elif one.protocol in (Protocol.ICMP, Protocol.ICMPV6):
            family = "IPv4" if one.protocol == Protocol.ICMP else "IPv6"
            icmps.append({"family": family, "type": one.port})
    if ports:
        return {"toPorts": [{"ports": ports[i : i + MAX_PORTS]} for i in range(0, len(ports), MAX_PORTS)]}
    return (
        {"icmps": [{"fields": icmps[i : i + MAX_PORTS]} for i in range(0, len(icmps), MAX_PORTS)]}
        if icmps
        else {}
    )


def policy_object(
    name: str, namespace: str, selector: Mapping[str, Any], rules: Mapping[str, list[dict[str, Any]]]
) -> dict[str, Any]:
    """A CiliumNetworkPolicy, or without a namespace a CiliumClusterwideNetworkPolicy.

    :param rules: by direction.
    """
    kind = "CiliumNetworkPolicy" if namespace else "CiliumClusterwideNetworkPolicy"
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {
        "apiVersion": CILIUM_API, "kind": kind, "metadata": metadata, "spec": {"endpointSelector": dict(selector), **rules},
    }  # fmt: skip


def object_name(*parts: str) -> str:
    """A name for an object, out of words."""
    text = re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")
    return text[:200].strip("-") or "suggested"


def yaml_text(*objects: Mapping[str, Any]) -> str:
    """Objects as people write them, several with `---` between them."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    dumped = [yaml.dump(dict(one), Dumper=Dumper, sort_keys=False, width=110) for one in objects]
    return "---\n".join(dumped)


def suggest(
    engine: Engine,
    subject: Party,
    peer: Party,
    direction: Direction,
    opening: Opening,
    *,
    audit: bool = False,
) -> dict[str, Any]:
    """A policy for the subject that allows the flow and as little else as can be said.

    :param audit: the policy is to be audited itself, beside those that it is an exception from.

    It is tried in an engine of its own, with the policies that hold for the subject beside it. Raises `NoRuleError` when
    no added rule can allow the flow, saying why.
    """
    side = "from" if direction is Direction.INGRESS else "to"
    namespace = subject.namespace
    rule = {**peer_fields(peer, side, namespace), **port_fields([opening])}
    source, destination = (peer, subject) if direction is Direction.INGRESS else (subject, peer)
    port = f"{opening.port}-{Protocol(opening.protocol).name}" if opening.protocol in set(Protocol) else "any"
    value = policy_object(
        object_name(
            "allow",
            direction.value,
            source.name.rpartition("/")[2],
            destination.name.rpartition("/")[2],
            port,
        ),
        namespace,
        {"matchLabels": dict(sorted(own_labels(subject.labels).items()))},
        {direction.value: [rule]},
    )
    if audit:
        value["metadata"]["annotations"] = {MODE: "audit"}
    _try(engine, value, subject, peer, direction, opening)
    return value


def _try(
    engine: Engine, value: dict[str, Any], subject: Party, peer: Party, direction: Direction, opening: Opening
) -> None:
    trial = Engine(engine.settings)
    trial.upsert_identity(Identity(peer.identity, _with_address(peer)))
    labels, parsed = Labels(subject.labels), parse_policy(value)
    for policy in (*engine.policies.values(), parsed):
        if any(labels.matches(spec.subject) for spec in policy.specs):
            trial.upsert_policy(policy)
    for endpoint, one in engine.subjects.items():
        if (
            endpoint == subject.endpoint or one.named_ports
        ):  # the others' ports may have the names that rules use
            trial.upsert_subject(endpoint, one)
    trial.commit()
    found = trial.verdict(subject.endpoint, direction, peer.identity, opening.protocol, opening.port)
    if found is not None and found.allow and found.would is not None and parsed.audit:
        raise NoRuleError(f"no added rule can allow it: {found.would.rule.path} denies it all the same")
    if found is None or not found.allow:
        by = f"{found.rule.policy} {found.rule.path}".strip() if found else "nothing"
        raise NoRuleError(f"no added rule can allow it: {by} decides all the same")


def _with_address(peer: Party) -> tuple[str, ...]:
    """The labels that an address of the world will have once a rule speaks of it."""
    if peer.address is None or not any(text.startswith("reserved:world") for text in peer.labels):
        return peer.labels
    kept = {text for text in peer.labels if not text.startswith("cidr:")}
    return tuple(sorted(kept | {f"cidr:{peer.address}/{peer.address.max_prefixlen}"}))
