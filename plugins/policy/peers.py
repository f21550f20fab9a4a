"""Parsing of whom a rule speaks of: label selectors, CIDRs and entities.

The namespace treatment follows Cilium's `pkg/k8s/apis/cilium.io/utils`: a selector that says nothing of namespaces is
confined to the policy's own, or, in a cluster-wide policy, to workloads (whatever has a namespace).
"""

from __future__ import annotations

import re
from ipaddress import ip_address, ip_network

from attrs import evolve, frozen

from axoneme.plugins.policy.fields import Field
from axoneme.plugins.policy.model import (
    CIDR_GROUP_KEY,
    CLUSTER_KEY,
    NAMESPACE_KEY,
    NAMESPACE_LABELS_PREFIX,
    WILDCARD,
    CidrSelector,
    Network,
    Operator,
    Peer,
    Requirement,
    Selector,
    ServiceRef,
)

_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_SOURCE = re.compile(r"[a-z0-9-]{1,63}")

ENTITIES = (
    "all",
    "world",
    "world-ipv4",
    "world-ipv6",
    "cluster",
    "host",
    "init",
    "ingress",
    "unmanaged",
    "remote-node",
    "health",
    "none",
    "kube-apiserver",
)
_CLUSTER_ENTITIES = ("host", "remote-node", "init", "ingress", "health", "unmanaged", "kube-apiserver")


@frozen
class Scope:
    """Where a selector stands: what is to be added to it.

    :param namespace: of the policy object; empty for a cluster-wide one.
    :param cluster: the local cluster's name.
    :param dual_stack: the world then has one identity per family.
    :param default_local_cluster: selectors that say nothing of clusters are confined to the local one.
    :param schema: refuse what the resource's schema refuses, not only what the reference's decoder does.
    """

    namespace: str = ""
    cluster: str = "default"
    dual_stack: bool = True
    default_local_cluster: bool = False
    schema: bool = True

    def within(self, namespace: str) -> Scope:
        return evolve(self, namespace=namespace)


def reserved(name: str) -> Selector:
    return Selector((Requirement("reserved", name, Operator.EQUALS, ("",)),))


def selector(item: Field, source: str = "any", prefix: str = "") -> Selector:
    """A Kubernetes label selector, its keys taken as `[source:]key`.

    :param source: the source of keys that name none; any other than `any` makes every key belong to it.
    :param prefix: put before each key (namespace selectors).
    """
    parts = item.mapping(("matchLabels", "matchExpressions"))
    requirements = []
    if "matchLabels" in parts:
        for key, value in sorted(parts["matchLabels"].mapping().items()):
            requirements.append(_match_label(key, value, source, prefix))
    if "matchExpressions" in parts:
        requirements += [_expression(one, source, prefix) for one in parts["matchExpressions"].sequence()]
    return _ordered(tuple(requirements))


def _ordered(requirements: tuple[Requirement, ...]) -> Selector:
    """Equalities first, sorted by key, as the reference writes a selector; expressions keep their order."""
    labels = {(one.source, one.key): one for one in requirements if one.operator is Operator.EQUALS}
    expressions = tuple(one for one in requirements if one.operator is not Operator.EQUALS)
    return Selector(tuple(labels[key] for key in sorted(labels)) + expressions)


def _split_key(item: Field, key: str, source: str, prefix: str) -> tuple[str, str]:
    name = key
    if source == "any" and ":" in key:
        source, name = key.split(":", 1)
        if not _SOURCE.fullmatch(source):
            item.fail(
                f"label key {key!r} has the invalid source {source!r}",
                "sources are k8s, reserved, cidr, any …",
            )
    domain, slash, local = name.rpartition("/")
    if not _NAME.fullmatch(local) or (slash and (len(domain) > 253 or not _DOMAIN.fullmatch(domain))):
        item.fail(f"invalid label key {key!r}", "a key is [domain/]name of letters, digits and -_.")
    return source, prefix + name


def _label_value(item: Field) -> str:
    value = item.string()
    if not _VALUE.fullmatch(value):
        item.fail(f"invalid label value {value!r}", "at most 63 letters, digits and -_., or empty")
    return value


def _match_label(key: str, value: Field, source: str, prefix: str) -> Requirement:
    return Requirement(*_split_key(value, key, source, prefix), Operator.EQUALS, (_label_value(value),))


def _expression(item: Field, source: str, prefix: str) -> Requirement:
    parts = item.mapping(("key", "operator", "values"))
    for name in ("key", "operator"):
        if name not in parts:
            item.fail(f"needs {name!r}")
    operators = [operator.value for operator in Operator if operator is not Operator.EQUALS]
    operator = Operator(parts["operator"].one_of(operators))
    values = tuple(_label_value(one) for one in parts["values"].sequence()) if "values" in parts else ()
    takes_values = operator in (Operator.IN, Operator.NOT_IN)
    if takes_values != bool(values):
        item.fail(f"operator {operator.value} {'needs' if takes_values else 'takes no'} values")
    key = parts["key"].string()
    return Requirement(*_split_key(parts["key"], key, source, prefix), operator, values)


def subject(item: Field, scope: Scope) -> Selector:
    """An endpointSelector. The namespace is added; a different one asked for with source `k8s` is overwritten."""
    found = selector(item)
    if not scope.namespace:
        return found
    return with_namespace(found, scope.namespace)


def with_namespace(found: Selector, namespace: str) -> Selector:
    own = Requirement("k8s", NAMESPACE_KEY, Operator.EQUALS, (namespace,))
    return _ordered((*found.requirements, own))


def _mentions(found: Selector, key: str, *, prefix: bool = False) -> bool:
    return any(
        one.source in ("k8s", "any") and (one.key.startswith(key) if prefix else one.key == key)
        for one in found.requirements
    )


def peer_selector(item: Field, scope: Scope, *, for_init: bool, exempt_reserved: bool = True) -> Selector:
    """A selector of peers, confined to the policy's namespace unless it speaks of namespaces itself.

    :param for_init: the cluster-wide policy's subject selects `reserved:init`; then nothing is added.
    :param exempt_reserved: leave selectors with a `reserved:` key alone (not so for requires).
    """
    found = selector(item)
    if exempt_reserved and any(one.source == "reserved" for one in found.requirements):
        return found
    if scope.namespace:
        if not _mentions(found, NAMESPACE_KEY) and not _mentions(found, NAMESPACE_LABELS_PREFIX, prefix=True):
            found = with_namespace(found, scope.namespace)
    elif not for_init and not _mentions(found, NAMESPACE_KEY):
        found = found.also((Requirement("k8s", NAMESPACE_KEY, Operator.EXISTS),))
    if scope.default_local_cluster and not _mentions(found, CLUSTER_KEY):
        own = Requirement("k8s", CLUSTER_KEY, Operator.EQUALS, (scope.cluster,))
        found = _ordered((*found.requirements, own))
    return found


def entity(item: Field, scope: Scope) -> tuple[Peer, ...]:
    name = item.one_of(ENTITIES)
    if name == "all":
        return (WILDCARD,)
    if name == "none":
        return ()
    if name == "cluster":
        local = Selector((Requirement("k8s", CLUSTER_KEY, Operator.EQUALS, (scope.cluster,)),))
        return (*(reserved(one) for one in _CLUSTER_ENTITIES), local)
    if name == "world" and scope.dual_stack:
        return tuple(reserved(one) for one in ("world", "world-ipv4", "world-ipv6"))
    return (reserved(name),)


def cidr(item: Field) -> CidrSelector:
    """A CIDR or a bare address; host bits are masked."""
    text = item.string()
    try:
        if "/" in text or "%" in text:  # a prefix, or an address with a zone, which is none
            return CidrSelector(prefix(item))
        return CidrSelector(ip_network(ip_address(text)))
    except ValueError:
        item.fail(f"{text!r} is neither an IP address nor a prefix")


def prefix(item: Field) -> Network:
    text = item.string()
    address, slash, length = text.partition("/")
    if not slash or not length.isascii() or not length.isdigit() or (length != "0" and length[0] == "0"):
        item.fail(f"{text!r} is not a prefix", "write ADDRESS/LENGTH")
    try:
        if "%" in address:
            raise ValueError(address)
        return ip_network(text, strict=False)
    except ValueError:
        item.fail(f"{text!r} is not a prefix", "write ADDRESS/LENGTH")


def cidr_rule(item: Field) -> CidrSelector:
    """An element of fromCIDRSet or toCIDRSet."""
    parts = item.mapping(("cidr", "cidrGroupRef", "cidrGroupSelector", "except"))
    chosen = [name for name in ("cidr", "cidrGroupRef", "cidrGroupSelector") if name in parts]
    if len(chosen) != 1:
        item.fail("needs exactly one of cidr, cidrGroupRef and cidrGroupSelector")
    excepts = tuple(prefix(one) for one in parts["except"].sequence()) if "except" in parts else ()
    base: Network | Selector
    if chosen == ["cidr"]:
        base = prefix(parts["cidr"])
        _check_excepts(parts, base, excepts)
    elif chosen == ["cidrGroupRef"]:
        base = cidr_group_selector(parts["cidrGroupRef"].string())
    else:
        base = selector(parts["cidrGroupSelector"], source="cidrgroup")
    return CidrSelector(base, excepts)


def cidr_group_selector(name: str) -> Selector:
    return Selector((Requirement("cidrgroup", CIDR_GROUP_KEY + name, Operator.EQUALS, ("",)),))


def _check_excepts(parts: dict[str, Field], base: Network, excepts: tuple[Network, ...]) -> None:
    for index, one in enumerate(excepts):
        if one.version != base.version or one.network_address not in base:
            parts["except"].child(index).fail(f"{one} does not lie inside {base}")


def ip_block(item: Field) -> CidrSelector:
    """A NetworkPolicy's ipBlock."""
    parts = item.mapping(("cidr", "except"))
    if "cidr" not in parts:
        item.fail("needs 'cidr'")
    base = prefix(parts["cidr"])
    excepts = tuple(prefix(one) for one in parts["except"].sequence()) if "except" in parts else ()
    _check_excepts(parts, base, excepts)
    return CidrSelector(base, excepts)


def service(item: Field, scope: Scope) -> ServiceRef:
    """An element of toServices. Without a namespace it is the policy's own."""
    parts = item.mapping(("k8sService", "k8sServiceSelector"))
    if len(parts) != 1:
        item.fail("needs exactly one of k8sService and k8sServiceSelector")
    if "k8sService" in parts:
        fields = parts["k8sService"].mapping(("serviceName", "namespace"))
        if "serviceName" not in fields or not fields["serviceName"].string():
            parts["k8sService"].fail("needs 'serviceName'")
        return ServiceRef(_namespace(fields, scope), fields["serviceName"].string())
    fields = parts["k8sServiceSelector"].mapping(("selector", "namespace"))
    if "selector" not in fields:
        parts["k8sServiceSelector"].fail("needs 'selector'")
    inner = fields["selector"].mapping(("matchLabels", "matchExpressions", "namespace"))
    labels = {name: one.value for name, one in inner.items() if name != "namespace"}
    namespace = _namespace(
        inner | fields, scope
    )  # it belongs beside the selector, but is found inside of it too
    return ServiceRef(namespace, selector=selector(evolve(fields["selector"], value=labels)))


def _namespace(fields: dict[str, Field], scope: Scope) -> str:
    return fields["namespace"].string() if "namespace" in fields else scope.namespace


def fqdn(item: Field) -> Selector:
    """An element of toFQDNs: the identities that carry its label, source `fqdn`, once its addresses are known."""
    parts = item.mapping(("matchName", "matchPattern"))
    if len(parts) != 1:
        item.fail("needs exactly one of matchName and matchPattern")
    ((name, value),) = parts.items()
    text = value.string()
    allowed = r"[-a-zA-Z0-9_.]+" if name == "matchName" else r"[-a-zA-Z0-9_.*]+"
    if not re.fullmatch(allowed, text) or len(text) > 255:
        value.fail(f"{text!r} is not a DNS {'name' if name == 'matchName' else 'pattern'}")
    return Selector((Requirement("fqdn", text.lower().rstrip("."), Operator.EQUALS, ("",)),))
