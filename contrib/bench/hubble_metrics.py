"""What it costs to count a flow, and to show it: ten handlers, as an administrator would configure them, fed from the columns of the ring.

The flows are of 1,000 pairs of workloads and 20 services, in random order, new connections and drops. The second figure is
a flood: each flow comes from an address that was never seen, and addresses are labels.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
from figures import Figure

from axoneme.core.events.rules import RULES, Rule
from axoneme.core.state.table import State
from axoneme.plugins.hubble.columns import Has, View, empty
from axoneme.plugins.hubble.metrics.feed import Feed
from axoneme.plugins.hubble.metrics.options import parse
from axoneme.plugins.hubble.metrics.registry import Metrics
from axoneme.plugins.hubble.names import Names
from axoneme.plugins.hubble.observer import Batch
from axoneme.plugins.hubble.policies import Policies
from axoneme.plugins.hubble.proto.flow_pb2 import Endpoint
from axoneme.plugins.hubble.ui.edges import Edges
from axoneme.plugins.hubble.ui.parties import Parties
from axoneme.plugins.hubble.uuids import Uuids
from axoneme.plugins.hubble.wire import Wire

FLOWS, WORKLOADS, SERVICES = 65_536, 1000, 20

_CONTEXT = "labelsContext=source_namespace,source_workload,destination_namespace,destination_workload"
HANDLERS = [
    f"{name}:{_CONTEXT}"
    for name in ("dns", "drop", "tcp", "flow", "icmp", "httpV2", "kafka", "policy", "port-distribution", "flows-to-world")
]  # fmt: skip
WITH_ADDRESSES = ["flow:sourceContext=ip", "drop:sourceContext=ip"]


def figures() -> list[Figure]:
    return [
        Figure(
            name="hubble.metrics", unit="ns", limit=100,
            what="to count a flow by ten handlers with workloads as labels", measure=lambda n: measured(n, HANDLERS),
        ),
        Figure(
            name="hubble.metrics.flood", unit="ns", limit=3000,
            what="the same with addresses as labels, all of them new, when there is no room for more series",
            measure=lambda n: measured(n, WITH_ADDRESSES, floods=4),
        ),
        Figure(
            name="hubble.ui.edges", unit="ns", limit=1000,
            what="to add a flow up for the page's map, a second's 65,536 flows at a time", measure=edges,
        ),
    ]  # fmt: skip


def edges(rounds: int) -> list[float]:
    """ns of the process's time per flow."""
    given, samples = batch(0), []
    parties = Parties(given.view.names)
    for _ in range(rounds):
        begin = time.process_time_ns()
        Edges(parties).add(given.view, np.arange(FLOWS))
        samples.append((time.process_time_ns() - begin) / FLOWS)
    return samples


def measured(rounds: int, handlers: Sequence[str], *, floods: int = 0) -> list[float]:
    """ns of the process's time per flow.

    :param floods: batches of new addresses beforehand, and each measured one has new addresses as well; 0: always the same.
    """
    feed, samples = Feed(Metrics(parse(handlers), limit=10_000)), []
    for number in range(floods or 1):
        feed.add(batch(number))
    for number in range(floods, floods + rounds):
        given = batch(number if floods else 0)
        begin = time.process_time_ns()
        feed.add(given)
        samples.append((time.process_time_ns() - begin) / FLOWS)
    return samples


def batch(number: int) -> Batch:
    """One full batch of flows, of as many addresses, other ones in each."""
    random, names = np.random.default_rng(1), Names()
    numbers = np.array([names.endpoints.number(endpoint(n)) for n in range(WORKLOADS + SERVICES)], np.uint32)
    columns = empty(FLOWS)
    columns["time"][:] = np.arange(1, FLOWS + 1)
    columns["source"] = numbers[random.integers(0, WORKLOADS, FLOWS)]
    columns["destination"] = numbers[WORKLOADS + columns["source"] % SERVICES]
    columns["source_low"] = (0xFFFF << 32 | 0x0A000000) + np.arange(FLOWS, dtype=np.uint64) + FLOWS * number
    columns["source_port"] = random.integers(1024, 65535, FLOWS).astype(np.uint16)
    columns["destination_port"][:] = 8080
    dropped = random.random(FLOWS) < 0.1
    for name, usual, drop in (
        ("event_type", 4, 1), ("verdict", 1, 2), ("drop_reason", 0, 133), ("reply", 1, 0), ("sub_type", 3, 133),
    ):  # fmt: skip
        columns[name] = np.where(dropped, drop, usual).astype(columns[name].dtype)
    columns["protocol"][:], columns["ip_version"][:], columns["direction"][:] = 1, 1, 2
    columns["tcp_flags"][:] = 1 << 15 | 2
    columns["has"][:] = Has.SOURCE_IP | Has.DESTINATION_IP | Has.EVENT_TYPE | Has.PORTS
    rules = State((RULES,)).table(RULES.name, Rule)
    return Batch(View(0, columns, names), Wire(Uuids(), Policies(rules)))


def endpoint(number: int) -> Endpoint:
    return Endpoint(
        ID=number + 1,
        identity=1000 + number,
        namespace="bench",
        pod_name=f"pod{number}",
        labels=[f"k8s:app=app{number}", "k8s:io.kubernetes.pod.namespace=bench"],
        workloads=[{"name": f"app{number}", "kind": "Deployment"}],
    )
