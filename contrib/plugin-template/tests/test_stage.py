"""The stage, run by the kernel on made packets. As root: `pytest`."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import axoneme_packet_counter as plugin
import pytest
from axoneme_packet_counter.config import PacketCounterConfig

from axoneme.core.testing.datapath import Action, DatapathBench
from axoneme.core.testing.packets import ACK, SYN, TCP, Ethernet, IPv4, build

pytestmark = pytest.mark.kernel

#: All that the hooks for maps and stages may use of a context.
CONTEXT = SimpleNamespace(name="packet-counter", config=PacketCounterConfig(), settings=None)

FIRST = build(Ethernet(), IPv4("10.0.0.1", "10.0.0.2"), TCP(40000, 80, flags=SYN))
ANSWER = build(Ethernet(), IPv4("10.0.0.2", "10.0.0.1"), TCP(80, 40000, flags=SYN | ACK))


@pytest.fixture
def bench() -> Iterator[DatapathBench]:
    stages = [("packet-counter", stage) for stage in plugin.axoneme_stages(CONTEXT)]
    with DatapathBench(stages, plugin.axoneme_maps(CONTEXT)) as bench:
        bench.workload(1, "client", identity=256, ipv4="10.0.0.1")
        bench.workload(2, "server", identity=257, ipv4="10.0.0.2")
        yield bench


def counts(bench: DatapathBench, workload: int) -> tuple[int, ...]:
    found = bench.map("packet_counts").lookup(workload)
    return tuple(int(found[field].sum()) for field in found.dtype.names)  # a value per CPU


def test_a_packet_between_two_workloads_counts_for_both(bench: DatapathBench) -> None:
    assert bench.run("from_workload", FIRST, sender="client").action == Action.REDIRECT
    assert counts(bench, 1) == (0, 0, 1, len(FIRST))
    assert counts(bench, 2) == (1, len(FIRST), 0, 0)


def test_packets_of_a_known_connection_count_as_well(bench: DatapathBench) -> None:
    for _ in range(2):
        bench.run("from_workload", FIRST, sender="client")
        bench.run("from_workload", ANSWER, sender="server")
    assert counts(bench, 1) == counts(bench, 2) == (2, 2 * len(ANSWER), 2, 2 * len(FIRST))
