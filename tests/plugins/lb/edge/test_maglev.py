"""Maglev's laws, by the programs themselves: real tables of the default size, and tens of thousands of new flows.

What is measured is a sample of flows with fixed seeds, so each law gets three standard deviations of a sample of that size: of `n`
flows of which each is counted with a probability `p`, `sqrt(p (1 - p) / n)` is one.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Sequence

import numpy as np
import pytest
from attrs import define
from edge_world import Edge, Xdp

from axoneme.core.datapath.testrun import SK_BUFF, XDP_MD
from axoneme.core.testing.packets import SYN
from axoneme.plugins.lb.config import LbConfig
from axoneme.plugins.lb.maps import Algorithm
from axoneme.plugins.lb.numbers import Room
from axoneme.plugins.lb.stretches import Stretches

pytestmark = pytest.mark.kernel

FLOWS, COUNT, WEIGHTS = 40_000, 9, (5, 4, 3, 2, 1)


def three_deviations(probability: float, flows: int = FLOWS) -> float:
    return 3 * math.sqrt(probability * (1 - probability) / flows)


@define
class Backends:
    """So many backends elsewhere, with tables as the agent computes and places them."""

    edge: Edge
    addresses: list[str]
    stretches: Stretches

    def serve(self, numbers: Sequence[int], weights: Sequence[int]) -> None:
        members = tuple(
            (ipaddress.ip_address(self.addresses[n]).packed + bytes([31, 144, 6]), weight)
            for n, weight in zip(numbers, weights, strict=True)
        )
        by_key = {key: n + 1 for (key, _), n in zip(members, numbers, strict=True)}
        _, first, content = self.stretches.use(members, LbConfig().maglev_size, by_key.__getitem__)
        assert content is not None
        slots = np.frombuffer(content, np.uint32)
        self.edge.bench.map("lb_slots").update_batch(
            np.arange(first, first + len(slots), dtype=np.uint32), slots
        )
        key, value = (rows[0] for rows in self.edge.bench.map(f"lb_services{self.edge.family}").items())
        row = {name: value[name] for name in ("number", "algorithm")} | {"first": first, "count": len(slots)}
        self.edge.bench.map(f"lb_services{self.edge.family}").update(key, row)


@pytest.fixture
def backends(edge: Edge) -> Backends:
    prefix = "10.1.0." if edge.family == 4 else "fd01::"
    addresses = [f"{prefix}{number + 1}" for number in range(COUNT)]
    for number, address in enumerate(addresses, 1):
        edge.backend(number, address, 8080)
    edge.service(1, algorithm=int(Algorithm.MAGLEV))
    return Backends(edge, addresses, Stretches(Room(65_536)))


def flows(edge: Edge, seed: int) -> list[bytes]:
    """First packets of clients with any addresses and ports outside. Nobody looks at their sums here."""
    generator = np.random.default_rng(seed)
    frame = bytearray(edge.tcp("world", edge.vip, SYN))
    host, port = (29, 34) if edge.family == 4 else (37, 54)
    made = []
    for number in generator.choice(255 << 16, FLOWS, replace=False).tolist():  # no two alike
        client = number.to_bytes(3, "big")
        frame[host] = client[0] + (edge.family == 4)
        frame[port : port + 2] = client[1:]
        made.append(bytes(frame))
    return made


def chosen(
    edge: Edge, frames: list[bytes], point: str = "xdp_network"
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """The index of the backend that each new flow goes to."""
    edge.reset_connections()
    bench, device = edge.bench, edge.bench.link("uplink")
    fd, run = bench.program(point).main.fd, bench.kernel.program_test_run
    context = SK_BUFF.pack(ifindex=device, ingress_ifindex=device)
    if point == "xdp_network":
        context = XDP_MD.pack(data_end=len(frames[0]), ingress_ifindex=device)
    last = 33 if edge.family == 4 else 53
    gone_on = Xdp.TX if point == "xdp_network" else 7

    def work() -> list[int]:
        found = []
        for at, frame in enumerate(frames):
            done = run(fd, frame, context=context)
            assert done.retval == gone_on
            found.append(done.data[last] - 1)
            if at % 4096 == 0:
                bench.ring.read()
        return found

    return np.array(bench.inside(work))


def check_loads(found: np.ndarray[tuple[int], np.dtype[np.int64]], weights: Sequence[int]) -> None:
    counts = np.bincount(found, minlength=len(weights))
    for count, weight in zip(counts.tolist(), weights, strict=True):
        share = weight / sum(weights)
        assert abs(count / len(found) - share) <= 0.02 * share + three_deviations(share, len(found)), (
            count,
            share,
        )


def test_one_of_nine_backends_goes_and_comes(backends: Backends) -> None:
    """At most 1/N + 1 % of the flows move: its own, and 1 % of the others'. Loads are within 2 % of equal shares."""
    edge, gone = backends.edge, 3
    frames, everybody = flows(edge, 20 + edge.family), range(COUNT)
    backends.serve(everybody, [1] * COUNT)
    before = chosen(edge, frames)
    check_loads(before, [1] * COUNT)
    backends.serve([number for number in everybody if number != gone], [1] * (COUNT - 1))
    after = chosen(edge, frames)
    assert not (after == gone).any()
    moved = before != after
    assert moved.mean() <= 1 / COUNT + 0.01 + three_deviations(1 / COUNT + 0.01)
    assert (moved & (before != gone)).mean() <= 0.01 + three_deviations(0.01), "besides its own"
    check_loads(np.where(after > gone, after - 1, after), [1] * (COUNT - 1))


def test_loads_follow_the_weights(backends: Backends) -> None:
    backends.serve(range(len(WEIGHTS)), WEIGHTS)
    frames = flows(backends.edge, 30 + backends.edge.family)[: FLOWS // 2]  # each backend has 29,000 ports
    found = chosen(backends.edge, frames)
    check_loads(found, WEIGHTS)
    by_the_classifier = chosen(backends.edge, frames[: FLOWS // 10], "from_network")
    assert (by_the_classifier == found[: FLOWS // 10]).all(), "the same flow goes to the same one"
