"""The core's own metrics, under Cilium's names where Cilium has the same thing. Read when asked for, never pushed."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from axoneme.core import logs
from axoneme.core.records import Distribution, Metric

if TYPE_CHECKING:
    from axoneme.core.agent import Agent
    from axoneme.core.datapath.collector import Collector

Labels = tuple[str, ...]
Numbers = Mapping[Labels, float]

#: Stages of the start, in Cilium's words where it has one for the same.
_SCOPES: Final = {
    "folders": "earlyInit",
    "programs": "bpfBase",
    "workloads": "restore",
    "services": "daemonInit",
}

#: States of endpoints, likewise.
_STATES: Final = {
    "creating": "waiting-to-regenerate",
    "ready": "ready",
    "removing": "disconnecting",
    "failed": "invalid",
}

_FAMILIES: Final = {4: "ipv4", 6: "ipv6"}
_CLUSTER_IDENTITIES: Final = range(256, 1 << 24)


class CoreMetrics:
    """Reads numbers off an agent's parts."""

    def __init__(self, agent: Agent, collector: Collector) -> None:
        self._agent = agent
        self._collector = collector

    def records(self) -> list[Metric]:
        return [*self._traffic(), *self._connections(), *self._workloads(), *self._maps(), *self._process()]

    # What passes

    def _traffic(self) -> list[Metric]:
        return [
            Metric.counter("axoneme_packets_total", "packets by reason and direction", self._packets, "reason", "direction"),
            Metric.counter("cilium_drop_count_total", "packets dropped", lambda: self._dropped("packets"), "reason", "direction"),
            Metric.counter("cilium_drop_bytes_total", "bytes dropped", lambda: self._dropped("bytes"), "reason", "direction"),
            Metric.counter("cilium_forward_count_total", "packets forwarded", lambda: self._forwarded("packets"), "direction"),
            Metric.counter("cilium_forward_bytes_total", "bytes forwarded", lambda: self._forwarded("bytes"), "direction"),
            Metric.counter("axoneme_events_total", "events read from the ring, by type", self._events, "type"),
            Metric.counter(
                "axoneme_events_lost_total", "events that found no room in the ring", lambda: float(self._agent.events.lost)
            ),
        ]  # fmt: skip

    def _packets(self) -> Numbers:
        return {
            (row["reason"] or str(row["number"]), row["direction"]): float(row["packets"])
            for row in self._agent.datapath.counters()
        }

    def _dropped(self, unit: str) -> Numbers:
        from axoneme.core.datapath.reasons import SLOTS

        build = self._agent.datapath.active
        texts = {reason.number: reason.text for reason in build.blueprint.reasons} if build else {}
        return {
            (texts.get(row["number"], str(row["number"])), row["direction"].upper()): float(row[unit])
            for row in self._agent.datapath.counters()
            if row["number"] not in SLOTS
        }

    def _forwarded(self, unit: str) -> Numbers:
        from axoneme.core.datapath.reasons import FORWARDED

        return {
            (row["direction"].upper(),): float(row[unit])
            for row in self._agent.datapath.counters()
            if row["number"] == FORWARDED
        }

    def _events(self) -> Numbers:
        return {(kind.name.lower(),): float(number) for kind, number in self._agent.events.counts.items()}

    # Who is connected

    def _connections(self) -> list[Metric]:
        tables = self._collector.tables.items
        gc = ("family", "protocol", "status")
        return [
            Metric.gauge(
                "axoneme_connections", "entries of the connection tables; two per connection",
                lambda: {(f"IPv{family}",): float(table.entries) for family, table in tables()}, "family",
            ),
            Metric.gauge(
                "axoneme_connections_limit", "entries from which on new connections are refused",
                lambda: {(f"IPv{family}",): float(table.limit) for family, table in tables()}, "family",
            ),
            Metric.counter(
                "axoneme_connections_refused_total", "packets of new connections for which the table had no room",
                lambda: {(f"IPv{family}",): float(table.refused) for family, table in tables()}, "family",
            ),
            Metric.counter(
                "axoneme_connections_evicted_total", "entries that gave way because no agent made room",
                lambda: float(self._collector.evicted),
            ),
            Metric.gauge("cilium_datapath_conntrack_gc_entries", "entries at the end of the last pass", self._gc_entries, *gc),
            Metric.counter(
                "cilium_datapath_conntrack_gc_runs_total", "passes over the connection tables",
                lambda: {(_FAMILIES[f], "any", "completed"): float(t.runs) for f, t in tables()}, *gc,
            ),
            Metric.histogram("cilium_datapath_conntrack_gc_duration_seconds", "duration of a pass", self._gc_seconds, *gc),
            Metric.gauge(
                "cilium_datapath_conntrack_gc_interval_seconds", "time between two passes",
                lambda: {("global",): self._agent.settings.datapath.timeouts.gc_interval}, "global",
            ),
        ]  # fmt: skip

    def _gc_entries(self) -> Numbers:
        return {
            (_FAMILIES[family], "any", status): float(number)
            for family, table in self._collector.tables.items()
            for status, number in (("alive", table.entries), ("deleted", table.expired))
        }

    def _gc_seconds(self) -> Mapping[Labels, Distribution]:
        return {
            (_FAMILIES[family], "any", "completed"): table.seconds.read()[()]
            for family, table in self._collector.tables.items()
            if table.runs
        }

    # Who is there

    def _workloads(self) -> list[Metric]:
        table = self._agent.runtime.state.table if self._agent.runtime else None
        assert table is not None, "contributions are made by a started agent"
        return [
            Metric.gauge("cilium_endpoint", "workloads of this node", lambda: float(len(table("endpoints")))),
            Metric.gauge("cilium_endpoint_state", "workloads by state", self._states, "endpoint_state"),
            Metric.gauge("cilium_identity", "identities known, by kind", self._identities, "type"),
            Metric.gauge("cilium_identity_label_sources", "identities by source of labels", self._label_sources, "source"),
            Metric.gauge("cilium_ip_addresses", "addresses given to workloads", self._addresses, "family"),
            Metric.gauge("cilium_ipam_capacity", "addresses in the pools", self._capacity, "family"),
            Metric.gauge("cilium_nodes_all_num", "nodes known, this one included", lambda: 1.0),
            Metric.gauge("axoneme_resources", "resource objects by kind and state", self._resources, "kind", "state"),
        ]  # fmt: skip

    def _states(self) -> Numbers:
        found = Counter(_STATES[endpoint.state.value] for endpoint in self._agent.state.table("endpoints"))
        return {(state,): float(found[state]) for state in _STATES.values()}

    def _identities(self) -> Numbers:
        kinds: Counter[str] = Counter(reserved=0, cluster_local=0, node_local=0)
        for identity in self._agent.state.table("identities"):
            kinds[_identity_kind(identity.number)] += 1
        return {(kind,): float(number) for kind, number in kinds.items()}

    def _label_sources(self) -> Numbers:
        sources: Counter[str] = Counter()
        for identity in self._agent.state.table("identities"):
            sources.update({label.partition(":")[0] for label in identity.labels})
        return {(source,): float(number) for source, number in sources.items()}

    def _addresses(self) -> Numbers:
        counts = Counter(
            _FAMILIES[address.version]
            for endpoint in self._agent.state.table("endpoints")
            for address in endpoint.addresses
        )
        return {(family,): float(counts[family]) for family in _FAMILIES.values()}

    def _capacity(self) -> Numbers:
        pools = self._agent.settings.pools
        return {
            (_FAMILIES[pool.version],): float(pool.num_addresses) for pool in (pools.ipv4, pools.ipv6) if pool
        }

    def _resources(self) -> Numbers:
        counts: Counter[Labels] = Counter(
            (row.kind, row.status.value) for row in self._agent.state.table("resources")
        )
        return {labels: float(number) for labels, number in counts.items()}

    # What is in the kernel

    def _maps(self) -> list[Metric]:
        from axoneme.core.datapath.usage import OPERATIONS

        return [
            Metric.counter(
                "cilium_bpf_map_ops_total", "entries written to and deleted from maps", OPERATIONS.read,
                "map_name", "operation", "outcome",
            ),
            Metric.gauge("cilium_bpf_map_pressure", "how full maps are, 0 to 1", self._pressure, "map_name"),
            Metric.gauge("cilium_bpf_map_capacity", "entries that maps have room for", self._map_capacity, "map_group"),
            Metric.gauge("axoneme_bpf_map_entries", "entries of maps, when last read", self._map_entries, "map_name"),
            Metric.gauge("cilium_bpf_maps", "maps that are open", lambda: float(len(self._open_maps()))),
            Metric.gauge("cilium_bpf_progs", "programs that are loaded", lambda: float(len(self._programs()))),
            Metric.gauge(
                "cilium_bpf_maps_virtual_memory_max_bytes", "memory of the maps",
                lambda: sum(_memory(each.fd) for each in self._open_maps().values()),
            ),
            Metric.gauge(
                "cilium_bpf_progs_virtual_memory_max_bytes", "memory of the programs",
                lambda: sum(_memory(fd) for fd in self._programs()),
            ),
        ]  # fmt: skip

    def _open_maps(self) -> Mapping[str, Any]:
        build = self._agent.datapath.active
        return build.maps if build else {}

    def _programs(self) -> list[int]:
        build = self._agent.datapath.active
        loaded = build.programs.values() if build else ()
        return [program.fd for each in loaded for program in each.programs]

    def _map_entries(self) -> Numbers:
        """Of maps whose entries come and go. An ipcache is too large to be read for that: the table knows."""
        prefixes = Counter(f"ipcache{entry.prefix.version}" for entry in self._agent.state.table("ipcache"))
        return {
            (name,): float(prefixes[name] if name.startswith("ipcache") else each.count())
            for name, each in self._open_maps().items()
            if _counted(each)
        }

    def _pressure(self) -> Numbers:
        """Only of maps that hold anything, as with Cilium."""
        maps = self._open_maps()
        return {
            labels: entries / _room(maps[labels[0]])
            for labels, entries in self._map_entries().items()
            if entries
        }

    def _map_capacity(self) -> Numbers:
        return {(name,): float(_room(each)) for name, each in self._open_maps().items() if _counted(each)}

    # The agent itself

    def _process(self) -> list[Metric]:
        from axoneme.core.api.server import SECONDS
        from axoneme.core.version import version

        build = (version(), "", platform.machine())
        return [
            Metric.gauge("cilium_version", "the agent's version", lambda: {build: 1.0}, "version", "revision", "arch"),
            Metric.gauge("cilium_agent_bootstrap_seconds", "duration of the start", self._bootstrap, "scope", "outcome"),
            Metric.histogram(
                "cilium_agent_api_process_time_seconds", "duration of calls of the local API", SECONDS.read,
                "path", "method", "return_code",
            ),
            Metric.counter(
                "cilium_errors_warnings_total", "errors and warnings logged",
                lambda: {labels: float(number) for labels, number in logs.TROUBLES.items()}, "level", "subsystem",
            ),
            Metric.gauge("cilium_hive_status", "services and checks by health", self._health, "status"),
            Metric.gauge("cilium_controllers_failing", "services that fail", self._failing),
        ]  # fmt: skip

    def _bootstrap(self) -> Numbers:
        stages = self._agent.stages
        seconds: dict[Labels, float] = {
            (_SCOPES.get(name, name), "success"): took for name, took in stages.items()
        }
        return seconds | {("overall", "success"): sum(stages.values())}

    def _health(self) -> Numbers:
        levels = Counter({"ok": 0, "degraded": 0, "failed": 0, "unknown": 0})
        levels.update(service.health().level.value for service in self._services())
        return {(level,): float(number) for level, number in levels.items()}

    def _failing(self) -> float:
        return float(sum(service.health().level.value == "failed" for service in self._services()))

    def _services(self) -> list[Any]:
        generation = self._agent.generation
        return generation.services if generation else []


def _identity_kind(number: int) -> str:
    if number < _CLUSTER_IDENTITIES.start:
        return "reserved"
    return "cluster_local" if number in _CLUSTER_IDENTITIES else "node_local"


def _room(each: Any) -> int:
    """Entries that a map may have: the connection tables have a reserve that is none."""
    from axoneme.core.datapath.admission import limit_of

    room: int = limit_of(each) if each.spec.name.startswith("connections") else each.spec.max_entries
    return room


def _counted(each: Any) -> bool:
    spec = each.spec
    return spec.key is not None and not spec.kind.indexed and spec.kind.listable


def _memory(fd: int) -> float:
    """Bytes that the kernel charges for a map or program (`memlock` in proc_pid_fdinfo(5)); 0 when it does not tell."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
    except OSError:
        return 0.0
    return float(lines.get("memlock", "0"))


Read = Callable[[], Any]
