"""What a service costs real traffic: throughput (iperf3) and short connections (a closed-loop client), against direct.

A host with an agent, a client and a server, each in a namespace. Direct and through the service take turns in one run, in
short slices, so that whatever else the machine does meets both. The figures are what is lost, in per cent of direct.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from attrs import frozen
from figures import Figure

from axoneme.core.net import namespaces
from axoneme.core.testing.namespaces import listen, within
from axoneme.core.testing.node import Node, Placed

VIP, THROUGHPUT_PORT = "10.96.0.10", 5201
#: Where the server listens: for those who ask it directly, and as a backend. With one port for both, the ends of a connection
#: could be those of another one a moment ago, which the server's TCP would still remember.
DIRECT_PORT, PORT = 8081, 8080
#: Seconds of a slice, and how many of each kind there are in a sample.
SLICE, SLICES = 0.5, 10


@frozen
class World:
    node: Node
    client: Placed
    server: Placed


@contextmanager
def world() -> Iterator[World]:
    with Node({"plugins": {"enabled": ["lb"]}}) as node:
        node.start()
        client, server = node.workload("client"), node.workload("server", app="server")
        for port, name in ((PORT, "echo"), (THROUGHPUT_PORT, "throughput")):
            node.axoneme(
                "service", "add", name, "--vip", f"{VIP}:{port}", "--backend", f"{server.ipv4}:{port}"
            )
        node.until(lambda: _is_there(node), "the services are in the kernel")
        yield World(node, client, server)


def _is_there(node: Node) -> bool:
    rows = node.call("lb.map", view="services")
    return sum(one["slots"] for one in rows) == 2


def _serve(netns: str, port: int) -> Callable[[], None]:
    """A server that answers one request per connection; what it returns ends it."""
    listening = within(netns, lambda: listen(socket.SOCK_STREAM, port))

    def run() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.sendall(connection.recv(64))

    threading.Thread(target=run, daemon=True).start()
    return lambda: listening.shutdown(socket.SHUT_RDWR)


def client_main(cgroup: str, netns: str, places: Sequence[str]) -> None:
    """A process of its own: requests per second to each place, in turns, a line of JSON each.

    :param cgroup: empty: sockets pass no hooks, and services are translated at the packet.
    """
    if cgroup:
        Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    namespaces.stay_in(netns)
    for number in range(SLICES):
        for place in places if number % 2 else reversed(places):
            print(json.dumps([place, _requests(place)]), flush=True)


def _requests(place: str) -> float:
    """One after the other, each on a connection of its own."""
    host, _, port = place.rpartition(":")
    count, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < SLICE:
        with socket.create_connection((host, int(port)), 5) as connection:
            connection.sendall(b"request")
            assert connection.recv(64) == b"request"
        count += 1
    return count / spent


def _lost(rates: dict[str, list[float]], direct: str, service: str) -> float:
    return 100 * (1 - statistics.median(rates[service]) / statistics.median(rates[direct]))


def requests_lost(rounds: int, *, at_socket: bool) -> list[float]:
    samples = []
    with world() as made:
        ends = [_serve(made.server.netns, port) for port in (DIRECT_PORT, PORT)]
        direct, service = f"{made.server.ipv4}:{DIRECT_PORT}", f"{VIP}:{PORT}"
        cgroup = str(made.node.cgroup or "") if at_socket else ""
        script = "import sys; sys.path.insert(0, sys.argv[1]); import lb_traffic; lb_traffic.client_main(*sys.argv[2:4], sys.argv[4:])"
        for _ in range(rounds):
            rates: dict[str, list[float]] = {direct: [], service: []}
            command = [sys.executable, "-c", script, sys.path[0], cgroup, made.client.netns, direct, service]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for line in done.stdout.splitlines():
                place, rate = json.loads(line)
                rates[place].append(rate)
            samples.append(_lost(rates, direct, service))
        for end in ends:
            end()
    return samples


def _throughput(client: str, server: str, address: str) -> float:
    """Bits per second of one TCP stream."""
    at = [f"--net={namespaces.locate(name)}" for name in (client, server)]
    serving = subprocess.Popen(["nsenter", at[1], "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            command = ["nsenter", at[0], "iperf3", "-J", "-t", "1", "-c", address]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            result = json.loads(done.stdout)
            if "error" not in result:
                return float(result["end"]["sum_received"]["bits_per_second"])
            time.sleep(0.01)  # it does not listen yet
        raise RuntimeError(result["error"])
    finally:
        serving.terminate()
        serving.wait()


def throughput_lost(rounds: int) -> list[float]:
    if shutil.which("iperf3") is None:
        raise RuntimeError("this figure needs iperf3: apt-get install iperf3")
    samples = []
    with world() as made:
        direct = made.server.ipv4
        for _ in range(rounds):
            rates: dict[str, list[float]] = {direct: [], VIP: []}
            for number in range(SLICES // 2):
                for address in (direct, VIP) if number % 2 else (VIP, direct):
                    rates[address].append(_throughput(made.client.netns, made.server.netns, address))
            samples.append(_lost(rates, direct, VIP))
    return samples


def figures() -> list[Figure]:
    costs = (
        (
            "lb.requests.lost",
            "requests per second on short connections that a service costs, of direct; at the socket",
            partial(requests_lost, at_socket=True),
        ),
        (
            "lb.requests.lost.packet",
            "the same, translated at the packet",
            partial(requests_lost, at_socket=False),
        ),
        (
            "lb.throughput.lost",
            "throughput of one TCP stream (iperf3) that a service costs, of direct",
            throughput_lost,
        ),
    )
    return [
        Figure(name=name, unit="%", limit=5.0, what=what, measure=measure) for name, what, measure in costs
    ]
