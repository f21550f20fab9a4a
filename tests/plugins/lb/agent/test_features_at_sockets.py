"""What services promise, for sockets that the agent sees: processes of its cgroup, on the node itself and in a workload."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from lb_agents import NODE_ADDRESSES, PORT, World, place, process, world_of
from lb_scenes import service, slices

from axoneme.core.testing.namespaces import listen, within
from axoneme.plugins.lb.model import Protocol
from axoneme.plugins.lb.sock_diag import SockDiag

pytestmark = [pytest.mark.kernel, pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])]

SERVERS = ("web-0", "web-1", "web-2")
WHERE = ("node", "client")
PORTS = "ports: [{name: t, port: 80, targetPort: 8080}, {name: u, port: 80, protocol: UDP, targetPort: 8080}]"
_SO_COOKIE = 57  # asm-generic/socket.h
#: Who answers, and where that seems to come from.
Answer = tuple[str, tuple[str, int]]

# In the process with the sockets.

_held: list[socket.socket] = []


def _made(address: str, kind: int) -> socket.socket:
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, kind)
    one.settimeout(5)
    return one


def _stream(address: str, port: int) -> Answer:
    """Asks by a connection, about which the socket and the kernel say different things: it was translated at the socket."""
    with _made(address, socket.SOCK_STREAM) as one:
        one.connect((address, port))
        assert _kernel_s_peer(one) != (address.removeprefix("::ffff:"), port)
        one.sendall(b"who")
        return one.recv(64).decode(), one.getpeername()[:2]


def _kernel_s_peer(one: socket.socket) -> tuple[str, int]:
    cookie = one.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
    with SockDiag() as diag:
        (found,) = [each for each in diag.connected(Protocol.TCP) if each.cookie == cookie]
    kind = socket.AF_INET if len(found.peer) == 8 else socket.AF_INET6
    return socket.inet_ntop(kind, found.peer[:-4]), int.from_bytes(found.peer[-4:-2], "big")


def _datagram(address: str, port: int) -> Answer:
    """The same by a socket that is not connected."""
    with _made(address, socket.SOCK_DGRAM) as one:
        one.sendto(b"who", (address, port))
        data, peer = one.recvfrom(64)
        return data.decode(), peer[:2]


def _tried(address: str, port: int, how: str) -> str:
    """The name of the error by which a call ends at once; empty for none."""
    with _made(address, socket.SOCK_STREAM if how == "stream" else socket.SOCK_DGRAM) as one:
        one.setblocking(False)
        try:
            one.sendto(b"x", (address, port)) if how == "sendto" else one.connect((address, port))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return ""


def _aim(address: str, port: int) -> tuple[str, int]:
    """Whom the kernel connects to, whether anybody is there or not."""
    with _made(address, socket.SOCK_STREAM) as one:
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            one.connect((address, port))
        return _kernel_s_peer(one)


def _hold(address: str, port: int, count: int) -> Counter[str]:
    """Connections that stay; whom they say they are with."""
    for _ in range(count):
        _held.append(_made(address, socket.SOCK_STREAM))
        _held[-1].connect((address, port))
    return Counter(one.getpeername()[0] for one in _held[-count:])


def _send(address: str, port: int) -> None:
    """By the one socket that is kept."""
    if not _held or _held[-1].type != socket.SOCK_DGRAM or _held[-1].family != _family(address):
        _held.append(_made(address, socket.SOCK_DGRAM))
    _held[-1].sendto(b"who", (address, port))


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _received() -> Answer:
    data, peer = _held[-1].recvfrom(64)
    return data.decode(), peer[:2]


# The test's side.


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with world_of(algorithm="round-robin") as made:
        for name in SERVERS:
            made.server(name, app="web")
        made.workload("client")
        yield made


@pytest.fixture(scope="module")
def calls(world: World) -> Iterator[dict[str, Any]]:
    """A process on the node, one in a workload, and one in a workload that is a backend."""
    with contextlib.ExitStack() as stack:
        places = {"node": world.node.netns} | {name: one.netns for name, one in world.workloads.items()}
        yield {
            name: stack.enter_context(process(world, places[name])) for name in ("node", "client", "web-0")
        }


def vip_of(number: int, family: int) -> str:
    return f"fd00:96::4:{number}" if family == 6 else f"10.96.4.{number}"


def addresses(world: World, *names: str, family: int) -> list[str]:
    return [world.workloads[name].addresses[family == 6] for name in names]


def test_every_kind_of_address(world: World, calls: dict[str, Any], family: int) -> None:
    vip, node = vip_of(1, family), NODE_ADDRESSES[family == 6]
    external, balanced = (
        ("2001:db8:6::9", "2001:db8:7::1") if family == 6 else ("203.0.113.9", "198.51.100.33")
    )
    block = "2001:db8:7::/64" if family == 6 else "198.51.100.32/28"
    pool = f'apiVersion: cilium.io/v2\nkind: CiliumLoadBalancerIPPool\nmetadata: {{name: pool-{family}}}\nspec: {{blocks: [{{cidr: "{block}"}}]}}\n'
    world.resource(f"pool-{family}.yaml", pool)
    ports = PORTS.replace("8080}", f"8080, nodePort: {30400 + family}}}")
    spec = f'type: LoadBalancer, clusterIP: "{vip}", selector: {{app: web}}, externalIPs: ["{external}"], loadBalancerIP: "{balanced}", {ports}'
    world.resource(f"front-{family}.yaml", service(f"front-{family}", spec))
    fronts = [(vip, 80), (node, 30400 + family), (balanced, 80), (external, 80)]
    for address, port in fronts:
        world.until_used(place(address, port), *addresses(world, *SERVERS, family=family))
        for where in WHERE:
            for ask in (_stream, _datagram):
                answers = [calls[where](ask, address, port) for _ in SERVERS]
                assert {name for name, _ in answers} == set(SERVERS), (where, address)
                assert {told for _, told in answers} == {(address, port)}, (where, ask)


def test_ipv6_sockets_may_ask_for_ipv4(world: World, calls: dict[str, Any], family: int) -> None:
    """What a program sees that has one kind of socket for both (RFC 4291 2.5.5.2); of IPv6 itself, the same."""
    vip = vip_of(2, family)
    asked = vip if family == 6 else f"::ffff:{vip}"
    world.resource("mapped.yaml", service("mapped", f'clusterIP: "{vip}", selector: {{app: web}}, {PORTS}'))
    world.until_used(place(vip, 80), *addresses(world, *SERVERS, family=family))
    for where in WHERE:
        for ask in (_stream, _datagram):
            answers = [calls[where](ask, asked, 80) for _ in SERVERS]
            assert sorted(answers) == [(name, (asked, 80)) for name in SERVERS], (where, ask)


def test_who_asks_keeps_his_backend_for_a_while(world: World, calls: dict[str, Any], family: int) -> None:
    vip = vip_of(3, family)
    timeout = "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 2}}"
    world.resource(
        "kept.yaml", service("kept", f'clusterIP: "{vip}", selector: {{app: web}}, {timeout}, {PORTS}')
    )
    world.until_used(place(vip, 80), *addresses(world, *SERVERS, family=family))
    kept = {}
    for where in WHERE:
        for ask in (_stream, _datagram):
            begin = time.monotonic()
            names = {calls[where](ask, vip, 80)[0] for _ in range(6)}
            assert len(names) == 1 or time.monotonic() - begin > 1.9
            kept[where, ask] = names
    assert kept["node", _stream] != kept["client", _stream], "each namespace is a client of its own"
    time.sleep(2.2)  # not to wait for somebody: that it passes is what counts
    for asked, names in kept.items():
        assert calls[asked[0]](asked[1], vip, 80)[0] not in names


def test_a_local_redirect_that_its_backends_pass(world: World, calls: dict[str, Any], family: int) -> None:
    address = "fd00:ec2::253" if family == 6 else "169.254.169.253"
    text = f"""\
apiVersion: cilium.io/v2
kind: CiliumLocalRedirectPolicy
metadata: {{name: metadata}}
spec:
  redirectFrontend: {{addressMatcher: {{ip: "{address}", toPorts: [{{name: t, port: "80", protocol: TCP}}, {{name: u, port: "80", protocol: UDP}}]}}}}
  redirectBackend: {{localEndpointSelector: {{matchLabels: {{app: web}}}}, toPorts: [{{name: t, port: "8080", protocol: TCP}}, {{name: u, port: "8080", protocol: UDP}}]}}
"""
    servers = addresses(world, *SERVERS, family=family)
    backends = {(one, PORT) for one in servers}
    world.resource("metadata.yaml", text)
    world.until_used(place(address, 80), *servers)
    for where in (*WHERE, "web-0"):
        assert {calls[where](ask, address, 80)[0] for ask in (_stream, _datagram) for _ in SERVERS} == set(
            SERVERS
        )
        assert calls[where](_aim, address, 80) in backends
    world.resource("metadata.yaml", text.replace("spec:\n", "spec:\n  skipRedirectFromBackend: true\n"))
    world.node.until(lambda: calls["web-0"](_aim, address, 80) == (address, 80), "backends reach it itself")
    for where in WHERE:
        assert calls[where](_aim, address, 80) in backends, "others do not"
        assert calls[where](_datagram, address, 80)[0] in SERVERS


def test_the_busy_one_gets_fewer(world: World, calls: dict[str, Any], family: int) -> None:
    vip, pair = vip_of(5, family), SERVERS[:2]
    listening = {
        name: within(world.workloads[name].netns, lambda: listen(socket.SOCK_STREAM, 9)) for name in pair
    }
    spec = f'clusterIP: "{vip}", ports: [{{port: 80, targetPort: 9}}]'
    annotations = "{service.cilium.io/lb-algorithm: least-connections}"

    def behind(*names: str) -> None:
        rows = addresses(world, *names, family=family)
        world.resource(
            "least.yaml", service("least", spec, annotations=annotations) + slices("least", rows, 9)
        )
        world.until_used(place(vip, 80), *rows)

    behind("web-0")
    accepting = dict.fromkeys(pair, 0)

    def connect(count: int) -> None:
        for _ in range(count // 100):
            assert calls["client"](_hold, vip, 80, 100) == {vip: 100}
            for name, one in listening.items():
                one.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        ends.append(one.accept()[0])
                        accepting[name] += 1

    ends: list[socket.socket] = []
    connect(200)
    behind(*pair)
    connect(200)
    assert sum(accepting.values()) == 400
    assert accepting["web-1"] > 125, "three of four, since two are looked at; by chance it would be 100"
    for one in (*ends, *listening.values()):
        one.close()


def test_nobody_there_is_said_at_once(world: World, calls: dict[str, Any], family: int) -> None:
    vip = vip_of(6, family)
    world.resource("empty.yaml", service("empty", f'clusterIP: "{vip}", {PORTS}'))
    world.until_used(place(vip, 80))
    for where in WHERE:
        for how in ("stream", "sendto"):
            assert calls[where](_tried, vip, 80, how) == "EHOSTUNREACH", (where, how)
            assert calls[where](_tried, vip, 81, how) == "ECONNREFUSED", (
                where,
                how,
                "no service at this port",
            )
    assert calls["node"](_tried, vip, 80, "connect") == "EHOSTUNREACH"
    assert calls["client"](_tried, vip, 80, "connect") == "", (
        "datagrams of workloads are told at their packets"
    )


def test_a_late_answer_is_still_the_service_s(world: World, calls: dict[str, Any], family: int) -> None:
    """The backend is gone from the service when it answers; what is asked next goes elsewhere."""
    vip, pair = vip_of(7, family), SERVERS[:2]
    rows = addresses(world, *pair, family=family)
    sockets = {
        name: within(world.workloads[name].netns, lambda: listen(socket.SOCK_DGRAM, 9)) for name in pair
    }
    spec = f'clusterIP: "{vip}", ports: [{{port: 80, targetPort: 9, protocol: UDP}}]'

    def behind(backend: str) -> None:
        world.resource("late.yaml", service("late", spec) + slices("late", [backend], 9, protocol="UDP"))
        world.until_used(place(vip, 80), backend)

    def asked(name: str) -> Any:
        sockets[name].settimeout(5)
        data, sender = sockets[name].recvfrom(64)
        assert data == b"who"
        return sender

    for where in WHERE:
        behind(rows[0])
        calls[where](_send, vip, 80)
        first = asked("web-0")
        behind(rows[1])
        calls[where](_send, vip, 80)
        sockets["web-0"].sendto(b"late", first)
        assert calls[where](_received) == ("late", (vip, 80)), where
        sockets["web-1"].sendto(b"here", asked("web-1"))
        assert calls[where](_received) == ("here", (vip, 80)), where
    for one in sockets.values():
        one.close()
