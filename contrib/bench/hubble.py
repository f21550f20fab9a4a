"""The figures of Hubble: CPU time of one core, of the objects that the agent runs.

Flows are of 1000 workloads in 10 namespaces with 500 identities under 100 policies, each with any other, so that hardly two
flows are about the same pair.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import flows
import numpy as np
from datapath import CHUNK, RUNS, made, tcp
from figures import Figure

from axoneme.core.datapath.abi import EVENT, core_maps
from axoneme.core.datapath.maps import Map
from axoneme.core.datapath.ring import RingReader
from axoneme.core.testing.fake_kernel import FakeKernel
from axoneme.core.testing.packets import SYN
from axoneme.plugins.hubble.filters.compiler import compiled
from axoneme.plugins.hubble.proto.flow_pb2 import FlowFilter
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest

RING, MILLION = 65_536, 1 << 20

#: One flow of ten passes, by four fields.
FOUR = FlowFilter(
    verdict=["FORWARDED"], source_pod=["ns1/", "ns2/"], protocol=["tcp"], destination_port=["80", "443", "8080", "9090", "5432", "22"]
)  # fmt: skip
LABEL = FlowFilter(source_label=["app in (app1, app2, app3, app4, app5), version=v1"])


def ingest(rounds: int) -> Sequence[float]:
    """From records in memory that is laid out as the kernel's ring to flows in a full one, by the reader that the agent has."""
    observer, kernel = flows.observer(RING), FakeKernel()
    spec = next(
        spec
        for spec in core_maps(connections=64, endpoints=8, ipcache=8, events=1 << 22)
        if spec.name == "events"
    )
    with Map.create(kernel, spec) as ring:
        reader = RingReader(ring, EVENT)
        return [_ingest(observer, reader, kernel, seed) for seed in range(rounds + 1)][1:]


def _ingest(observer: Any, reader: RingReader, kernel: FakeKernel, seed: int) -> float:
    memory = kernel.map_named("events").ring.memory
    slot = reader._slot
    filled = np.zeros(25_000 - 1, slot)
    filled["length"], filled["record"] = EVENT.size, flows.records(len(filled), seed)
    seconds = 0.0
    for _ in range(20):
        memory.consumer[0] = memory.producer[0] = 0
        memory.data[: filled.nbytes] = filled.view(np.uint8)
        memory.producer[0] = filled.nbytes
        begin = time.process_time()
        observer.take(reader.read())
        seconds += time.process_time() - begin
    return 20 * len(filled) / seconds


def _full(size: int = RING) -> Any:
    observer = flows.observer(size)
    while len(observer.ring) < size:
        observer.take(flows.records(8192, observer.ring.head))
    return observer


def _scanned(observer: Any, wanted: FlowFilter, low: float, high: float) -> Callable[[], float]:
    """CPU ns per flow to find which ones pass."""
    chosen = compiled([wanted], decode=observer._decode, uuids=observer.wire.uuids)
    ring = observer.ring

    def measure() -> float:
        begin, hits = time.process_time_ns(), 0
        for _ in range(50):
            hits += sum(len(chosen.places(view)) for view in ring.views(0, ring.head))
        spent = time.process_time_ns() - begin
        if not low <= hits / 50 / len(ring) <= high:
            raise RuntimeError(
                f"{hits / 50 / len(ring):.1%} of the flows pass, which is not what the figure says"
            )
        return spent / 50 / len(ring)

    return measure


def filter_four(rounds: int) -> Sequence[float]:
    return _rounds(rounds, _scanned(_full(), FOUR, 0.08, 0.12))


def filter_label(rounds: int) -> Sequence[float]:
    return _rounds(rounds, _scanned(_full(), LABEL, 0.08, 0.12))


def filter_marshal(rounds: int) -> Sequence[float]:
    """To the messages that a client gets, by the whole way of a request."""
    observer = _full()
    return _rounds(rounds, lambda: _answered(observer, GetFlowsRequest(whitelist=[FOUR])) / RING)


def read_marshal(rounds: int) -> Sequence[float]:
    observer = _full()
    return _rounds(rounds, lambda: _answered(observer, GetFlowsRequest()) / RING)


def _answered(observer: Any, request: GetFlowsRequest) -> float:
    """CPU ns to answer a request, less than all of which is in caches."""

    async def answer() -> int:
        return sum([len(message) > 200 async for message in observer.get_flows(request)])

    begin = time.process_time_ns()
    if not asyncio.run(answer()):
        raise RuntimeError("no flow came")
    return time.process_time_ns() - begin


def rss(rounds: int) -> Sequence[float]:
    """Of a process with nothing else, the libraries included."""
    command = [sys.executable, __file__]
    folder = Path(__file__).parent
    return [
        float(subprocess.run(command, check=True, capture_output=True, cwd=folder).stdout)
        for _ in range(min(rounds, 3))
    ]


def overhead(rounds: int) -> Sequence[float]:
    """Percent that a first packet costs more while somebody reads its events, against nobody reading.

    The programs are the same with and without Hubble (a test proves it), so that this is all that it can cost.
    """
    with made(rotating=True) as bench:
        turn = 0

        def before() -> None:
            nonlocal turn
            if turn:
                bench.forget(turn - CHUNK, CHUNK)
            turn += CHUNK

        def alone() -> None:
            bench.ring.read()
            before()

        def read() -> float:
            with bench.reader():
                return bench.net(tcp(SYN), runs=RUNS // 4, before=before)

        bench.net(tcp(SYN), runs=RUNS // 4, before=alone)
        pairs = [(bench.net(tcp(SYN), runs=RUNS // 4, before=alone), read()) for _ in range(rounds)]
    return [100 * (statistics.median(b for _, b in pairs) / statistics.median(a for a, _ in pairs) - 1)]


def _rounds(count: int, one: Callable[[], float]) -> list[float]:
    one()
    return [one() for _ in range(count)]


def figures() -> list[Figure]:
    def figure(name: str, unit: str, limit: float, what: str, measure: Any, **more: Any) -> Figure:
        return Figure(name=f"hubble.{name}", unit=unit, limit=limit, what=what, measure=measure, **more)

    return [
        figure("ingest", "records/s", 2_000_000, "from the kernel's ring to flows", ingest, at_least=True),
        figure("filter", "ns", 15, "per scanned flow, 4 fields, one of ten passes", filter_four),
        figure("filter.label", "ns", 20, "per scanned flow, a label selector", filter_label),
        figure(
            "filter.marshal", "ns", 330, "per scanned flow, with the messages of one in ten", filter_marshal
        ),
        figure("read.marshal", "ns", 4000, "per flow, all of them as messages", read_marshal),
        figure("rss", "MiB", 200, "memory of a process with a million flows", rss),
        figure("overhead", "%", 5, "a first packet, read by somebody or not", overhead),
    ]


if __name__ == "__main__":
    _full(MILLION)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
