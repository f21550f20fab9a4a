"""The map of the counts, and what is read from it."""

from __future__ import annotations

from collections.abc import Mapping

from attrs import asdict, frozen

from axoneme.core.api.wire import RequestError
from axoneme.core.datapath.layout import Struct, u32, u64
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.plugin import PluginContext
from axoneme.core.records import Health, Level
from axoneme.core.workloads.endpoints import ENDPOINTS, Endpoint

#: The layout's one home: the C struct of the stage and the numpy dtype of `Map.items` both come from here.
COUNTS = Struct("packet_counts", {"in_packets": u64, "in_bytes": u64, "out_packets": u64, "out_bytes": u64})


@frozen(kw_only=True)
class Counts:
    """A workload's traffic. Bytes are those of whole frames, with their Ethernet header."""

    workload: str
    in_packets: int
    in_bytes: int
    out_packets: int
    out_bytes: int


def counts_map(workloads: int) -> MapSpec:
    """The map: counts by the workload's endpoint id, with one value per CPU, so that CPUs don't wait for each other."""
    return MapSpec("packet_counts", MapKind.PERCPU_HASH, u32, COUNTS, workloads, doc="packets per workload")


def read(context: PluginContext) -> list[Counts]:
    """The counts of all workloads that are there, summed over the CPUs; the busiest first."""
    keys, values = context.map("packet_counts").items()  # values: one row per workload, one column per CPU
    totals = {field: values[field].sum(axis=1).tolist() for field in COUNTS.fields}
    endpoints = context.state.table(ENDPOINTS.name, Endpoint)
    rows = [
        Counts(workload=endpoint.uid, **{field: totals[field][at] for field in totals})
        for at, key in enumerate(keys.tolist())
        if (endpoint := endpoints.get(key)) is not None
    ]
    return sorted(rows, key=lambda row: (-row.in_bytes - row.out_bytes, row.workload))


def top(context: PluginContext, count: int | None = None) -> list[dict[str, object]]:
    """What the API answers. Raises `RequestError`: whoever asks may send anything."""
    count = context.config.top if count is None else count
    if type(count) is not int or count < 1:
        raise RequestError(f"count is {count!r}, not a positive number")
    return [asdict(row) for row in read(context)[:count]]


def health(context: PluginContext) -> Health:
    """Degraded when the map is full: then some workloads are not counted, and somebody has to know."""
    if len(context.map("packet_counts").items()[0]) < context.config.workloads:
        return Health(level=Level.OK)
    reason = (
        f"no room for more than {context.config.workloads} workloads; raise plugins.packet-counter.workloads"
    )
    return Health(level=Level.DEGRADED, reason=reason)


def packets(context: PluginContext) -> Mapping[tuple[str, ...], float]:
    """The metric: values by (workload, direction)."""
    values: dict[tuple[str, ...], float] = {}
    for row in read(context):
        values |= {(row.workload, "in"): row.in_packets, (row.workload, "out"): row.out_packets}
    return values
