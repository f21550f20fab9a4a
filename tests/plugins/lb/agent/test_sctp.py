"""Real SCTP associations through a service, by a user-space stack: handshake, data both ways, shutdown."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from lb_agents import World
from lb_scenes import service, slices
from test_edge import CLIENT, CLIENTS_NODE, NODE, SERVER, connect

from axoneme.core.net import namespaces
from axoneme.core.testing.namespaces import Namespaces
from axoneme.core.testing.node import Node, Placed

pytestmark = pytest.mark.kernel

VIPS, PORT, BACKEND_PORT, NODE_PORT = ("10.96.0.36", "fd00:96::36"), 36412, 5000, 30036
PEER = Path(__file__).with_name("sctp_peer.py")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """A service with an SCTP port in front of another port of a workload, a client outside, and a server in the world."""
    values = {"plugins": {"enabled": ["lb"]}, "datapath": {"devices": ["clients", "servers"]}}
    with Node(values) as node, Namespaces() as netns:
        outside, far = netns.make("out"), netns.make("far")
        connect(node.netns, outside, "clients", CLIENTS_NODE, CLIENT)
        connect(node.netns, far, "servers", NODE, SERVER)
        node.start()
        made = World(node=node, netns=netns)
        made.workloads["outside"] = Placed(
            name="outside", netns=outside, ipv4=CLIENT[0], ipv6=CLIENT[1], row={}
        )
        made.workloads["far"] = Placed(name="far", netns=far, ipv4=SERVER[0], ipv6=SERVER[1], row={})
        backend = made.workload("backend")
        made.workload("client")
        ports = (
            f"ports: [{{port: {PORT}, protocol: SCTP, targetPort: {BACKEND_PORT}, nodePort: {NODE_PORT}}}]"
        )
        addresses = f'clusterIP: {VIPS[0]}, clusterIPs: [{VIPS[0]}, "{VIPS[1]}"]'
        text = service("mme", f"type: NodePort, {addresses}, ipFamilyPolicy: RequireDualStack, {ports}")
        for address in backend.addresses:
            text += slices("mme", [address], BACKEND_PORT, protocol="SCTP")
        node.resource("mme.yaml", text)
        for vip, address in zip(VIPS, backend.addresses, strict=True):
            made.until_used(f"[{vip}]:{PORT}" if ":" in vip else f"{vip}:{PORT}", address)
        yield made


@contextlib.contextmanager
def peer(world: World, where: str, role: str, address: str, port: int) -> Iterator[subprocess.Popen[str]]:
    netns = f"--net={namespaces.locate(world.workloads[where].netns)}"
    family = "6" if ":" in address else "4"
    arguments = ["nsenter", netns, sys.executable, str(PEER), role, family, address, str(port)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("way", ["cluster-ip", "node-port", "masqueraded"])
def test_an_association(world: World, way: str, family: int) -> None:
    client, server, address, port, real = {
        "cluster-ip": ("client", "backend", VIPS[family], PORT, BACKEND_PORT),
        "node-port": ("outside", "backend", CLIENTS_NODE[family], NODE_PORT, BACKEND_PORT),
        "masqueraded": ("client", "far", SERVER[family], 3868, 3868),
    }[way]
    own = world.workloads[server].addresses[family]
    with peer(world, server, "server", own, real) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline() == "ready\n"
        with peer(world, client, "client", address, port) as asking:
            said, _ = asking.communicate(timeout=20)
        assert (said, asking.returncode) == ("4\n", 0)
        assert serving.wait(20) == 0
