"""What people write: every field, and what is said about mistakes, with file, line and field."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from axoneme.core.state.resources import Kinds, Resource, read_resource
from axoneme.core.state.yamlio import load
from axoneme.plugins.lb.kinds import resource_kinds
from axoneme.plugins.lb.maps import Algorithm
from axoneme.plugins.lb.model import (
    Block,
    Distribution,
    Endpoint,
    FrontendKind,
    Pool,
    Port,
    Protocol,
    Requirement,
    ServiceType,
    SlicePort,
)


def read(text: str) -> Resource:
    (document,) = load(text, "s.yaml")
    return read_resource(document, Kinds(resource_kinds()), "test").resource


def parsed(text: str) -> Any:
    row = read(text)
    assert not row.problems
    return row.parsed


SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: shop
  labels: {app: web}
  annotations:
    service.cilium.io/lb-algorithm: maglev
    service.axoneme.io/maglev-table-size: "1021"
    service.axoneme.io/weights: 10.0.0.1=3, web-2=0
    service.cilium.io/forwarding-mode: dsr
    service.cilium.io/type: ClusterIP, LoadBalancer
    lbipam.cilium.io/ips: 198.51.100.7, 2001:db8::7
    lbipam.cilium.io/sharing-key: front
    lbipam.cilium.io/sharing-cross-namespace: "*"
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.10
  clusterIPs: [10.96.0.10, "fd00:96::a"]
  ipFamilies: [IPv4, IPv6]
  ipFamilyPolicy: RequireDualStack
  externalIPs: [192.0.2.9]
  externalTrafficPolicy: Local
  internalTrafficPolicy: Local
  healthCheckNodePort: 32000
  loadBalancerIP: 198.51.100.6
  loadBalancerClass: io.cilium/l2-announcer
  loadBalancerSourceRanges: [203.0.113.0/24, "2001:db8::/32"]
  allocateLoadBalancerNodePorts: true
  publishNotReadyAddresses: true
  trafficDistribution: PreferClose
  selector: {app: web}
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  ports:
  - {name: http, port: 80, targetPort: 8080, nodePort: 30080, appProtocol: http}
  - {name: dns, port: 53, protocol: UDP, targetPort: dns}
  - {name: sctp, port: 5000, protocol: SCTP}
"""


def test_a_service_with_everything() -> None:
    service = parsed(SERVICE)
    assert service.key == ("shop", "web")
    assert service.type is ServiceType.LOAD_BALANCER
    assert service.cluster_ips == (ip_address("10.96.0.10"), ip_address("fd00:96::a"))
    assert service.families == (4, 6)
    assert service.external_ips == (ip_address("192.0.2.9"),)
    assert service.external_local
    assert service.internal_local
    assert service.health_check_port == 32000
    assert service.load_balancer_class == "io.cilium/l2-announcer"
    assert service.source_ranges == (ip_network("203.0.113.0/24"), ip_network("2001:db8::/32"))
    assert service.publish_not_ready
    assert service.distribution is Distribution.PREFER_CLOSE
    assert service.affinity == 60
    assert service.algorithm is Algorithm.MAGLEV
    assert service.maglev_size == 1021
    assert service.weights == {"10.0.0.1": 3, "web-2": 0}
    assert service.dsr is True
    assert service.exposed == {FrontendKind.CLUSTER_IP, FrontendKind.LOAD_BALANCER}
    requested = tuple(map(ip_address, ("198.51.100.6", "198.51.100.7", "2001:db8::7")))
    assert service.pool == Pool(requested, "front", ("*",))
    assert service.ports == (
        Port(80, Protocol.TCP, "http", 8080, 30080),
        Port(53, Protocol.UDP, "dns", "dns"),
        Port(5000, Protocol.SCTP, "sctp"),
    )


def service(spec: str, annotations: str = "") -> str:
    head = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n"
    return f"{head}{annotations}spec:\n" + "".join(f"  {line}\n" for line in spec.splitlines())


def test_what_is_not_said_has_kubernetes_defaults() -> None:
    made = parsed(service("clusterIP: 10.96.0.1\nports: [{port: 80}]\nsessionAffinity: ClientIP"))
    assert made.key == ("default", "web")
    assert made.type is ServiceType.CLUSTER_IP
    assert made.ports == (Port(80),)
    assert made.affinity == 10_800
    assert not made.internal_local
    assert not made.external_local
    assert made.algorithm is None
    assert parsed(service("clusterIP: None")).headless
    assert parsed(service("type: ExternalName\nexternalName: example.org")).type is ServiceType.EXTERNAL_NAME


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ("type: Balancer", "spec.type", "'Balancer'"),
        ("clusterIP: 10.96.0.300", "spec.clusterIP", "10.96.0.300"),
        ("clusterIP: 224.0.0.1", "spec.clusterIP", "single host"),
        ("clusterIPs: [10.0.0.1, 10.0.0.2]", "spec.clusterIPs", "per family"),
        ("ports: [{port: 0}]", "spec.ports[0].port", "0 is not a number"),
        ("ports: [{port: 80, protocol: ICMP}]", "spec.ports[0].protocol", "'ICMP'"),
        ("ports: [{port: 80}, {port: 81}]", "spec.ports[0].name", "needs a name"),
        ("ports: [{port: 80, name: a}, {port: 80, name: b}]", "spec.ports[1].port", "twice"),
        ('ports: [{port: 80, targetPort: "8080"}]', "spec.ports[0].targetPort", "without quotes"),
        ("externalTrafficPolicy: local", "spec.externalTrafficPolicy", "'local'"),
        ("loadBalancerSourceRanges: [10.0.0.0/40]", "spec.loadBalancerSourceRanges[0]", "10.0.0.0/40"),
        ("sessionAffinity: Cookie", "spec.sessionAffinity", "'Cookie'"),
        ("clusterip: 10.0.0.1", "spec.clusterip", "unknown field"),
        ("ipFamilies: [IPv5]", "spec.ipFamilies", "'IPv5'"),
        ("trafficDistribution: Near", "spec.trafficDistribution", "'Near'"),
    ],
)
def test_mistakes_are_named_with_their_field(spec: str, field: str, words: str) -> None:
    row = read(service(spec))
    assert not row.in_effect
    found = [problem for problem in row.problems if problem.where and problem.where.field == field]
    assert found, row.problems
    assert words in found[0].message
    assert found[0].where is not None
    assert found[0].where.line == 6


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("service.cilium.io/lb-algorithm", "fastest"),
        ("service.axoneme.io/weights", "10.0.0.1:3"),
        ("service.axoneme.io/weights", "web=-1"),
        ("service.axoneme.io/maglev-table-size", "1000"),
        ("service.cilium.io/forwarding-mode", "ipip"),
    ],
)
def test_mistakes_in_annotations_are_named(name: str, value: str) -> None:
    row = read(service("clusterIP: 10.0.0.1\nports: [{port: 80}]", f"  annotations: {{{name}: '{value}'}}\n"))
    assert [str(problem.where) for problem in row.problems] == [f"s.yaml:5 (metadata.annotations['{name}'])"]


SLICE = """\
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: web-abc
  namespace: shop
  labels: {kubernetes.io/service-name: web}
  annotations: {service.axoneme.io/weight: "4"}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: dns, port: 53, protocol: UDP, appProtocol: x}]
endpoints:
- addresses: [10.0.0.1]
  nodeName: one
  zone: a
  hostname: web-1
  hints: {forZones: [{name: a}, {name: b}], forNodes: [{name: one}]}
  targetRef: {kind: Pod, name: web-1, namespace: shop, uid: u}
- addresses: [10.0.0.2]
  conditions: {ready: false}
- addresses: [10.0.0.3]
  conditions: {ready: false, serving: true, terminating: true}
- addresses: [10.0.0.4]
  conditions: {ready: null}
"""


def test_a_slice() -> None:
    (made,) = parsed(SLICE)
    assert (made.namespace, made.service, made.family, made.weight) == ("shop", "web", 4, 4)
    assert made.ports == (SlicePort(8080, Protocol.TCP, "http"), SlicePort(53, Protocol.UDP, "dns"))
    first, unready, leaving, silent = made.endpoints
    assert first == Endpoint(
        (ip_address("10.0.0.1"),), node="one", zone="a", zones=("a", "b"), nodes=("one",), target="shop/web-1"
    )
    assert (unready.ready, unready.serving, unready.terminating) == (False, False, False)
    assert (leaving.ready, leaving.serving, leaving.terminating) == (False, True, True)
    assert silent.ready


def test_slices_that_mean_nobody() -> None:
    assert parsed(SLICE.replace("kubernetes.io/service-name", "other")) == ()
    assert parsed(SLICE.replace("addressType: IPv4", "addressType: FQDN")) == ()


def test_a_slice_with_an_address_of_another_family() -> None:
    row = read(SLICE.replace("10.0.0.2", "fd00::2"))
    assert [str(problem.where) for problem in row.problems] == ["s.yaml:17 (endpoints[1].addresses[0])"]


def test_endpoints_are_slices() -> None:
    found = parsed("""\
apiVersion: v1
kind: Endpoints
metadata: {name: web}
subsets:
- addresses: [{ip: 10.0.0.1, nodeName: one}, {ip: "fd00::1"}]
  notReadyAddresses: [{ip: 10.0.0.2}]
  ports: [{port: 80}]
""")
    assert [(one.family, one.service, len(one.endpoints)) for one in found] == [(4, "web", 2), (6, "web", 1)]
    assert not found[0].endpoints[1].ready


def test_a_pool() -> None:
    pool = parsed("""\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: blue}
spec:
  allowFirstLastIPs: "No"
  blocks:
  - {cidr: 192.0.2.0/29}
  - {start: 198.51.100.5, stop: 198.51.100.9}
  - {start: "2001:db8::1"}
  serviceSelector:
    matchLabels: {color: blue}
    matchExpressions: [{key: tier, operator: NotIn, values: [test]}]
""")
    assert pool.blocks == tuple(
        Block(ip_address(first), ip_address(last))
        for first, last in (
            ("192.0.2.1", "192.0.2.6"),
            ("198.51.100.5", "198.51.100.9"),
            ("2001:db8::1", "2001:db8::1"),
        )
    )
    assert pool.selector == (Requirement("color", "In", ("blue",)), Requirement("tier", "NotIn", ("test",)))
    assert pool.selector[1].holds({})


REDIRECT = """\
apiVersion: cilium.io/v2
kind: CiliumLocalRedirectPolicy
metadata: {name: dns, namespace: kube-system}
spec:
  skipRedirectFromBackend: true
  redirectFrontend:
    serviceMatcher: {serviceName: kube-dns, namespace: kube-system}
  redirectBackend:
    localEndpointSelector: {matchLabels: {k8s-app: node-dns}}
    toPorts: [{port: "53", name: dns, protocol: UDP}, {port: "53", name: dns-tcp, protocol: TCP}]
"""


def test_a_local_redirect_policy() -> None:
    policy = parsed(REDIRECT)
    assert policy.service == "kube-dns"
    assert policy.skip_backends
    assert policy.selector == (Requirement("k8s-app", "In", ("node-dns",)),)
    assert policy.backend_ports == (Port(53, Protocol.UDP, "dns"), Port(53, Protocol.TCP, "dns-tcp"))
    matcher = "addressMatcher: {ip: 169.254.169.254, toPorts: [{port: '80', protocol: TCP}]}"
    line = "serviceMatcher: {serviceName: kube-dns, namespace: kube-system}"
    row = read(REDIRECT.replace(line, matcher))
    assert [problem.message for problem in row.problems] == [
        "with several ports, each needs a name, here and in the frontend"
    ]


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        (
            "namespace: kube-system}\n  redirectB",
            "namespace: other}\n  redirectB",
            "serviceMatcher.namespace",
        ),
        ('port: "53"', "port: 53", "toPorts[0].port"),
        ("redirectFrontend", "redirectFront", "redirectFrontend"),
    ],
)
def test_mistakes_in_a_policy(old: str, new: str, field: str) -> None:
    row = read(REDIRECT.replace(old, new))
    assert not row.in_effect
    assert any(problem.where and str(problem.where.field).endswith(field) for problem in row.problems)


@pytest.mark.parametrize(
    ("kind", "spec", "place"),
    [
        ("Service", "clusterIP: 127.0.0.10, ports: []", "clusterIP"),
        ("Service", 'clusterIPs: [10.96.0.1, "::1"], ports: []', "clusterIPs"),
        ("Service", 'externalIPs: [192.0.2.1, "::ffff:127.0.0.1"], ports: []', "externalIPs[1]"),
        ("Service", "type: LoadBalancer, loadBalancerIP: 127.1.2.3, ports: []", "loadBalancerIP"),
        ("CiliumLoadBalancerIPPool", "blocks: [{cidr: 127.0.0.0/30}]", "blocks[0].cidr"),
        ("CiliumLoadBalancerIPPool", 'blocks: [{start: "::", stop: "::2"}]', "blocks[0].start"),
        (
            "CiliumLocalRedirectPolicy",
            'redirectFrontend: {addressMatcher: {ip: 127.0.0.1, toPorts: [{port: "53", protocol: UDP}]}}, '
            'redirectBackend: {localEndpointSelector: {}, toPorts: [{port: "53", protocol: UDP}]}',
            "redirectFrontend.addressMatcher.ip",
        ),
    ],
)
def test_no_service_has_a_loopback_address(kind: str, spec: str, place: str) -> None:
    """The kernel's key knows no namespace: it would be everybody's localhost."""
    version = "v1" if kind == "Service" else "cilium.io/v2"
    row = read(f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{{spec}}}\n")
    assert [str(one.where).partition("(spec.")[2] for one in row.problems] == [f"{place})"]
    assert row.parsed is None
