"""What services promise, with real packets, seen from both ends."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from lb_agents import NODE_ADDRESSES, PORT, World, place, world_of
from lb_scenes import service, slices

from axoneme.core.testing.namespaces import within

pytestmark = pytest.mark.kernel

SERVERS = ("web-0", "web-1", "web-2")
#: Addresses of nobody, on another node as far as this one knows.
FAR = {4: "10.99.0.1", 6: "fd00:99::1"}
FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Three servers and two clients for all tests; each test has services of its own."""
    with world_of(algorithm="round-robin", zone="a") as made:
        for name in SERVERS:
            made.server(name, app="web")
        made.workload("client", app="client")
        made.workload("other", app="client")
        yield made


def dual(number: int) -> tuple[str, str]:
    """ClusterIPs that no other test uses."""
    return f"10.96.1.{number}", f"fd00:96::1:{number}"


def ips(number: int) -> str:
    four, six = dual(number)
    return f'clusterIPs: [{four}, "{six}"]'


def vip_of(number: int, family: int) -> str:
    return dual(number)[family == 6]


def addresses(world: World, *names: str, family: int = 4) -> list[str]:
    return [world.workloads[name].addresses[family == 6] for name in names]


def test_a_cluster_ip_by_both_families_and_protocols(world: World) -> None:
    ports = (
        "ports: [{name: t, port: 80, targetPort: 8080}, {name: u, port: 80, protocol: UDP, targetPort: 8080}]"
    )
    world.resource("plain.yaml", service("plain", f"{ips(1)}, selector: {{app: web}}, {ports}"))
    for at, vip in enumerate(dual(1)):
        world.until_used(place(vip, 80), *addresses(world, *SERVERS, family=6 if at else 4))
        for udp in (False, True):
            assert world.spread("client", vip, 80, 9, udp=udp) == dict.fromkeys(SERVERS, 3)
            protocol = "udp" if udp else "tcp"
            client = world.workloads["client"].addresses[at]
            assert {world.seen(name, protocol) for name in SERVERS} == {client}, "the client is who it is"


def test_several_ports_and_named_ones(world: World) -> None:
    ports = {"ports": {"web": {"port": PORT, "protocol": "TCP"}}}
    world.node.call("workload.add", name="named", labels={"app": "named"}, **ports)
    row = world.node.call("endpoint.get", name="named")
    world.netns.serve_tcp(row["netns"], PORT, lambda _: b"named")
    world.netns.serve_tcp(row["netns"], 9090, lambda _: b"admin")
    text = service(
        "named",
        f"{ips(2)}, selector: {{app: named}}, "
        "ports: [{name: web, port: 80, targetPort: web}, {name: admin, port: 81, targetPort: 9090}]",
    )
    world.resource("named.yaml", text)
    world.until_used(f"{dual(2)[0]}:80", row["ipv4"])
    for vip in dual(2):
        assert [world.ask("client", vip, port) for port in (80, 81)] == ["named", "admin"]
    assert world.ask("client", dual(2)[0], 82, timeout=0.3) == "", "no service there, and nobody else"
    drops = world.node.axoneme("datapath", "counters").stdout
    assert "SERVICE_BACKEND_NOT_FOUND" in drops


def test_weights_and_drained_backends(world: World) -> None:
    weights = "{service.axoneme.io/weights: 'web-0=2, web-1=0'}"
    text = service(
        "heavy",
        f"{ips(3)}, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]",
        annotations=weights,
    )
    world.resource("heavy.yaml", text)
    world.until_used(f"{dual(3)[0]}:80", *addresses(world, "web-0", "web-2"))
    for vip in dual(3):
        assert world.spread("client", vip, 80, 9) == {"web-0": 6, "web-2": 3}


def test_maglev_spreads_and_random_too(world: World) -> None:
    for number, name in ((4, "maglev"), (5, "random")):
        annotations = f"{{service.cilium.io/lb-algorithm: {name}}}"
        text = service(
            name,
            f"{ips(number)}, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]",
            annotations=annotations,
        )
        world.resource(f"{name}.yaml", text)
        for at, vip in enumerate(dual(number)):
            world.until_used(place(vip, 80), *addresses(world, *SERVERS, family=6 if at else 4))
            assert set(world.spread("client", vip, 80, 60)) == set(SERVERS)


@FAMILIES
def test_policies_of_traffic_and_places(world: World, family: int) -> None:
    """internalTrafficPolicy, hints, trafficDistribution, publishNotReadyAddresses: each leaves exactly one of two."""
    here, far = addresses(world, "web-0", family=family)[0], FAR[family]
    cases = {
        "internal": ("internalTrafficPolicy: Local", [here, far]),
        "hinted": (
            "",
            [f"{here} hints: {{forZones: [{{name: a}}]}}", f"{far} hints: {{forZones: [{{name: b}}]}}"],
        ),
        "near": ("trafficDistribution: PreferClose", [f"{here} zone: a", f"{far} zone: b"]),
        "same": ("trafficDistribution: PreferSameNode", [here, far]),
        "zone": ("trafficDistribution: PreferSameZone", [f"{here} zone: a", f"{far} zone: b"]),
        "node": (
            "",
            [
                f"{here} hints: {{forNodes: [{{name: here}}]}}",
                f"{far} hints: {{forNodes: [{{name: there}}]}}",
            ],
        ),
        "early": ("publishNotReadyAddresses: true", [f"{here} conditions: {{ready: false}}"]),
        "late": ("", [here, f"{far} conditions: {{ready: false}}"]),
    }
    vips = {name: vip_of(20 + number, family) for number, name in enumerate(cases)}
    ports = "ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]"
    for name, (spec, backends) in cases.items():
        text = service(name, f'clusterIP: "{vips[name]}", {ports}{", " if spec else ""}{spec}')
        text += slices(name, backends, PORT, port_name="t")
        text += slices(name, backends, PORT, port_name="u", protocol="UDP").replace(f"{name}-", f"{name}-u")
        world.resource(f"{name}.yaml", text)
    for name, vip in vips.items():
        world.until_used(place(vip, 80), here)
        for udp in (False, True):
            assert world.spread("client", vip, 80, 4, udp=udp) == {"web-0": 4}, name


@FAMILIES
def test_nobody_here_is_nobody_where_only_the_node_s_own_serve(world: World, family: int) -> None:
    vip = vip_of(30, family)
    text = service("alone", f'clusterIP: "{vip}", internalTrafficPolicy: Local, ports: [{{port: 80}}]')
    world.resource("alone.yaml", text + slices("alone", [FAR[family]], PORT))
    world.until_used(place(vip, 80))
    assert world.ask("client", vip, 80, timeout=0.3) == ""
    assert "SERVICE_BACKEND_NOT_FOUND" in world.node.axoneme("datapath", "counters").stdout


POOL = """\
apiVersion: cilium.io/v2
kind: CiliumLoadBalancerIPPool
metadata: {name: blue}
spec: {blocks: [{cidr: 198.51.100.0/28}, {cidr: "2001:db8:5::/64"}]}
"""


def test_node_ports_and_addresses_from_pools_from_within(world: World) -> None:
    world.resource("pool.yaml", POOL)
    text = service(
        "front",
        f"type: LoadBalancer, {ips(9)}, selector: {{app: web}}, externalIPs: [203.0.113.9], "
        "ports: [{port: 80, targetPort: 8080, nodePort: 30080}]",
    )
    world.resource("front.yaml", text)
    world.until_used(f"{NODE_ADDRESSES[0]}:30080", *addresses(world, *SERVERS))
    fronts = {row["type"]: [] for row in world.service("front")}
    for row in world.service("front"):
        fronts[row["type"]].append(row["frontend"].rpartition("/")[0])
    assert fronts["LoadBalancer"] == ["198.51.100.0:80", "[2001:db8:5::]:80"]
    for front in (
        *fronts["LoadBalancer"],
        *fronts["ExternalIPs"],
        *(f"[{one}]:30080" for one in NODE_ADDRESSES),
    ):
        host, _, port = front.rpartition(":")
        assert world.spread("client", host.strip("[]"), int(port), 3) == dict.fromkeys(SERVERS, 1), front


def test_a_workload_reaches_itself_through_its_service(world: World) -> None:
    text = service("self", f"{ips(11)}, ports: [{{port: 80}}]")
    text += slices("self", addresses(world, "web-0"), PORT) + slices(
        "self", addresses(world, "web-0", family=6), PORT
    )
    world.resource("self.yaml", text)
    world.until_used(f"[{dual(11)[1]}]:80", *addresses(world, "web-0", family=6))
    for vip in dual(11):
        for _ in range(2):
            assert world.ask("web-0", vip, 80) == "web-0"


@FAMILIES
def test_local_redirects(world: World, family: int) -> None:
    base = "apiVersion: cilium.io/v2\nkind: CiliumLocalRedirectPolicy\nmetadata: {{name: {}}}\nspec:\n"
    ports = '[{{name: t, port: "{0}", protocol: TCP}}, {{name: u, port: "{0}", protocol: UDP}}]'
    back = f"  redirectBackend: {{localEndpointSelector: {{matchLabels: {{app: web}}}}, toPorts: {ports.format(PORT)}}}\n"
    metadata, dns = {4: "169.254.169.254", 6: "fd00:ec2::254"}[family], vip_of(12, family)
    matcher = f'addressMatcher: {{ip: "{metadata}", toPorts: {ports.format(80)}}}'
    text = base.format("metadata") + f"  redirectFrontend: {{{matcher}}}\n" + back
    world.resource("metadata.yaml", text)
    far = slices("dns", [FAR[family]], 53, port_name="t")
    far += slices("dns", [FAR[family]], 53, port_name="u", protocol="UDP").replace(
        "name: dns-", "name: dns-u", 1
    )
    world.resource(
        "dns.yaml",
        service("dns", f'clusterIP: "{dns}", ports: {ports.format(53)}'.replace('"53"', "53"))
        + far
        + base.format("cache")
        + "  redirectFrontend: {serviceMatcher: {serviceName: dns, namespace: default}}\n"
        + back,
    )
    servers = addresses(world, *SERVERS, family=family)
    each = dict.fromkeys(SERVERS, 1)
    for front in ((metadata, 80), (dns, 53)):
        world.until_used(place(*front), *servers)
        for udp in (False, True):
            assert world.spread("client", *front, 3, udp=udp) == each
            assert world.spread("web-0", *front, 3, udp=udp) == each
    world.resource("metadata.yaml", text.replace("spec:\n", "spec:\n  skipRedirectFromBackend: true\n"))
    world.node.until(lambda: world.ask("web-0", metadata, 80, timeout=0.3) == "", "backends are let through")
    assert world.ask("web-0", metadata, 80, udp=True, timeout=0.3) == ""
    for udp in (False, True):
        assert world.spread("client", metadata, 80, 3, udp=udp) == each
    udp_only = 'serviceName: dns, namespace: default, toPorts: [{name: u, port: "53", protocol: UDP}]'
    world.resource(
        "dns.yaml",
        service("dns", f'clusterIP: "{dns}", ports: {ports.format(53)}'.replace('"53"', "53"))
        + slices("dns", [servers[0]], PORT, port_name="t")
        + base.format("cache")
        + f"  redirectFrontend: {{serviceMatcher: {{{udp_only}}}}}\n"
        + back,
    )
    world.node.until(
        lambda: world.spread("client", dns, 53, 3) == {SERVERS[0]: 3}, "what no policy names is the service's"
    )
    assert world.spread("client", dns, 53, 3, udp=True) == each


@FAMILIES
def test_a_service_without_a_file(world: World, family: int) -> None:
    backends = addresses(world, "web-0", "web-1", family=family)
    vip = vip_of(13, family)
    first, second = (place(one, PORT) for one in backends)
    world.node.axoneme(
        "service", "add", "extra", "--vip", place(vip, 81), "--backend", f"{first}=2", "--backend", second
    )  # fmt: skip
    world.until_used(place(vip, 81), *backends)
    assert world.spread("client", vip, 81, 6) == {"web-0": 4, "web-1": 2}
    explained = world.node.axoneme("service", "explain", place(vip, 81)).stdout
    assert "round-robin over 3 slots" in explained
    world.node.axoneme("service", "delete", "extra")
    world.node.until(
        lambda: world.node.axoneme("service", "get", "extra", code=None).returncode, "it is gone"
    )
    assert world.ask("client", vip, 81, timeout=0.3) == ""


@FAMILIES
def test_the_busy_one_gets_fewer_connections(world: World, family: int) -> None:
    """least-connections: while one backend has many connections, new ones go to the other."""
    vip, pair = vip_of(14, family), ("web-0", "web-1")
    listening = {
        name: within(
            world.workloads[name].netns,
            lambda: socket.create_server(
                ("::" if family == 6 else "", 9),
                backlog=512,
                family=socket.AF_INET6 if family == 6 else socket.AF_INET,
            ),
        )
        for name in pair
    }
    spec = f'clusterIP: "{vip}", ports: [{{port: 80, targetPort: 9}}]'
    annotations = "{service.cilium.io/lb-algorithm: least-connections}"

    def behind(*names: str) -> None:
        backends = addresses(world, *names, family=family)
        world.resource(
            "least.yaml", service("least", spec, annotations=annotations) + slices("least", backends, 9)
        )
        world.until_used(place(vip, 80), *backends)

    def connect(count: int) -> list[socket.socket]:
        client = world.workloads["client"].netns
        return within(client, lambda: [socket.create_connection((vip, 80), 5) for _ in range(count)])

    behind("web-0")
    held = connect(200)
    behind(*pair)
    held += connect(200)
    counts = Counter(one.getpeername()[0] for one in held)
    assert counts == {vip: 400}, "the application sees the service"
    for one in listening.values():
        one.setblocking(False)
    got = {name: accepted(listening[name]) for name in pair}
    assert got["web-0"] + got["web-1"] == 400
    assert got["web-1"] > 125, "three of four, since two are looked at; by chance it would be 100"
    for one in (*held, *listening.values()):
        one.close()


def accepted(listening: socket.socket) -> int:
    count = 0
    try:
        while True:
            listening.accept()[0].close()
            count += 1
    except BlockingIOError:
        return count


def checked(world: World, number: int, ips: str) -> None:
    """A service with a health check at the port 32000 + number."""
    spec = (
        f"type: LoadBalancer, {ips}, externalTrafficPolicy: Local, healthCheckNodePort: {32000 + number}, "
        "selector: {app: checked}, ports: [{port: 80, targetPort: 8080}]"
    )
    world.resource(f"checked-{number}.yaml", service(f"checked-{number}", spec))


def give(world: World, address: str) -> None:
    """One more address for the node itself."""
    from pyroute2 import NetNS

    with NetNS(world.node.netns) as node:
        node.addr("add", index=1, address=address, prefixlen=128 if ":" in address else 32)


def health(world: World, address: str, number: int) -> tuple[int, int]:
    """The status, and how many backends there are; (0, 0) while nobody listens."""

    def answer() -> tuple[int, int]:
        client = http.client.HTTPConnection(address, 32000 + number, timeout=5)
        try:
            client.request("GET", "/")
            got = client.getresponse()
            content = json.loads(got.read())
        except ConnectionRefusedError:
            return 0, 0
        finally:
            client.close()
        count = content["localEndpoints"]
        name = {"namespace": "default", "name": f"checked-{number}"}
        assert content == {"service": name, "localEndpoints": count, "serviceProxyHealthy": True}
        assert got.headers["Content-Type"] == "application/json"
        assert got.headers["X-Content-Type-Options"] == "nosniff"
        assert got.headers["X-Load-Balancing-Endpoint-Weight"] == str(count)
        return got.status, count

    return within(world.node.netns, answer)


def test_a_health_check_port_answers_on_the_node(world: World) -> None:
    """By each family of a service, how many of this node's workloads are behind it; by the other one, as by the first."""
    placed = [world.workload(f"checked-{number}", app="checked") for number in range(2)]
    checked(world, 15, ips(15))
    checked(world, 17, f"clusterIP: {dual(17)[0]}")
    for address in (own := ("192.0.2.78", "2001:db8::78")):
        give(world, address)
    askers = ("127.0.0.1", "::1", *own)
    for number in (15, 17):
        for address in askers:
            world.node.until(lambda: health(world, address, number) == (200, 2), "both are here")  # noqa: B023
    text = slices(
        "checked-15", [placed[0].ipv4, FAR[4], f"{placed[1].ipv4} conditions: {{ready: false}}"], PORT
    )
    text += slices(
        "checked-15",
        [f"{placed[0].ipv6} conditions: {{ready: false, serving: true, terminating: true}}"],
        PORT,
    )
    world.resource("behind.yaml", text + slices("checked-17", [FAR[4]], PORT))
    expected = {15: [(200, 1), (503, 0)] * 2, 17: [(503, 0)] * 4}
    for number, answers in expected.items():
        for address, wanted in zip(askers, answers, strict=True):
            world.node.until(lambda: health(world, address, number) == wanted, f"{address}: {wanted}")  # noqa: B023


def test_what_people_are_shown(world: World) -> None:
    world.resource("pool.yaml", POOL)
    text = service(
        "shown",
        f"type: LoadBalancer, {ips(16)}, selector: {{app: web}}, externalIPs: [203.0.113.16], "
        "ports: [{name: a, port: 80, targetPort: 8080, nodePort: 30016}, {name: b, port: 80, protocol: UDP}]",
        annotations="{service.cilium.io/lb-algorithm: maglev}",
    )
    world.resource("shown.yaml", text)
    vip = dual(16)[0]
    world.until_used(f"{vip}:80/tcp", *addresses(world, *SERVERS))
    models = json.loads(world.node.axoneme("service", "list", "-o", "json").stdout)
    assert all(one["spec"]["id"] for one in models if "realized" in one["status"])
    assert {one["spec"]["flags"]["type"] for one in models} >= {
        "ClusterIP",
        "LoadBalancer",
        "NodePort",
        "ExternalIPs",
    }
    table = world.node.axoneme("service", "list").stdout.splitlines()
    assert table[0].split() == ["ID", "Frontend", "Service", "Type", "Backend"]
    assert world.ask("client", vip, 80) in SERVERS
    lines = world.node.axoneme("bpf", "ct", "list", "global", "--protocol", "tcp").stdout.splitlines()
    assert all(
        re.match(r"TCP (OUT|IN|SVC) \S+ -> \S+ expires=\d+ Packets=\d+ Bytes=", line) for line in lines
    )
    assert any(f" -> {vip}:80 " in line and line.startswith("TCP SVC ") for line in lines)
    held = json.loads(world.node.axoneme("bpf", "lb", "list", "-o", "json").stdout)
    assert {f"{vip}:80/TCP (0)", f"{vip}:80/UDP (0)"} <= held.keys()
    tables = json.loads(world.node.axoneme("bpf", "lb", "maglev", "list", "-o", "json").stdout)
    assert {len(one[0].split()) for one in tables.values()} == {16_381}
    for arguments in (("--backends",), ("--frontends",), ("--source-ranges",)):
        world.node.axoneme("bpf", "lb", "list", *arguments)
    assert "198.51.100.0" in world.node.axoneme("lb", "pool", "list").stdout
    assert world.node.problems() == []
