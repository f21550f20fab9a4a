"""The figures of services in the kernel: at the packet by test-runs, at the socket by the kernel's own program statistics.

`lb.clusterip` is as `datapath.established.local`, but the packets are for a service. A test-run repeats on one packet, which
is rewritten the first time; so a stage in front puts the service's address into the parsed tuple again and again.

`lb.connect.…` are real calls of `connect()` by this process, in a cgroup of its own, of new sockets each time. The kernel
counts the program's runs and their time, which has its own readings of the clock in it; an empty program at the same hook
shows how much that is, and is subtracted.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure
from made import CLIENT, SERVER, MadeDatapath, tcp

from axoneme.core.datapath import asm
from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.cgroup import CgroupTarget
from axoneme.core.datapath.kernel import Program, ProgramAttributes
from axoneme.core.datapath.placement import cgroup_root
from axoneme.core.records import Phase, Runs, Stage
from axoneme.core.testing.datapath import DatapathBench
from axoneme.core.testing.packets import ACK, SYN
from axoneme.plugins import lb
from axoneme.plugins.lb import maps
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.programs import stages

RUNS = 1_000_000
SERVICES, BACKENDS = 20_000, 5

VIP, PORT = "10.96.0.1", 80
_FIRST = int(ipaddress.IPv4Address("10.97.0.0"))

#: `connect()` calls of a round, and of a slice of it. A round is the median of its slices: the machine is shared.
_CALLS, _SLICE = 4000, 100

_TO_SERVICE = f"""
STAGE(to_service)
{{
	p->tuple.daddr.a[0] = be32({int(ipaddress.IPv4Address(VIP))}u);
	p->tuple.dport = be16({PORT});
	return NEXT;
}}
"""


def _services(bench: DatapathBench, count: int, address: int, port: int) -> None:
    """VIP:PORT in front of one backend, and `count` others of five."""
    keys, rows = maps.FRONTEND[4].array(count + 1), maps.SERVICE.array(count + 1)
    keys["address"]["a"][:, 0] = _FIRST + np.arange(count + 1)
    keys["address"]["a"][0, 0] = int(ipaddress.IPv4Address(VIP))
    keys["port"], keys["protocol"] = PORT, 6
    rows["number"], rows["count"] = 1 + np.arange(count + 1), BACKENDS
    rows["first"] = np.arange(count + 1) * BACKENDS
    slots = np.arange((count + 1) * BACKENDS, dtype=np.uint32)
    backends = maps.BACKEND[4].array(len(slots))
    backends["address"]["a"][:, 0], backends["port"], backends["flags"] = address, port, 1
    bench.map("lb_backends4").update_batch(1 + slots, backends)
    bench.map("lb_slots").update_batch(slots, 1 + slots)
    bench.map("lb_services4").update_batch(keys, rows)


def clusterip(rounds: int) -> Sequence[float]:
    """One live connection to a service whose backend is a workload of the node; both policies enforced."""
    config = LbConfig()
    chosen = [("lb", stage) for stage in stages(config) if stage.name == "translate"]
    again = Stage(
        name="to_service",
        source=_TO_SERVICE,
        attach=("from_workload",),
        phase=Phase.CLASSIFY,
        runs=Runs.EVERY,
    )
    with MadeDatapath(
        stages=[*chosen, ("bench", again)], maps=maps.specs(config.sizes), reasons=lb.axoneme_drop_reasons()
    ) as bench:
        bench.prepare()
        _services(bench, SERVICES, int(ipaddress.IPv4Address(SERVER)), 80)
        bench.inside(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
        opened = bench.run("from_workload", tcp(SYN, VIP), sender="w1")
        if opened.action != 7 or ipaddress.IPv4Address(SERVER).packed != opened.frame[30:34]:
            raise RuntimeError(f"the packet from {CLIENT} ended as {opened.action!r} ({opened.reason})")
        bench.net(tcp(ACK, VIP), runs=RUNS)
        samples = [bench.net(tcp(ACK, VIP), runs=RUNS) for _ in range(rounds)]
        if len(bench.map("connections4").items()[0]) != 2:
            raise RuntimeError("the packets were not all of one connection")
        return samples


@contextlib.contextmanager
def _connecting(count: int) -> Iterator[Callable[[str, int], float]]:
    """This process in a cgroup where programs translate; gives a round of connections, in ns per run."""
    home = Path("/proc/self/cgroup").read_text().rpartition("0::")[2].strip()
    cgroup = cgroup_root() / f"axoneme-bench-{os.getpid()}"
    config = LbConfig()
    chosen = [("lb", stage) for stage in stages(config) if stage.name == "connect4"]
    with contextlib.ExitStack() as undo:
        cgroup.mkdir()
        undo.callback(cgroup.rmdir)
        bench = undo.enter_context(
            DatapathBench(chosen, maps.specs(config.sizes), reasons=tuple(lb.axoneme_drop_reasons()))
        )
        statistic = bench.kernel.enable_statistics()
        undo.callback(os.close, statistic)
        point = ATTACH_POINTS["sock_connect4"]
        empty = undo.enter_context(
            Program.load(
                bench.kernel,
                ProgramAttributes(
                    type=point.program,
                    name="empty",
                    instructions=asm.returning(1),
                    expected_attach=point.attach,
                ),
            )
        )
        program = bench.program("sock_connect4").main
        for each in (program, empty):
            undo.callback(
                os.close, CgroupTarget(path=cgroup, attach=point.attach).link(bench.kernel, each.fd)
            )
        _services(bench, count, int(ipaddress.IPv4Address("127.0.0.1")), 9)
        undo.callback((cgroup_root() / home.lstrip("/") / "cgroup.procs").write_text, str(os.getpid()))
        (cgroup / "cgroup.procs").write_text(str(os.getpid()))
        allowed = os.sched_getaffinity(0)
        undo.callback(os.sched_setaffinity, 0, allowed)
        os.sched_setaffinity(0, {min(allowed)})

        def one(address: str, port: int) -> float:
            before = _totals(program, empty)
            for _ in range(_SLICE):
                with socket.socket() as client:
                    client.setblocking(False)
                    client.connect_ex((address, port))
            (runs, time), (empty_runs, empty_time) = (_totals(program, empty) - before).tolist()
            return float(time / runs - empty_time / empty_runs)

        yield lambda address, port: statistics.median(one(address, port) for _ in range(_CALLS // _SLICE))


def _totals(*programs: Program) -> np.ndarray[Any, Any]:
    """Runs and nanoseconds so far, a row per program."""
    infos = [program.info for program in programs]
    return np.array([(info.run_count, info.run_time_ns) for info in infos])


def _connects(address: str, port: int, count: int) -> Callable[[int], Sequence[float]]:
    def measure(rounds: int) -> Sequence[float]:
        with _connecting(count) as round_of:
            round_of(address, port)
            return [round_of(address, port) for _ in range(rounds)]

    return measure


def figures() -> list[Figure]:
    def figure(name: str, limit: float, what: str, measure: Callable[[int], Sequence[float]]) -> Figure:
        return Figure(name=f"lb.{name}", unit="ns", limit=limit, what=what, measure=measure)

    service, other = (VIP, PORT), ("127.0.0.1", 9)
    return [
        figure("clusterip", 180, "established, to a service's backend on the node", clusterip),
        figure("connect.service", 250, "connect() to a service", _connects(*service, 0)),
        figure("connect.other", 90, "connect() to somebody else", _connects(*other, 0)),
        figure("connect.service.20k", 312, "to a service among 20,000", _connects(*service, SERVICES)),
        figure("connect.other.20k", 112, "to somebody else, 20,000 services", _connects(*other, SERVICES)),
    ]
