"""What services promise, with real packets, seen from both ends."""

from __future__ import annotations

import json
import re
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from lb_agents import NODE_ADDRESSES, PORT, World, world_of
from lb_scenes import service, slices

from axoneme.core.testing.namespaces import within

pytestmark = pytest.mark.kernel

SERVERS = ("web-0", "web-1", "web-2")
#: An address of nobody, on another node as far as this one knows.
FAR = "10.99.0.1"


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


def addresses(world: World, *names: str, family: int = 4) -> list[str]:
    return [world.workloads[name].addresses[family == 6] for name in names]


def test_a_cluster_ip_by_both_families_and_protocols(world: World) -> None:
    ports = (
        "ports: [{name: t, port: 80, targetPort: 8080}, {name: u, port: 80, protocol: UDP, targetPort: 8080}]"
    )
    world.resource("plain.yaml", service("plain", f"{ips(1)}, selector: {{app: web}}, {ports}"))
    for at, vip in enumerate(dual(1)):
        place = f"[{vip}]:80" if at else f"{vip}:80"
        world.until_used(place, *addresses(world, *SERVERS, family=6 if at else 4))
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
            place = f"[{vip}]:80" if at else f"{vip}:80"
            world.until_used(place, *addresses(world, *SERVERS, family=6 if at else 4))
            assert set(world.spread("client", vip, 80, 60)) == set(SERVERS)


def test_a_client_keeps_its_backend_as_long_as_it_is_one(world: World) -> None:
    spec = f"clusterIP: {dual(6)[0]}, sessionAffinity: ClientIP, ports: [{{port: 80}}]"
    whole = service("sticky", spec) + slices("sticky", addresses(world, *SERVERS), PORT)
    world.resource("sticky.yaml", whole)
    world.until_used(f"{dual(6)[0]}:80", *addresses(world, *SERVERS))
    (kept,) = world.spread("client", dual(6)[0], 80, 8)
    (others,) = world.spread("other", dual(6)[0], 80, 8)
    assert kept != others, "round robin: the next client has the next backend"
    left = [name for name in SERVERS if name != kept]
    world.resource("sticky.yaml", service("sticky", spec) + slices("sticky", addresses(world, *left), PORT))
    world.until_used(f"{dual(6)[0]}:80", *addresses(world, *left))
    (now,) = world.spread("client", dual(6)[0], 80, 8)
    assert now in left
    assert set(world.spread("other", dual(6)[0], 80, 8)) == {others}, "whose backend is still there keeps it"


def test_a_connection_outlives_its_backend_s_termination_and_new_ones_go_elsewhere(world: World) -> None:
    vip, spec = dual(7)[0], f"clusterIP: {dual(7)[0]}, ports: [{{port: 80, targetPort: 7}}]"
    netns = {name: world.workloads[name].netns for name in ("web-0", "web-1")}
    listening = {name: within(netns[name], lambda: socket.create_server(("", 7))) for name in netns}
    text = service("grace", spec) + slices("grace", addresses(world, "web-0"), 7)
    world.resource("grace.yaml", text)
    world.until_used(f"{vip}:80", *addresses(world, "web-0"))
    client_netns = world.workloads["client"].netns
    client = within(client_netns, lambda: socket.create_connection((vip, 80), 5))
    served, peer = listening["web-0"].accept()
    assert peer[0] == world.workloads["client"].ipv4
    leaving = f"{addresses(world, 'web-0')[0]} conditions: {{ready: false, serving: true, terminating: true}}"
    world.resource(
        "grace.yaml", service("grace", spec) + slices("grace", [leaving, *addresses(world, "web-1")], 7)
    )
    world.until_used(f"{vip}:80", *addresses(world, "web-1"))
    new = within(client_netns, lambda: socket.create_connection((vip, 80), 5))
    listening["web-1"].settimeout(5)
    listening["web-1"].accept()[0].close()
    client.sendall(b"still here")
    served.settimeout(5)
    assert served.recv(64) == b"still here"
    served.sendall(b"yes")
    client.settimeout(5)
    assert client.recv(64) == b"yes"
    world.resource("grace.yaml", service("grace", spec) + slices("grace", [leaving], 7))
    world.until_used(f"{vip}:80", *addresses(world, "web-0"))
    last = within(client_netns, lambda: socket.create_connection((vip, 80), 5))
    listening["web-0"].settimeout(5)
    assert listening["web-0"].accept()[1][0] == peer[0], "nobody else is left: it serves"
    for one in (client, served, new, last, *listening.values()):
        one.close()


def test_policies_of_traffic_and_places(world: World) -> None:
    """internalTrafficPolicy, hints, publishNotReadyAddresses: each leaves exactly one of two."""
    here = addresses(world, "web-0")[0]
    cases = {
        "internal": ("internalTrafficPolicy: Local", [here, FAR]),
        "hinted": (
            "",
            [f"{here} hints: {{forZones: [{{name: a}}]}}", f"{FAR} hints: {{forZones: [{{name: b}}]}}"],
        ),
        "near": ("trafficDistribution: PreferClose", [f"{here} zone: a", f"{FAR} zone: b"]),
        "same": ("trafficDistribution: PreferSameNode", [here, FAR]),
        "early": ("publishNotReadyAddresses: true", [f"{here} conditions: {{ready: false}}"]),
        "late": ("", [here, f"{FAR} conditions: {{ready: false}}"]),
    }
    for number, (name, (spec, backends)) in enumerate(cases.items(), 20):
        vip = dual(number)[0]
        more = f", {spec}" if spec else ""
        text = service(name, f"clusterIP: {vip}, ports: [{{port: 80}}]{more}") + slices(name, backends, PORT)
        world.resource(f"{name}.yaml", text)
    for number in range(20, 20 + len(cases)):
        vip = dual(number)[0]
        world.until_used(f"{vip}:80", here)
        assert world.spread("client", vip, 80, 4) == {"web-0": 4}


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
    for place in (
        *fronts["LoadBalancer"],
        *fronts["ExternalIPs"],
        *(f"[{one}]:30080" for one in NODE_ADDRESSES),
    ):
        host, _, port = place.rpartition(":")
        assert world.spread("client", host.strip("[]"), int(port), 3) == dict.fromkeys(SERVERS, 1), place


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


def test_local_redirects(world: World) -> None:
    base = "apiVersion: cilium.io/v2\nkind: CiliumLocalRedirectPolicy\nmetadata: {{name: {}}}\nspec:\n"
    back = "  redirectBackend: {localEndpointSelector: {matchLabels: {app: web}}, toPorts: [{port: '8080', protocol: TCP}]}\n"
    world.resource(
        "metadata.yaml",
        base.format("metadata")
        + "  redirectFrontend: {addressMatcher: {ip: 169.254.169.254, toPorts: [{port: '80', protocol: TCP}]}}\n"
        + back,
    )
    world.resource(
        "dns.yaml",
        service("dns", f"clusterIP: {dual(12)[0]}, ports: [{{port: 53}}]")
        + slices("dns", [FAR], 53)
        + base.format("cache")
        + "  redirectFrontend: {serviceMatcher: {serviceName: dns, namespace: default}}\n"
        + back,
    )
    world.until_used("169.254.169.254:80", *addresses(world, *SERVERS))
    assert world.spread("client", "169.254.169.254", 80, 3) == dict.fromkeys(SERVERS, 1)
    assert world.spread("web-0", "169.254.169.254", 80, 3) == dict.fromkeys(SERVERS, 1)
    skip = "spec:\n  skipRedirectFromBackend: true\n"
    text = (world.node.resources / "metadata.yaml").read_text()
    world.resource("metadata.yaml", text.replace("spec:\n", skip))
    world.node.until(
        lambda: world.ask("web-0", "169.254.169.254", 80, timeout=0.3) == "", "backends are let through"
    )
    assert world.spread("client", "169.254.169.254", 80, 3) == dict.fromkeys(SERVERS, 1)
    world.until_used(f"{dual(12)[0]}:53", *addresses(world, *SERVERS))
    assert world.spread("client", dual(12)[0], 53, 3) == dict.fromkeys(SERVERS, 1)


def test_a_service_without_a_file(world: World) -> None:
    one, other = addresses(world, "web-0", "web-1")
    vip = dual(13)[0]
    world.node.axoneme(
        "service", "add", "extra", "--vip", f"{vip}:81", "--backend", f"{one}:8080=2", "--backend", f"{other}:8080"
    )  # fmt: skip
    world.until_used(f"{vip}:81", one, other)
    assert world.spread("client", vip, 81, 6) == {"web-0": 4, "web-1": 2}
    explained = world.node.axoneme("service", "explain", f"{vip}:81").stdout
    assert "round-robin over 3 slots" in explained
    world.node.axoneme("service", "delete", "extra")
    world.node.until(
        lambda: world.node.axoneme("service", "get", "extra", code=None).returncode, "it is gone"
    )
    assert world.ask("client", vip, 81, timeout=0.3) == ""


def test_the_busy_one_gets_fewer_connections(world: World) -> None:
    """least-connections: while one backend has many connections, new ones go to the other."""
    vip = dual(14)[0]
    spec = f"clusterIP: {vip}, ports: [{{port: 80, targetPort: 9}}]"
    annotations = "{service.cilium.io/lb-algorithm: least-connections}"
    pair = ("web-0", "web-1")
    netns = {name: world.workloads[name].netns for name in pair}
    listening = {
        name: within(netns[name], lambda: socket.create_server(("", 9), backlog=512)) for name in pair
    }
    world.resource(
        "least.yaml",
        service("least", spec, annotations=annotations) + slices("least", addresses(world, "web-0"), 9),
    )
    world.until_used(f"{vip}:80", *addresses(world, "web-0"))
    client = world.workloads["client"].netns

    def connect(count: int) -> list[socket.socket]:
        return within(client, lambda: [socket.create_connection((vip, 80), 5) for _ in range(count)])

    held = connect(200)
    world.resource(
        "least.yaml",
        service("least", spec, annotations=annotations) + slices("least", addresses(world, *pair), 9),
    )
    world.until_used(f"{vip}:80", *addresses(world, *pair))
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


def test_a_health_check_port_answers_on_the_node(world: World) -> None:
    text = service(
        "checked",
        f"type: LoadBalancer, clusterIP: {dual(15)[0]}, externalTrafficPolicy: Local, healthCheckNodePort: 32015, "
        "selector: {app: web}, ports: [{port: 80, targetPort: 8080}]",
    )
    world.resource("checked.yaml", text)

    def answer() -> bytes:
        try:
            with within(world.node.netns, lambda: socket.create_connection(("127.0.0.1", 32015), 5)) as one:
                one.sendall(b"GET / HTTP/1.0\r\n\r\n")
                return one.recv(4096)
        except ConnectionRefusedError:
            return b""

    got = world.node.until(answer, "the health check")
    assert got.startswith(b"HTTP/1.1 200")
    assert json.loads(got.partition(b"\r\n\r\n")[2])["localEndpoints"] == 2 * len(SERVERS)


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
