"""Writes the Grafana dashboards of this folder. What they show is said here once; the JSON is for importing.

python contrib/dashboards/make.py
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

FOLDER: Final = Path(__file__).parent

#: Which targets of Prometheus are looked at: by the variable at the dashboard's top.
HERE: Final = 'instance=~"$instance"'


@frozen
class Panel:
    """One panel.

    :param queries: (PromQL, legend) each; `RATE` and `HERE` are put in.
    :param kind: timeseries, stat, bargauge, heatmap.
    :param unit: of Grafana: short, s, bytes, pps, Bps, reqps, percentunit.
    """

    title: str
    queries: Sequence[tuple[str, str]]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stack: bool = False
    text: str = ""


@frozen
class Row:
    title: str
    panels: Sequence[Panel]


@frozen
class Dashboard:
    uid: str
    title: str
    text: str
    rows: Sequence[Row]


def rate(metric: str, by: str = "", labels: str = "") -> str:
    """How often it rises per second, summed up by labels."""
    chosen = ", ".join(part for part in (HERE, labels) if part)
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{chosen}}}[$__rate_interval]))"


def total(metric: str, by: str = "", labels: str = "") -> str:
    """The sum of what it is now."""
    chosen = ", ".join(part for part in (HERE, labels) if part)
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} ({metric}{{{chosen}}})"


def quantile(share: float, metric: str, by: str = "", labels: str = "") -> str:
    """Below which that share of a histogram's observations is."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{metric}_bucket', grouped, labels)})"


def latency(title: str, metric: str, labels: str = "", width: int = 8) -> Panel:
    shares = ((0.5, "P50"), (0.9, "P90"), (0.99, "P99"))
    return Panel(title, [(quantile(s, metric, labels=labels), n) for s, n in shares], "s", width=width)


AGENT = Dashboard(
    "axoneme-agent", "Axoneme / Agent", "What the agent does: Cilium's metrics by Cilium's names.",
    [
        Row("Overview", [
            Panel("Workloads", [(total("cilium_endpoint"), "")], kind="stat", width=4),
            Panel("Policies", [(total("cilium_policy"), "")], kind="stat", width=4),
            Panel("Identities", [(total("cilium_identity"), "")], kind="stat", width=4),
            Panel("Forwarded", [(rate("cilium_forward_count_total"), "")], "pps", kind="stat", width=4),
            Panel("Dropped", [(rate("cilium_drop_count_total"), "")], "pps", kind="stat", width=4),
            Panel("Services failing", [(total("cilium_controllers_failing"), "")], kind="stat", width=4),
            Panel("Errors and warnings", [(rate("cilium_errors_warnings_total", "level, subsystem"), "{{level}} {{subsystem}}")]),
            Panel("CPU", [(rate("cilium_process_cpu_seconds_total", "instance"), "{{instance}}")], "percentunit"),
            Panel("Memory", [(total("cilium_process_resident_memory_bytes", "instance"), "{{instance}}")], "bytes"),
        ]),
        Row("Traffic", [
            Panel("Forwarded packets", [(rate("cilium_forward_count_total", "direction"), "{{direction}}")], "pps"),
            Panel("Forwarded bytes", [(rate("cilium_forward_bytes_total", "direction"), "{{direction}}")], "Bps"),
            Panel("Dropped bytes", [(rate("cilium_drop_bytes_total", "direction"), "{{direction}}")], "Bps"),
            Panel("Drops by reason, outwards", [(rate("cilium_drop_count_total", "reason", 'direction="EGRESS"'), "{{reason}}")], "pps", width=12, stack=True),
            Panel("Drops by reason, inwards", [(rate("cilium_drop_count_total", "reason", 'direction="INGRESS"'), "{{reason}}")], "pps", width=12, stack=True),
        ]),
        Row("Connection tables", [
            Panel("Entries", [(total("cilium_datapath_conntrack_gc_entries", "family", 'status="alive"'), "{{family}}")]),
            Panel("Passes", [(rate("cilium_datapath_conntrack_gc_runs_total", "family, status"), "{{family}} {{status}}")]),
            latency("Duration of a pass", "cilium_datapath_conntrack_gc_duration_seconds"),
            Panel("Refused, or gave way", [(rate("axoneme_connections_refused_total", "family"), "refused, {{family}}"), (rate("axoneme_connections_evicted_total"), "entries that gave way")], text="New connections that were refused: the table is too small. Entries give way only while no agent runs."),
            Panel("Events lost", [(rate("axoneme_events_lost_total"), "lost")]),
            Panel("Events", [(rate("axoneme_events_total", "type"), "{{type}}")], stack=True),
        ]),
        Row("Maps in the kernel", [
            Panel("Fullest maps", [(f"topk(10, max by (map_name) (cilium_bpf_map_pressure{{{HERE}}}))", "{{map_name}}")], "percentunit", "bargauge"),
            Panel("Operations", [(rate("cilium_bpf_map_ops_total", "map_name, operation"), "{{map_name}} {{operation}}")], "ops"),
            Panel("Operations that failed", [(rate("cilium_bpf_map_ops_total", "map_name, operation", 'outcome="fail"'), "{{map_name}} {{operation}}")], "ops"),
            Panel("Entries", [(total("axoneme_bpf_map_entries", "map_name"), "{{map_name}}")]),
            Panel("Memory of maps", [(total("cilium_bpf_maps_virtual_memory_max_bytes", "instance"), "{{instance}}")], "bytes"),
            Panel("Memory of programs", [(total("cilium_bpf_progs_virtual_memory_max_bytes", "instance"), "{{instance}}")], "bytes"),
        ]),
        Row("Workloads and policy", [
            Panel("Workloads by state", [(total("cilium_endpoint_state", "endpoint_state"), "{{endpoint_state}}")], stack=True),
            Panel("Enforcement", [(total("cilium_policy_endpoint_enforcement_status", "enforcement"), "{{enforcement}}")], stack=True),
            Panel("Identities by kind", [(total("cilium_identity", "type"), "{{type}}")], stack=True),
            latency("Update of the decision tables", "cilium_policy_incremental_update_duration"),
            Panel("Entries of the decision tables", [(total("axoneme_policy_entries", "table"), "{{table}}")]),
            Panel("Addresses given out", [(total("cilium_ip_addresses", "family"), "{{family}}")]),
        ]),
        Row("The agent itself", [
            latency("Calls of the local API", "cilium_agent_api_process_time_seconds"),
            Panel("Calls", [(rate("cilium_agent_api_process_time_seconds_count", "path, method"), "{{method}} {{path}}")], "reqps"),
            Panel("Calls by outcome", [(rate("cilium_agent_api_process_time_seconds_count", "return_code"), "{{return_code}}")], "reqps"),
            Panel("Start, by stage", [(total("cilium_agent_bootstrap_seconds", "scope", 'scope!="overall"'), "{{scope}}")], "s", "bargauge"),
            Panel("Health of services", [(total("cilium_hive_status", "status"), "{{status}}")], stack=True),
            Panel("Open files", [(total("cilium_process_open_fds", "instance"), "{{instance}}")]),
        ]),
    ],
)  # fmt: skip

HUBBLE = Dashboard(
    "axoneme-hubble", "Axoneme / Hubble", "What flows: needs the handlers flow, drop, tcp, icmp, port-distribution, policy, dns, httpV2 and flows-to-world.",
    [
        Row("Flows", [
            Panel("Flows by verdict", [(rate("hubble_flows_processed_total", "verdict"), "{{verdict}}")], "ops", stack=True),
            Panel("Flows by type", [(rate("hubble_flows_processed_total", "type, subtype"), "{{type}} {{subtype}}")], "ops", stack=True),
            Panel("Flows by protocol", [(rate("hubble_flows_processed_total", "protocol"), "{{protocol}}")], "ops", stack=True),
            Panel("Ports", [(f"topk(10, {rate('hubble_port_distribution_total', 'protocol, port')})", "{{protocol}} {{port}}")], "ops"),
            Panel("To the world", [(rate("hubble_flows_to_world_total", "protocol, verdict"), "{{protocol}} {{verdict}}")], "ops"),
            Panel("Lost events", [(rate("hubble_lost_events_total", "source"), "{{source}}")], "ops", text="More than none: what is shown is not all."),
        ]),
        Row("Drops and policy", [
            Panel("Drops by reason", [(rate("hubble_drop_total", "reason"), "{{reason}}")], "ops", stack=True, width=12),
            Panel("Drops by protocol", [(rate("hubble_drop_total", "protocol"), "{{protocol}}")], "ops", stack=True, width=12),
            Panel("Verdicts of policies", [(rate("hubble_policy_verdicts_total", "direction, action"), "{{direction}} {{action}}")], "ops", width=12),
            Panel("What rules matched by", [(rate("hubble_policy_verdicts_total", "match"), "{{match}}")], "ops", width=12),
        ]),
        Row("TCP and ICMP", [
            Panel("TCP flags", [(rate("hubble_tcp_flags_total", "flag, family"), "{{flag}} {{family}}")], "ops"),
            Panel("Connections that were reset", [(
                rate("hubble_tcp_flags_total", "family", "flag=" + chr(34) + "RST" + chr(34)), "{{family}}",
            )], "ops"),
            Panel("ICMP", [(rate("hubble_icmp_total", "family, type"), "{{family}} {{type}}")], "ops"),
        ]),
        Row("HTTP", [
            Panel("Requests by status", [(rate("hubble_http_requests_total", "status"), "{{status}}")], "reqps", stack=True),
            Panel("Share of errors", [(f"{rate('hubble_http_requests_total', labels='status=~' + chr(34) + '5..' + chr(34))} / {rate('hubble_http_requests_total')}", "5xx")], "percentunit"),
            latency("Duration of requests", "hubble_http_request_duration_seconds"),
        ]),
        Row("DNS", [
            Panel("Questions", [(rate("hubble_dns_queries_total", "qtypes"), "{{qtypes}}")], "reqps"),
            Panel("Answers", [(rate("hubble_dns_responses_total", "rcode"), "{{rcode}}")], "reqps", stack=True),
            Panel("Questions that nobody answered", [(f"{rate('hubble_dns_queries_total')} - {rate('hubble_dns_responses_total')}", "missing")], "reqps"),
        ]),
    ],
)  # fmt: skip

MESH = Dashboard(
    "axoneme-mesh", "Axoneme / Service mesh", "The few numbers to watch first.",
    [
        Row("Agent", [
            Panel("Calls of the API", [(rate("cilium_agent_api_process_time_seconds_sum", "path") + " / " + rate("cilium_agent_api_process_time_seconds_count", "path"), "{{path}}")], "s", text="Mean duration."),
            Panel("Start of the agent", [(total("cilium_agent_bootstrap_seconds", "instance", 'scope="overall"'), "{{instance}}")], "s", "stat"),
            Panel("Map operations", [(rate("cilium_bpf_map_ops_total", "operation, outcome"), "{{operation}} {{outcome}}")], "ops"),
        ]),
        Row("Service mesh", [
            latency("Answers through the proxy", "cilium_proxy_upstream_reply_seconds", 'scope="totalTime"'),
            Panel("Decisions that need a proxy", [(total("cilium_proxy_redirects", "protocol_l7"), "{{protocol_l7}}")]),
            Panel("Authenticated pairs", [(total("axoneme_bpf_map_entries", "map_name", 'map_name=~"auth.*"'), "{{map_name}}")], text="Entries of the map that mutual authentication fills."),
            Panel("Layer 7 by outcome", [(rate("cilium_policy_l7_total", "proxy_type, rule"), "{{proxy_type}} {{rule}}")], "reqps", width=12),
            Panel("Dropped for want of authentication", [(rate("cilium_drop_count_total", "direction", 'reason="Authentication required"'), "{{direction}}")], "pps", width=12),
        ]),
        Row("Hubble", [
            Panel("Flows", [(rate("hubble_flows_processed_total", "type, verdict"), "{{type}} {{verdict}}")], "ops", stack=True, width=12),
            Panel("TCP flags", [(rate("hubble_tcp_flags_total", "flag"), "{{flag}}")], "ops", width=12),
        ]),
    ],
)  # fmt: skip

DASHBOARDS: Final = (AGENT, HUBBLE, MESH)


def model(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana imports it (schema 39, Grafana 10 and later)."""
    source = {"type": "prometheus", "uid": "${source}"}
    return {
        "uid": dashboard.uid, "title": dashboard.title, "description": dashboard.text, "tags": ["axoneme"],
        "schemaVersion": 39, "editable": True, "refresh": "30s", "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser", "graphTooltip": 1, "annotations": {"list": []},
        "templating": {"list": [
            {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            {
                "name": "instance", "label": "Node", "type": "query", "datasource": source, "refresh": 2, "sort": 1,
                "query": {"query": "label_values(up, instance)", "refId": "instance"}, "includeAll": True, "multi": True,
                "allValue": ".*", "current": {"text": "All", "value": "$__all"},
            },
        ]},
        "panels": list(_panels(dashboard, source)),
    }  # fmt: skip


def _panels(dashboard: Dashboard, source: dict[str, str]) -> Iterator[dict[str, Any]]:
    number, y = 0, 0
    for row in dashboard.rows:
        number += 1
        yield {"id": number, "type": "row", "title": row.title, "collapsed": False, "panels": [], "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}}  # fmt: skip
        y, x, tallest = y + 1, 0, 0
        for panel in row.panels:
            height = 4 if panel.kind == "stat" and panel.width < 8 else 8
            if x + panel.width > 24:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            place = {"x": x, "y": y, "w": panel.width, "h": height}
            yield _panel(panel, source) | {"id": number, "gridPos": place}
            x, tallest = x + panel.width, max(tallest, height)
        y += tallest


def _panel(panel: Panel, source: dict[str, str]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        stack = {"mode": "normal" if panel.stack else "none", "group": "A"}
        defaults["custom"] = {
            "lineWidth": 1,
            "fillOpacity": 18 if panel.stack else 6,
            "showPoints": "never",
            "stacking": stack,
        }
        options = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        options |= {"orientation": "horizontal", "displayMode": "basic"} if panel.kind == "bargauge" else {}
    return {
        "type": panel.kind, "title": panel.title, "description": panel.text, "datasource": source,
        "fieldConfig": {"defaults": defaults, "overrides": []}, "options": options,
        "targets": [
            {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend or "__auto", "datasource": source}
            for i, (query, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip


def text(dashboard: Dashboard) -> str:
    return json.dumps(model(dashboard), indent=1) + "\n"


if __name__ == "__main__":
    for one in DASHBOARDS:
        (FOLDER / f"{one.uid}.json").write_text(text(one))
