"""The figures of the packet path: mean time of a program's run, net of an empty program measured in the same round.

Each round is a million runs by `BPF_PROG_TEST_RUN`, in chunks, because each delivery takes one from the packet's TTL.
The real program is `from_workload`: shared C and the policy plugin's decision stage, with both workloads enforced in
both directions and maps of the default sizes. What the kernel does after the program (`bpf_redirect_peer` only notes
the target while it runs) is in no figure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from figures import Figure
from made import CHUNK, CONNECTIONS, STRANGER, WORLD, MadeDatapath, each_connection, made, tcp

from axoneme.core.datapath import abi
from axoneme.core.testing.packets import ACK, SYN

RUNS = 1_000_000


def established_local(rounds: int) -> Sequence[float]:
    """One live connection, its packets one after the other."""
    with made() as bench:
        _expect(bench, tcp(SYN), 7)
        return _rounds(rounds, lambda: bench.net(tcp(ACK), runs=RUNS))


def established_local_65k(rounds: int) -> Sequence[float]:
    """Each packet belongs to another of 65,000 live connections, whose order has no locality.

    A stage in front puts the next connection's source port into the parsed tuple. Subtracted is a program that consists
    of the same computation and nothing else.
    """
    with made(rotating=True) as bench:
        each_connection(bench, tcp(SYN))
        _entries(bench, 2 * CONNECTIONS)
        return _rounds(rounds, lambda: bench.net(tcp(ACK), runs=RUNS))


def first_packet(rounds: int) -> Sequence[float]:
    """Each packet opens a connection: both policies asked, two entries made, an event written.

    The source ports rotate as in the figure before. Outside the time, after each chunk, its entries are deleted in a
    batch (and must be two per packet), and the ring is emptied. So the table hands out entries that were used not long
    ago; where it has to hand out those that no cache has seen for long, the figure is about a fifth higher.
    """
    with made(rotating=True) as bench:
        turn = 0

        def before() -> None:
            nonlocal turn
            bench.ring.read()
            if turn:
                bench.forget(turn - CHUNK, CHUNK)
            turn += CHUNK

        def one() -> float:
            return bench.net(tcp(SYN), runs=RUNS, before=before)

        samples = _rounds(rounds, one)
        _nothing_lost(bench)
        return samples


def established_remote(rounds: int) -> Sequence[float]:
    """To an address behind a device of the node, with direct routing: the program chooses the device itself."""
    with made(direct_routing=True) as bench:
        _route(bench)
        _expect(bench, tcp(SYN, WORLD), 7)
        return _rounds(rounds, lambda: bench.net(tcp(ACK, WORLD), runs=RUNS))


def drop_event(rounds: int) -> Sequence[float]:
    """A policy drop, with its event written while a reader in another process drains the ring.

    The wait for room in the ring is outside the time, and not one record may be lost: a lost one would be cheaper.
    """
    chunk = 5_000
    with made() as bench:
        _expect(bench, tcp(SYN, STRANGER), 2)
        room = bench.map("events").spec.max_entries - chunk * (abi.EVENT.size + 8)
        with bench.reader():

            def before() -> None:
                while bench.ring.pending > room:
                    time.sleep(0.0002)

            def one() -> float:
                return bench.net(tcp(SYN, STRANGER), runs=RUNS, chunk=chunk, before=before)

            samples = _rounds(rounds, one)
        _nothing_lost(bench)
        return samples


def _rounds(count: int, one: Callable[[], float]) -> list[float]:
    one()  # warms caches, and the CPU
    return [one() for _ in range(count)]


def _expect(bench: MadeDatapath, frame: bytes, action: int) -> None:
    outcome = bench.run("from_workload", frame, sender="w1")
    if outcome.action != action:
        raise RuntimeError(f"the bench's packet ended as {outcome.action!r} ({outcome.reason}), not {action}")


def _entries(bench: MadeDatapath, expected: int) -> None:
    keys, _ = bench.map("connections4").items()
    if len(keys) != expected:
        raise RuntimeError(f"{len(keys)} entries in the connection table instead of {expected}")


def _nothing_lost(bench: MadeDatapath) -> None:
    if lost := bench.lost_events():
        raise RuntimeError(f"{lost} events were lost, so the figure would be too good")


def _route(bench: MadeDatapath) -> None:
    """A device that leads to the world, known to programs and to the namespace's routing table."""
    from pyroute2 import IPRoute

    index = bench.link("uplink")

    def configure() -> None:
        Path("/proc/sys/net/ipv4/ip_forward").write_text("1")  # of the bench's own namespace
        with IPRoute() as route:
            route.addr("add", index=index, address="198.51.100.2", prefixlen=24)
            route.neigh("add", dst="198.51.100.1", lladdr="02:00:00:00:01:01", ifindex=index, state=0x80)
            route.route("add", dst="default", gateway="198.51.100.1")

    bench.inside(configure)
    bench.map("devices").update(index, index)


def figures() -> list[Figure]:
    def figure(name: str, limit: float, what: str, measure: Callable[[int], Sequence[float]]) -> Figure:
        return Figure(name=f"datapath.{name}", unit="ns", limit=limit, what=what, measure=measure)

    return [
        figure("established.local", 150, "established, to a workload of the node", established_local),
        figure("established.local.65k", 400, "the same, 65,000 connections rotating", established_local_65k),
        figure("first_packet", 1500, "first packet of a connection", first_packet),
        figure("established.remote", 200, "established, to the world", established_remote),
        figure("drop_event", 300, "policy drop with its event read", drop_event),
    ]
