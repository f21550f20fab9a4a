"""Random policies, workloads and flows for hypothesis: few names, so that rules meet."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from axoneme.core.workloads.identities import RESERVED, workload_labels
from axoneme.plugins.policy.selectors import Identity
from axoneme.plugins.policy.subject import Subject

NAMESPACES = ("blue", "green")
APPS = ("a", "b", "c")
PREFIXES = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8")
PORTS = (1, 80, 81, 443, 8080, 65535)
PROTOCOLS = ("TCP", "UDP", "SCTP", "ICMP", "ICMPV6")
MODES = ("disabled", "required", "test-always-fail")

#: Workloads: endpoint id and identity are equal, from 256.
PODS = {
    256 + index: workload_labels({"app": app, **({"env": "prod"} if app != "b" else {})}, namespace)
    for index, (namespace, app) in enumerate((n, a) for n in NAMESPACES for a in APPS)
}
#: Prefixes with identities of their own, whether mentioned or not.
WORLD = {
    (1 << 24) + index: tuple(sorted((f"cidr:{prefix}", f"reserved:world-ipv{6 if ':' in prefix else 4}")))
    for index, prefix in enumerate(one for one in PREFIXES if not one.endswith("/0"))
}
IDENTITIES = [Identity(number, labels) for number, labels in {**RESERVED, **PODS, **WORLD}.items()]


def subject(endpoint: int) -> Subject:
    return Subject(PODS[endpoint])


match_labels = st.fixed_dictionaries(
    {},
    optional={
        "app": st.sampled_from(APPS),
        "k8s:app": st.sampled_from(APPS),
        "env": st.sampled_from(("prod", "")),
        "io.kubernetes.pod.namespace": st.sampled_from(NAMESPACES),
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": st.sampled_from(NAMESPACES),
        "reserved:host": st.just(""),
    },
)
expressions = st.one_of(
    st.builds(
        lambda key, operator, values: {"key": key, "operator": operator, "values": values},
        st.sampled_from(("app", "env", "any:app", "io.kubernetes.pod.namespace")),
        st.sampled_from(("In", "NotIn")),
        st.lists(st.sampled_from((*APPS, *NAMESPACES, "prod")), min_size=1, max_size=2, unique=True),
    ),
    st.builds(
        lambda key, operator: {"key": key, "operator": operator},
        st.sampled_from(("app", "env", "reserved:host", "io.kubernetes.pod.namespace")),
        st.sampled_from(("Exists", "DoesNotExist")),
    ),
)
selectors = st.builds(
    lambda labels, more: {
        **({"matchLabels": labels} if labels else {}),
        **({"matchExpressions": more} if more else {}),
    },
    match_labels,
    st.lists(expressions, max_size=1),
)
entities = st.sampled_from(
    ("all", "world", "cluster", "host", "remote-node", "none", "kube-apiserver", "world-ipv6")
)
cidr_sets = st.sampled_from(
    (
        {"cidr": "10.0.0.0/8"},
        {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]},
        {"cidr": "0.0.0.0/0", "except": ["10.1.2.3/32"]},
        {"cidr": "fd00::/8"},
    )
)


@st.composite
def port_entries(draw: st.DrawFn, protocols: tuple[str | None, ...], zero: bool = True) -> dict[str, Any]:
    entry: dict[str, Any] = {"port": str(draw(st.sampled_from((0, *PORTS) if zero else PORTS)))}
    if draw(st.booleans()) and draw(st.booleans()):
        entry["endPort"] = draw(st.sampled_from((79, 82, 1023, 8081, 65535)))
    protocol = draw(st.sampled_from(protocols))
    return entry if protocol is None else {**entry, "protocol": protocol}


@st.composite
def to_ports(draw: st.DrawFn, side: str, deny: bool) -> list[dict[str, Any]]:
    if deny or draw(st.integers(0, 3)):
        ports = draw(st.lists(port_entries((None, "ANY", "TCP", "UDP", "SCTP")), max_size=2))
        return [{"ports": ports}]
    kind = draw(st.sampled_from(("http", "dns") if side == "to" else ("http",)))
    if kind == "dns":
        entry = {"port": draw(st.sampled_from(("53", "80"))), "protocol": "UDP"}
        return [{"ports": [entry], "rules": {"dns": [{"matchPattern": "*"}]}}]
    entry = draw(port_entries(("TCP",), zero=False))
    return [{"ports": [entry], "rules": {"http": [{"method": "GET"}]}}]


icmps = st.lists(
    st.fixed_dictionaries(
        {"family": st.sampled_from(("IPv4", "IPv6")), "type": st.sampled_from((0, 8, 128))}
    ),
    min_size=1,
    max_size=2,
).map(lambda fields: [{"fields": fields}])


@st.composite
def rules(draw: st.DrawFn, side: str, deny: bool) -> dict[str, Any]:
    kinds: dict[str, st.SearchStrategy[Any]] = {
        "Endpoints": st.lists(selectors, max_size=2),
        "CIDR": st.lists(st.sampled_from(PREFIXES), max_size=2),
        "CIDRSet": st.lists(cidr_sets, min_size=1, max_size=1),
        "Entities": st.lists(entities, max_size=2),
    }
    rule: dict[str, Any] = {}
    chosen = draw(st.sampled_from((*kinds, "Endpoints", "Endpoints", "")))
    if chosen:
        rule[side + chosen] = draw(kinds[chosen])
    if not draw(st.integers(0, 7)):
        rule[f"{side}Requires"] = draw(st.lists(selectors, max_size=1))
    shape = draw(st.sampled_from(("", "ports", "ports", "icmps")))
    if shape == "ports":
        rule["toPorts"] = draw(to_ports(side, deny))
    elif shape == "icmps":
        rule["icmps"] = draw(icmps)
    if not deny and not draw(st.integers(0, 4)):
        rule["authentication"] = {"mode": draw(st.sampled_from(MODES))}
    return rule


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "endpointSelector": draw(st.just({}) | match_labels.map(lambda m: {"matchLabels": m}))
    }
    names = draw(
        st.lists(st.sampled_from(("ingress", "ingressDeny", "egress", "egressDeny")), min_size=1, max_size=3)
    )
    for name in names:
        side, deny = ("from" if "ingress" in name else "to"), name.endswith("Deny")
        spec[name] = draw(st.lists(rules(side, deny), min_size=1, max_size=3))
    if not draw(st.integers(0, 4)):
        directions = ("ingress", "egress")
        spec["enableDefaultDeny"] = {draw(st.sampled_from(directions)): draw(st.booleans())}
    return spec


@st.composite
def policies(draw: st.DrawFn, name: str = "p0") -> dict[str, Any]:
    clusterwide = not draw(st.integers(0, 3))
    kind = "CiliumClusterwideNetworkPolicy" if clusterwide else "CiliumNetworkPolicy"
    metadata = (
        {"name": name} if clusterwide else {"name": name, "namespace": draw(st.sampled_from(NAMESPACES))}
    )
    head = {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata}
    if draw(st.integers(0, 3)):
        return {**head, "spec": draw(specs())}
    return {**head, "specs": draw(st.lists(specs(), min_size=1, max_size=2))}


policy_lists = st.lists(policies(), max_size=4).map(
    lambda found: [
        {**one, "metadata": {**one["metadata"], "name": f"p{index}"}} for index, one in enumerate(found)
    ]
)
flows = st.tuples(
    st.sampled_from(sorted(PODS)),
    st.sampled_from(sorted(one.number for one in IDENTITIES)),
    st.sampled_from(("ingress", "egress")),
    st.sampled_from(PROTOCOLS),
    st.sampled_from((0, 1, 8, 53, 79, 80, 81, 82, 128, 443, 1023, 1024, 8080, 8081, 65535)),
)
