"""What `hubble status`, `list`, `watch` and `observe agent-events` print, byte for byte as the real command does."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final

from axoneme.plugins.hubble import jsonpb
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2, peer_pb2

NOT_AVAILABLE: Final = "N/A"
_UNITS: Final = (("h", 3600 * 10**9), ("m", 60 * 10**9))


def table(rows: Sequence[Sequence[str]], padding: int = 3) -> str:
    """Columns with spaces between them; the last one of a row is not padded."""
    widths = [
        max((len(row[i]) for row in rows if len(row) > i + 1), default=0) for i in range(max(map(len, rows)))
    ]
    lines = (
        "".join([cell.ljust(w + padding) for cell, w in zip(row[:-1], widths, strict=False)] + [row[-1]])
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)


def go_duration(nanoseconds: int) -> str:
    """As Go prints a `time.Duration`: `1h1m1s`, `1.5s`, `2ms`."""
    if nanoseconds < 10**9:
        for unit, scale in (("ms", 10**6), ("µs", 10**3)):
            if nanoseconds >= scale:
                return _decimal(nanoseconds, scale) + unit
        return f"{nanoseconds}ns" if nanoseconds else "0s"
    text, rest = "", nanoseconds
    for unit, scale in _UNITS:
        if rest >= scale or text:
            text += f"{rest // scale}{unit}"
            rest %= scale
    return f"{text}{_decimal(rest, 10**9)}s"


def _decimal(value: int, scale: int) -> str:
    fraction = str(value % scale).rjust(len(str(scale)) - 1, "0").rstrip("0")
    return f"{value // scale}.{fraction}" if fraction else str(value // scale)


def json_list(messages: Iterable[Any]) -> str:
    """As Go's `json.MarshalIndent` with two spaces."""
    items = [json.loads(jsonpb.text(message)) for message in messages]
    return json.dumps(items, indent=2, ensure_ascii=False) + "\n" if items else "null\n"


def status(response: observer_pb2.ServerStatusResponse, output: str) -> str:
    """In one of the formats compact, dict, json and table."""
    if output == "json":
        return jsonpb.text(response) + "\n"
    if output == "compact":
        return _status_compact(response)
    rate = f"{response.flows_rate:.2f}" if response.flows_rate > 0 else NOT_AVAILABLE
    values = [
        f"{response.num_flows:,}", f"{response.max_flows:,}", f"{response.seen_flows:,}", rate,
        go_duration(response.uptime_ns), _optional(response, "num_connected_nodes"),
        _optional(response, "num_unavailable_nodes"), response.version,
    ]  # fmt: skip
    names = ["NUM FLOWS", "MAX FLOWS", "SEEN FLOWS", "FLOWS PER SECOND", "UPTIME", "NUM CONNECTED NODES"]
    if output == "table":
        return table([[*names, "NUM UNAVAILABLE NODES", "VERSION"], values])
    names += ["NUM UNAVAIL. NODES", "VERSION"]
    return "".join(f"{name:>19}: {value}\n" for name, value in zip(names, values, strict=True))


def _optional(response: observer_pb2.ServerStatusResponse, field: str) -> str:
    return str(getattr(response, field).value) if response.HasField(field) else NOT_AVAILABLE


def _status_compact(response: observer_pb2.ServerStatusResponse) -> str:
    share = f" ({response.num_flows / response.max_flows * 100:.2f}%)" if response.max_flows else ""
    rate = f"{response.flows_rate:.2f}" if response.flows_rate > 0 else NOT_AVAILABLE
    if rate == NOT_AVAILABLE and response.uptime_ns:
        rate = f"{response.seen_flows / response.uptime_ns * 1e9:.2f}"
    lines = [f"Current/Max Flows: {response.num_flows:,}/{response.max_flows:,}{share}", f"Flows/s: {rate}"]
    missing = response.num_unavailable_nodes.value
    if response.HasField("num_connected_nodes"):
        connected = response.num_connected_nodes.value
        total = f"/{connected + missing}" if response.HasField("num_unavailable_nodes") else ""
        lines.append(f"Connected Nodes: {connected}{total}")
    if missing:
        names = sorted(response.unavailable_nodes)
        if names and missing > len(names):
            names.append(f"and {missing - len(names)} more...")
        lines += [f"Unavailable Nodes: {missing}", *(f"  - {name}" for name in names)]
    return "".join(f"{line}\n" for line in lines)


def nodes(found: Sequence[observer_pb2.Node], output: str) -> str:
    """In one of the formats table, wide and json, sorted by name."""
    found = sorted(found, key=lambda node: node.name)
    if output == "json":
        return json_list(found)
    wide = output == "wide"
    header = ["NAME", "STATUS", "AGE", "FLOWS/S", "CURRENT/MAX-FLOWS"]
    rows = [header + (["VERSION", "ADDRESS", "TLS"] if wide else [])]
    return table(rows + [_node(node, wide) for node in found])


def _node(node: observer_pb2.Node, wide: bool) -> list[str]:
    seconds = (node.uptime_ns + 500_000_000) // 10**9
    share = NOT_AVAILABLE
    if node.max_flows:
        share = f"{node.num_flows}/{node.max_flows} ({node.num_flows / node.max_flows * 100:6.2f}%)"
    row = [
        node.name,
        _STATES.get(node.state, "Unknown"),
        go_duration(seconds * 10**9) if seconds else NOT_AVAILABLE,
        f"{node.seen_flows / seconds:.2f}" if seconds else NOT_AVAILABLE,
        share,
    ]
    if wide:
        tls = ("Enabled" if node.tls.enabled else "Disabled") if node.HasField("tls") else NOT_AVAILABLE
        row += [node.version or NOT_AVAILABLE, node.address, tls]
    return row


_STATES: Final = {1: "Connected", 2: "Unavailable", 3: "Gone", 4: "Error"}


def namespaces(found: Sequence[observer_pb2.Namespace], output: str) -> str:
    """In one of the formats table, wide and json."""
    if output == "json":
        return json_list(found)
    wide = output == "wide"
    rows = [["NAMESPACE", "CLUSTER"] if wide else ["NAMESPACE"]]
    return table(
        rows
        + [
            [entry.namespace, entry.cluster] if wide and entry.cluster else [entry.namespace]
            for entry in found
        ]
    )


def peer(change: peer_pb2.ChangeNotification) -> str:
    tls = f" (TLS.ServerName: {change.tls.server_name})" if change.HasField("tls") else ""
    return f"{peer_pb2.ChangeNotificationType.Name(change.type):<12} {change.address} {change.name}{tls}"


def agent_event(event: flow_pb2.AgentEvent, start: str = NOT_AVAILABLE) -> str:
    """The details of an event, in one line.

    :param start: the agent's start, as the user wants times to be printed.
    """
    kind = event.WhichOneof("notification")
    if kind == "agent_start":
        return f"start time: {start}"
    if kind == "policy_update":
        told = event.policy_update
        return f"labels: [{','.join(told.labels)}], revision: {told.revision}, count: {told.rule_count}"
    if kind == "endpoint_regenerate":
        regenerated = event.endpoint_regenerate
        parts = [f"id: {regenerated.id}", f"labels: [{','.join(regenerated.labels)}]"]
        return ", ".join(parts + _if("error", regenerated.error))
    if kind == "endpoint_update":
        updated = event.endpoint_update
        return ", ".join(
            [f"id: {updated.id}", *_if("namespace", updated.namespace), *_if("pod name", updated.pod_name)]
        )
    if kind == "ipcache_update":
        return _ipcache(event.ipcache_update)
    if kind == "unknown":
        return f"type: {event.unknown.type}, notification: {event.unknown.notification}"
    return "UNKNOWN"


def _ipcache(told: flow_pb2.IPCacheNotification) -> str:
    parts = [f"cidr: {told.cidr}", f"identity: {told.identity}"]
    if told.HasField("old_identity"):
        parts.append(f"old identity: {told.old_identity.value}")
    parts += [*_if("host ip", told.host_ip), *_if("old host ip", told.old_host_ip)]
    return ", ".join([*parts, f"encrypt key: {told.encrypt_key}"])


def _if(name: str, value: str) -> list[str]:
    return [f"{name}: {value}"] if value else []
