"""What a service costs real traffic: throughput (iperf3) and short connections (a closed-loop client), against direct.

A host with an agent, a client and a server, each in a namespace. Direct and through the service take turns in one run, so that
whatever else the machine does meets both: requests one by one, and compared by their medians, which a request that had to wait
for somebody else's work does not move; streams in slices of a second, and compared pair by pair. The figures are what is lost, in
per cent of direct.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
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
#: Of a sample: pairs of requests, and of streams.
PAIRS, SLICES = 5000, 5


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


def client_main(cgroup: str, netns: str, *places: str) -> None:
    """A process of its own: requests in pairs, one to each place, who comes first by chance. Prints the medians of their
    times in ns, as JSON.

    :param cgroup: empty: sockets pass no hooks, and services are translated at the packet.
    """
    if cgroup:
        Path(cgroup, "cgroup.procs").write_text(str(os.getpid()))
    namespaces.stay_in(netns)
    targets = [(host, int(port)) for host, _, port in (place.rpartition(":") for place in places)]
    times: list[list[int]] = [[] for _ in targets]
    for _ in range(PAIRS):
        for at in random.sample(range(len(targets)), len(targets)):
            times[at].append(_request(targets[at]))
    print(json.dumps([statistics.median(each) for each in times]))


def _request(target: tuple[str, int]) -> int:
    """On a connection of its own; returns ns."""
    begin = time.perf_counter_ns()
    with socket.create_connection(target, 5) as connection:
        connection.sendall(b"request")
        assert connection.recv(64) == b"request"
    return time.perf_counter_ns() - begin


def requests_lost(rounds: int, *, at_socket: bool) -> list[float]:
    samples = []
    with world() as made:
        ends = [_serve(made.server.netns, port) for port in (DIRECT_PORT, PORT)]
        direct, service = f"{made.server.ipv4}:{DIRECT_PORT}", f"{VIP}:{PORT}"
        cgroup = str(made.node.cgroup or "") if at_socket else ""
        script = "import sys; sys.path.insert(0, sys.argv[1]); import lb_traffic; lb_traffic.client_main(*sys.argv[2:])"
        for _ in range(rounds):
            command = [sys.executable, "-c", script, sys.path[0], cgroup, made.client.netns, direct, service]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            directly, by_service = json.loads(done.stdout)
            samples.append(100 * (1 - directly / by_service))
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
            ratios = []
            for number in range(SLICES):
                order = (direct, VIP) if number % 2 else (VIP, direct)
                rates = {one: _throughput(made.client.netns, made.server.netns, one) for one in order}
                ratios.append(rates[VIP] / rates[direct])
            samples.append(100 * (1 - statistics.median(ratios)))
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
