"""A host with the DNS plugin, a client, a real server of names, and a world in which every address answers."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dns.message
import dns.query
from attrs import frozen

from axoneme.core.net import namespaces
from axoneme.core.testing.namespaces import Namespaces, listen, reachable, within
from axoneme.core.testing.node import Node, Placed

#: All that is outside, each family in one prefix; every address of it is the world's.
WORLD = {4: "198.18.0.0/15", 6: "2001:db8:5::/48"}

POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: client, namespace: default}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: names}}]
    toPorts:
    - ports: [{port: "53", protocol: ANY}]
      rules: {dns: [{matchPattern: "*.ok.test"}, {matchName: alias.test}]}
  - toFQDNs: [{matchPattern: "*.ok.test"}, {matchName: alias.test}]
    toPorts: [{ports: [{port: "80", protocol: TCP}]}]
"""


def run(netns: str, command: str) -> str:
    """Runs a command in a namespace. Raises `CalledProcessError`."""
    done = subprocess.run(
        ["nsenter", f"--net={namespaces.locate(netns)}", *command.split()],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


class Server:
    """dnsmasq with these names, which may change."""

    def __init__(self, netns: str, folder: Path) -> None:
        self._netns, self._hosts = netns, folder / "hosts"
        self._hosts.write_text("")
        self._process: subprocess.Popen[bytes] | None = None
        self._fixed: list[str] = []
        self.hosts: Mapping[str, Sequence[str]] = {}

    def start(self, *options: str) -> None:
        self._fixed = list(options)
        command = (
            "dnsmasq -k -p 53 --no-resolv --no-hosts --pid-file= --local-ttl=1 --cache-size=0 --user=root"
        )
        self._process = subprocess.Popen(
            [
                "nsenter",
                f"--net={namespaces.locate(self._netns)}",
                *command.split(),
                f"--addn-hosts={self._hosts}",
                *options,
            ],
            stderr=subprocess.DEVNULL,
        )
        self.until_answers()

    def until_answers(self) -> None:
        def ask() -> None:
            for _ in range(200):
                with contextlib.suppress(OSError, dns.exception.Timeout):
                    dns.query.udp(dns.message.make_query("x.test", "A"), "127.0.0.1", timeout=0.05)
                    return
            raise AssertionError("dnsmasq does not answer")

        within(self._netns, ask)

    def set(self, hosts: Mapping[str, Sequence[str]]) -> None:
        """From now on names have these addresses."""
        self.hosts = hosts
        self._hosts.write_text("".join(f"{one} {name}\n" for name, found in hosts.items() for one in found))
        if self._process is not None:
            self.stop()
            self.start(*self._fixed)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@frozen(kw_only=True)
class Place:
    node: Node
    client: Placed
    names: Placed
    server: Server
    owned: Namespaces

    def ask(
        self,
        name: str,
        kind: str = "A",
        *,
        tcp: bool = False,
        family: int = 4,
        timeout: float = 3,
        **options: Any,
    ) -> dns.message.Message:
        """The server's answer to the client. Raises `dns.exception.Timeout` or `OSError`."""
        where = self.names.ipv4 if family == 4 else self.names.ipv6
        query = dns.message.make_query(name, kind, **options)
        how = dns.query.tcp if tcp else dns.query.udp
        return within(self.client.netns, lambda: how(query, where, timeout=timeout))

    def addresses(self, name: str, kind: str = "A", **options: Any) -> list[str]:
        return [
            row.address
            for rrset in self.ask(name, kind, **options).answer
            for row in rrset
            if hasattr(row, "address")
        ]

    def connect(self, address: str, port: int = 80, timeout: float = 1.0) -> socket.socket:
        """A connection of the client's. Raises `OSError`."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made = within(self.client.netns, lambda: socket.socket(family, socket.SOCK_STREAM))
        try:
            made.settimeout(timeout)
            made.connect((address, port))
        except BaseException:
            made.close()
            raise
        return made

    def reaches(self, address: str, timeout: float = 0.3) -> bool:
        try:
            self.connect(address, timeout=timeout).close()
        except OSError:
            return False
        return True

    def known(self) -> dict[str, list[str]]:
        """Names and their addresses, as `axoneme dns list` has them."""
        return {row["name"]: row["addresses"] for row in self.node.call("dns.list")}


def join_world(node: Node, world: str) -> None:
    run(node.netns, f"ip link add w0 type veth peer name w1 netns {world}")
    for netns, device, last in ((node.netns, "w0", 1), (world, "w1", 2)):
        run(netns, f"sysctl -qw net.ipv6.conf.{device}.accept_dad=0")
        run(netns, f"ip addr add 203.0.113.{last}/24 dev {device}")
        run(netns, f"ip addr add 2001:db8:f::{last}/64 dev {device} nodad")
        run(netns, f"ip link set {device} up")
    for version, prefix in WORLD.items():
        via, back = ("203.0.113.2", "203.0.113.1") if version == 4 else ("2001:db8:f::2", "2001:db8:f::1")
        run(node.netns, f"ip -{version} route add {prefix} via {via}")
        run(world, f"ip -{version} route add local {prefix} dev lo")
        run(world, f"ip -{version} route add default via {back}")


class _Echo(socketserver.BaseRequestHandler):
    """Sends back whatever comes, as long as the connection lasts."""

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            while data := self.request.recv(4096):
                self.request.sendall(data)


def serve(listening: socket.socket, stack: contextlib.ExitStack) -> None:
    server = socketserver.ThreadingTCPServer(("", 0), _Echo, bind_and_activate=False)
    server.daemon_threads = True
    server.socket.close()
    server.socket = listening
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    stack.callback(server.server_close)
    stack.callback(server.shutdown)


@contextlib.contextmanager
def place(
    folder: Path,
    *options: str,
    hosts: Mapping[str, Sequence[str]],
    plugins: Sequence[str] = (),
    **settings: Any,
) -> Iterator[Place]:
    """:param options: of dnsmasq; `settings` are the plugin's; `plugins` are further ones."""
    values = {
        "plugins": {"enabled": ["policy", "dns", "hubble", *plugins], "dns": settings},
        "datapath": {"timeouts": {"tcp_fin": 1, "gc_interval": 0.2}},
    }
    with Namespaces() as owned, Node(values) as node, contextlib.ExitStack() as stack:
        node.resource("policy.yaml", POLICY)
        node.start()
        world = owned.make("world")
        join_world(node, world)
        serve(within(world, lambda: listen(socket.SOCK_STREAM, 80)), stack)
        for address in ("198.18.0.1", "2001:db8:5::1"):  # from now on neighbours are known
            node.until(lambda there=address: reachable(node.netns, there, 80), "the world answers")
        client, names = (node.workload(name, app=name) for name in ("client", "names"))
        server = Server(names.netns, folder)
        server.set(hosts)
        server.start(*options)
        try:
            yield Place(node=node, client=client, names=names, server=server, owned=owned)
        finally:
            server.stop()
