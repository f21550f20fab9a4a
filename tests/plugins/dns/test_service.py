"""The server of names as a service: workloads ask its address, and the proxy what is behind it."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

import dns.message
import dns.query
import dns.rcode
import pytest
from places import Place, place

from axoneme.core.testing.namespaces import within

pytestmark = pytest.mark.kernel

VIP, VIP6 = "10.96.0.10", "fd00:96::a"
SERVICE = f"""
apiVersion: v1
kind: Service
metadata: {{name: names, namespace: default}}
spec:
  clusterIP: {VIP}
  clusterIPs: ["{VIP}", "{VIP6}"]
  ipFamilyPolicy: PreferDualStack
  ipFamilies: [IPv4, IPv6]
  selector: {{app: names}}
  ports: [{{name: udp, port: 53, protocol: UDP}}, {{name: tcp, port: 53, protocol: TCP}}]
"""


def ask(there: Place, address: str, name: str, *, tcp: bool = False) -> dns.message.Message:
    query, how = dns.message.make_query(name, "A"), dns.query.tcp if tcp else dns.query.udp
    return within(there.client.netns, lambda: how(query, address, timeout=2))


def ask_by_packet(there: Place, name: str) -> tuple[dns.message.Message, str]:
    """By a raw socket, which no hook of sockets translates; returns the answer and whom it came from."""
    query = dns.message.make_query(name, "A").to_wire()

    def ask() -> tuple[dns.message.Message, str]:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hears,
            socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as speaks,
        ):
            hears.bind((there.client.ipv4, 0))
            hears.settimeout(2)
            port = hears.getsockname()[1]
            speaks.sendto(struct.pack("!HHHH", port, 53, 8 + len(query), 0) + query, (VIP, 0))
            answer, peer = hears.recvfrom(4096)
        return dns.message.from_wire(answer), peer[0]

    return within(there.client.netns, ask)


def test_a_service_s_address_is_asked(tmp_path: Path) -> None:
    with place(
        tmp_path, hosts={"a.ok.test": ["198.18.9.1"], "b.ok.test": ["198.18.9.2"]}, plugins=["lb"]
    ) as there:
        there.node.resource("service.yaml", SERVICE)
        there.node.until(lambda: VIP in str(there.node.call("service.list")), "the service")
        there.node.until(lambda: there.node.call("service.list")[0]["backends"], "its backend")
        for address in (VIP, VIP6):
            for tcp in (False, True):
                answer = ask(there, address, "a.ok.test", tcp=tcp)
                assert answer.answer[0][0].address == "198.18.9.1"
                assert ask(there, address, "secret.test", tcp=tcp).rcode() == dns.rcode.REFUSED
        there.connect("198.18.9.1", timeout=0.8).close()
        for _ in range(2):
            answer, said_by = ask_by_packet(there, "b.ok.test")
            assert (answer.answer[0][0].address, said_by) == ("198.18.9.2", VIP)
        there.connect("198.18.9.2", timeout=0.8).close()
        servers = {row["server"] for row in there.node.call("dns.lookups")}
        assert servers == {there.names.ipv4, there.names.ipv6}, "the proxy sees the server that was chosen"
        assert there.node.problems() == []
