"""What people are shown of traffic is what the traffic does: translated connections, and why a backend gets nothing."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest
import wires
from lb_agents import PORT, World, place
from lb_scenes import service, slices

from axoneme.core.testing.namespaces import Namespaces, listen, within
from axoneme.core.testing.node import Node

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])]

NODE = ("192.0.2.2", "2001:db8:2::2")
OUTSIDE = ("192.0.2.50", "2001:db8:2::50")
#: On another node as far as this one knows.
FAR = {4: "10.99.0.1", 6: "fd00:99::1"}
SERVERS = tuple(f"web-{number}" for number in range(6))


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    values = {
        "plugins": {"enabled": ["lb"], "lb": {"zone": "a", "xdp": False}},
        "datapath": {"devices": ["uplink"]},
        "node": {"name": "here"},
    }
    with Node(values) as node, Namespaces() as netns:
        made = World(node=node, netns=netns)
        made.hosts["outside"] = netns.make("out")
        wires.cable(node.netns, "uplink", NODE, made.hosts["outside"], "cable", OUTSIDE)
        node.start()
        for name in SERVERS:
            made.server(name)
        made.workload("client")
        yield made


@pytest.mark.parametrize("udp", [False, True], ids=["tcp", "udp"])
def test_translations_are_listed_as_both_ends_see_them(world: World, family: int, udp: bool) -> None:
    at, protocol = int(family == 6), "UDP" if udp else "TCP"
    server = within(
        world.hosts["outside"], lambda: listen(socket.SOCK_DGRAM if udp else socket.SOCK_STREAM, 7)
    )
    server.settimeout(5)
    with server, wires.connected(world.workloads["client"].netns, OUTSIDE[at], 7, udp=udp) as client:
        client.send(b"hello")
        if udp:
            _, (host, port, *_) = server.recvfrom(10)
        else:
            end, (host, port, *_) = server.accept()
            end.close()
        assert wires.plain(host) == NODE[at], "the workload is masqueraded"
        own, other, seen = place(*client.getsockname()[:2]), place(OUTSIDE[at], 7), place(NODE[at], port)
        wanted = ("bpf", "nat", "list", "--address", own, "--protocol", protocol.lower())
        lines = world.node.axoneme(*wanted).stdout.splitlines()
        assert [re.sub(r"=\d+sec", "=Nsec", line) for line in lines] == [
            f"{protocol} OUT {own} -> {other} XLATE_SRC {seen} Created=Nsec ago NeedsCT=1",
            f"{protocol} IN {other} -> {seen} XLATE_DST {own} Created=Nsec ago NeedsCT=1",
        ]
        records = json.loads(world.node.axoneme(*wanted, "-o", "json").stdout)
        assert [(one["Value"]["Addr"], one["Value"]["Port"]) for one in records] == [
            (NODE[at], port), client.getsockname()[:2],
        ]  # fmt: skip
        assert own in world.node.axoneme("bpf", "ct", "list", "global", "--address", own).stdout


def test_why_a_backend_gets_nothing(world: World, family: int) -> None:
    """All of them would answer; who is said to be used does, and nobody else."""
    near, other, late, going, gone, drained = (
        world.workloads[name].addresses[family == 6] for name in SERVERS
    )
    ending = "conditions: {{ready: false, serving: {}, terminating: true}}"
    rows = {
        "zones": {
            f"{near} hints: {{forZones: [{{name: a}}]}}": "used",
            f"{other} hints: {{forZones: [{{name: b}}]}}": "meant for other zones",
            f"{late} conditions: {{ready: false}}": "not ready",
            f"{going} {ending.format('true')}": "terminating, others are ready",
            f"{gone} {ending.format('false')}": "terminating, does not serve any more",
            drained: "its weight is 0",
        },
        "nodes": {
            f"{near} hints: {{forNodes: [{{name: here}}]}}": "used",
            f"{other} hints: {{forNodes: [{{name: there}}]}}": "meant for other nodes",
        },
        "local": {near: "used", FAR[family]: "on another node; the traffic policy is Local"},
    }
    more = {"local": ", internalTrafficPolicy: Local"}
    for number, (name, backends) in enumerate(rows.items()):
        vip = f"fd00:96::6:{number}" if family == 6 else f"10.96.6.{number}"
        ports = "ports: [{name: t, port: 80}, {name: u, port: 80, protocol: UDP}]"
        annotations = f"{{service.axoneme.io/weights: '{drained}=0'}}"
        text = service(name, f'clusterIP: "{vip}", {ports}{more.get(name, "")}', annotations=annotations)
        text += slices(name, list(backends), PORT, port_name="t")
        udp = slices(name, list(backends), PORT, port_name="u", protocol="UDP")
        world.resource(f"{name}.yaml", text + udp.replace(f"name: {name}-", f"name: {name}-u", 1))
        world.until_used(place(vip, 80), near)
        shown = world.node.axoneme("service", "explain", place(vip, 80)).stdout.splitlines()
        for backend, why in backends.items():
            address = place(backend.partition(" ")[0], PORT)
            lines = [one for one in shown if f"{address}/" in one]
            assert len(lines) == 2, "TCP and UDP"
            for line in lines:
                assert line.rstrip().endswith(f" {why}"), line
                assert (line.split()[0] != "0") == (why == "used"), line
        for is_udp in (False, True):
            assert world.spread("client", vip, 80, 8, udp=is_udp) == {"web-0": 8}
    for name in SERVERS:
        assert world.ask("client", world.workloads[name].addresses[family == 6], PORT) == name
