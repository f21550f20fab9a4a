"""Connections that a decision sends to a proxy of this node: the real programs, sockets and clients; a toy of a proxy."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
from collections.abc import Iterator

import pytest
from attrs import frozen

from axoneme.core.net import proxyroute
from axoneme.core.testing.namespaces import Namespaces, ask, within
from axoneme.core.testing.node import Node, Placed

pytestmark = pytest.mark.kernel

#: Answers `proxy|what was asked|the address that was asked`, on behalf of that address.
TOY = """
import asyncio
import socket
import struct

from axoneme.core.datapath import proxies
from axoneme.core.datapath.proxies import Proxy
from axoneme.core.hooks import hookimpl
from axoneme.core.net import proxyroute
from axoneme.core.records import PluginInfo, Service


@hookimpl
def axoneme_info():
    return PluginInfo(name="toyproxy")


@hookimpl
def axoneme_stages(context):
    return proxies.proxy_stages(Proxy.DNS, Proxy.HTTP)


@hookimpl
def axoneme_services(context):
    async def run(ready):
        proxyroute.ensure(proxies.MARK_TO_PROXY, proxies.MARK_MASK)
        servers = [await serve(family) for family in (4, 6)]
        ready()
        await asyncio.Event().wait()

    async def serve(family):
        host = "127.0.0.1" if family == 4 else "::1"
        stream = proxies.transparent(family, socket.SOCK_STREAM)
        stream.bind((host, 0))
        stream.listen(64)
        datagrams = proxies.transparent(family, socket.SOCK_DGRAM)
        datagrams.bind((host, 0))
        datagrams.setsockopt(*((socket.IPPROTO_IP, 20) if family == 4 else (socket.IPPROTO_IPV6, 74)), 1)
        for number in (Proxy.DNS, Proxy.HTTP):
            for each in (stream, datagrams):
                proxies.register(context.map("proxies"), number, family, each)
        asyncio.get_running_loop().add_reader(datagrams, lambda: answer_one(datagrams, family))
        return await asyncio.start_server(answer, sock=stream), datagrams

    yield Service(name="toy", run=run)


async def answer(reader, writer):
    while data := await reader.read(100):
        writer.write(b"proxy|" + data + b"|" + writer.get_extra_info("sockname")[0].encode())
    writer.close()


def answer_one(datagrams, family):
    data, ancillary, _, peer = datagrams.recvmsg(4096, 256)
    form = "!2xH4s8x" if family == 4 else "!2xH4x16s4x"
    port, packed = struct.unpack(form, ancillary[0][2])
    asked = socket.inet_ntop(datagrams.family, packed)
    with proxies.transparent(family, socket.SOCK_DGRAM) as speaker:
        speaker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        speaker.bind((asked, port))
        speaker.sendto(b"proxy|" + data + b"|" + asked.encode(), peer)
"""

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: client, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  ingress: [{}]
  egress:
  - toEntities: [all]
    toPorts: [{ports: [{port: "53", protocol: ANY}], rules: {dns: [{matchPattern: "*"}]}}]
  - toEntities: [all]
    toPorts: [{ports: [{port: "81", protocol: ANY}]}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEntities: [all]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{method: GET}]}}]
"""


@frozen(kw_only=True)
class Place:
    node: Node
    client: Placed
    server: Placed
    web: Placed

    def ask(self, netns: str, address: str, port: int, *, udp: bool = False) -> tuple[str, ...]:
        try:
            return tuple(ask(netns, address, port, b"x", udp=udp, timeout=1).decode().split("|"))
        except OSError as error:
            return (type(error).__name__,)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Namespaces() as owned, Node({"plugins": {"enabled": ["policy", "toyproxy"]}}) as node:
        node.install("toyproxy", TOY)
        node.resource("policy.yaml", POLICY)
        node.start()
        client, server, web = (node.workload(name, app=name) for name in ("client", "server", "web"))
        for port in (53, 81):
            owned.serve_udp(server.netns, port, lambda data: b"real|" + data)
            owned.serve_tcp(server.netns, port, lambda data: b"real|" + data)
        owned.serve_tcp(web.netns, 80, lambda data: b"real|" + data)
        yield Place(node=node, client=client, server=server, web=web)


def test_the_proxy_answers_for_whoever_was_asked_and_the_rest_is_left_alone(place: Place) -> None:
    for address in (*place.server.addresses, "198.51.100.9", "2001:db8::9"):
        for udp in (True, False, True):
            assert place.ask(place.client.netns, address, 53, udp=udp) == ("proxy", "x", address)
    for address in place.server.addresses:
        assert place.ask(place.client.netns, address, 81, udp=True) == ("real", "x")
        assert place.ask(place.client.netns, address, 81) == ("real", "x")
        assert place.ask(place.server.netns, address, 53) == ("real", "x"), (
            "nobody redirects the server itself"
        )


def test_ingress_from_a_workload_and_from_the_host(place: Place) -> None:
    for address in place.web.addresses:
        for netns in (place.server.netns, place.node.netns):
            for _ in range(2):
                assert place.ask(netns, address, 80) == ("proxy", "x", address)


def test_what_a_proxy_sends_is_not_sent_to_it_again(place: Place) -> None:
    for address in place.web.addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        for netns, mark, who in ((place.node.netns, 0xB00, b"real"), (place.server.netns, 0xB00, b"proxy")):
            with within(netns, lambda family=family: socket.socket(family, socket.SOCK_STREAM)) as client:  # type: ignore[misc]
                client.settimeout(2)
                client.setsockopt(socket.SOL_SOCKET, 36, mark)  # SO_MARK: of no use to a workload
                client.connect((address, 80))
                client.sendall(b"x")
                assert client.recv(64).startswith(who)


def test_a_port_that_is_used_again_at_once(place: Place) -> None:
    """The proxy's side is in TIME_WAIT then, which swallows the opening packet if the wrong socket gets it."""

    def again() -> bytes:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.settimeout(3)
            client.bind(("", 40000))
            client.connect((place.server.ipv4, 53))
            client.sendall(b"x")
            answer = client.recv(64)
            client.shutdown(socket.SHUT_WR)
            client.recv(1)
            return answer

    for _ in range(50):
        assert within(place.client.netns, again).startswith(b"proxy")


def test_a_change_of_policy_leaves_connections_with_the_proxy(place: Place) -> None:
    """The first packet under the new revision may be the client's or the proxy's."""
    with contextlib.ExitStack() as owned:
        held = []
        for address in place.server.addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            made = owned.enter_context(
                within(place.client.netns, lambda family=family: socket.socket(family, socket.SOCK_STREAM))  # type: ignore[misc]
            )
            made.settimeout(3)
            made.connect((address, 53))
            held.append(made)
        for port in range(90, 96):
            place.node.resource("policy.yaml", re.sub('"81"', f'"{port}"', POLICY))
            place.node.until(
                lambda port=port: f"'{port}/" in str(place.node.call("policy.get")), "the change"
            )  # type: ignore[misc]
            for each in held:
                each.sendall(b"y")
                assert each.recv(64).startswith(b"proxy|y")
    place.node.resource("policy.yaml", POLICY)
    place.node.until(lambda: "'81/" in str(place.node.call("policy.get")), "the old policy")


def test_the_server_itself_cannot_answer_past_the_proxy(place: Place) -> None:
    with contextlib.ExitStack() as owned:
        client = owned.enter_context(
            within(place.client.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        )
        forger = owned.enter_context(
            within(place.server.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 17))
        )
        client.settimeout(3)
        client.bind((place.client.ipv4, 0))
        client.sendto(b"x", (place.server.ipv4, 53))
        assert client.recv(64).startswith(b"proxy")
        forged = b"forged"
        header = struct.pack(">HHHH", 53, client.getsockname()[1], 8 + len(forged), 0)
        for _ in range(2):
            forger.sendto(header + forged, (place.client.ipv4, 0))
        client.sendto(b"y", (place.server.ipv4, 53))
        assert client.recv(64).startswith(b"proxy|y"), "nothing forged came before"


def forget_answers(node: Node, client: socket.socket) -> None:
    """As if the connection table had been too small: the direction from the server is gone, the other one is not."""
    from axoneme.core.datapath.abi import TUPLE
    from axoneme.core.datapath.syscall import SyscallKernel

    kernel = SyscallKernel()
    (pin,) = [path for path in (node.bpffs / "maps").iterdir() if path.name.startswith("connections4@")]
    (address, port), (asked, asked_port) = client.getsockname(), client.getpeername()
    words = [{"a": [int.from_bytes(socket.inet_aton(one), "big")]} for one in (asked, address)]
    key = TUPLE[4].pack(
        saddr=words[0], daddr=words[1], sport=asked_port, dport=port, protocol=17, pad=(0, 0, 0)
    )
    fd = kernel.open_pin(pin)
    assert kernel.map_delete(fd, key)
    kernel.close(fd)


def test_a_connection_that_is_forgotten_halfway_does_not_reach_the_host(place: Place) -> None:
    """What has the mark is local to the host, where somebody else listens on that port."""
    with Namespaces() as owned:
        host = owned.serve_udp(place.node.netns, 53, lambda data: b"host|" + data)
        assert place.ask(place.client.netns, "10.244.0.1", 53, udp=True)[0] == "proxy"
        with within(place.client.netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client:
            client.settimeout(0.3)
            client.connect((place.server.ipv4, 53))
            client.sendall(b"x")
            assert client.recv(64).startswith(b"proxy")
            forget_answers(place.node, client)
            client.sendall(b"y")
            with pytest.raises(OSError):  # noqa: PT011 - silence, or a refusal
                client.recv(64)
        assert ask(place.node.netns, "127.0.0.1", 53, udp=True).startswith(b"host"), "it does listen"
        assert host.seen == ["127.0.0.1"]


def test_the_host_is_reached_under_all_of_its_addresses(place: Place) -> None:
    """Also under those that only a route makes its own."""
    import subprocess

    from axoneme.core.net import namespaces

    inside = ["nsenter", f"--net={namespaces.locate(place.node.netns)}", "ip"]
    subprocess.run([*inside, "route", "add", "local", "198.51.100.64/26", "dev", "lo"], check=True)
    subprocess.run([*inside, "-6", "route", "add", "local", "2001:db8:64::/64", "dev", "lo"], check=True)
    with Namespaces() as owned:
        for udp in (True, False):
            (owned.serve_udp if udp else owned.serve_tcp)(place.node.netns, 85, lambda data: b"host|" + data)
            own = {"10.244.0.1", "fd00:244::1"}
            for address in (*own, "198.51.100.65", "2001:db8:64::5"):
                if udp and address not in own:
                    continue  # a plain server answers from the host's first address
                assert place.ask(place.server.netns, address, 85, udp=udp) == ("host", "x"), address


def test_without_the_proxy_the_door_is_closed(place: Place) -> None:
    node = place.node
    node.kill9()
    for address in place.server.addresses:
        assert place.ask(place.client.netns, address, 53, udp=True)[0] not in ("real", "proxy")
        assert place.ask(place.client.netns, address, 53)[0] not in ("real", "proxy")
    assert place.ask(place.client.netns, place.server.ipv4, 81) == ("real", "x")
    node.start()
    assert place.ask(place.client.netns, place.server.ipv4, 53) == ("proxy", "x", place.server.ipv4)
    node.configure({"plugins": {"enabled": ["policy"]}})
    node.reload()
    assert place.ask(place.client.netns, place.server.ipv4, 53)[0] not in ("real", "proxy")
    within(node.netns, lambda: proxyroute.remove(0x200, 0xF00))
    within(node.netns, lambda: proxyroute.remove(0x200, 0xF00))
