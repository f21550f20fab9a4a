"""How flows and other answers are shown to people: the texts of the `hubble` command, byte for byte.

look = Look(output="compact")
print(compact(response, look))          # 'Jan  1 00:00:00.123: shop/web:43210 (ID:12345) -> …'

Whatever comes from the network is made harmless for terminals: control characters are shown as `^[`.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from axoneme.plugins.hubble.drop_texts import drop_text
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2, relay_pb2

NOT_AVAILABLE: Final = "N/A"
SEPARATOR: Final = "------------"
#: Names of nodes are cut off there.
NAMES_CUT_OFF: Final = 50

RESERVED: Final = {
    0: "unknown", 1: "host", 2: "world", 3: "unmanaged", 4: "health", 5: "init", 6: "remote-node", 7: "kube-apiserver",
    8: "ingress", 9: "world-ipv4", 10: "world-ipv6", 11: "overlay-to-proxy",
}  # fmt: skip
_TRACE_POINTS: Final = (
    "to-endpoint", "to-proxy", "to-host", "to-stack", "to-overlay", "from-endpoint", "from-proxy", "from-host",
    "from-stack", "from-overlay", "from-network", "to-network", "from-crypto", "to-crypto",
)  # fmt: skip
_MATCHES: Final = ("none", "L3-Only", "L3-L4", "L4-Only", "all", "L3-Proto", "Proto-Only")
_TRANSLATIONS: Final = {1: "pre-xlate-fwd", 2: "post-xlate-fwd", 3: "pre-xlate-rev", 4: "post-xlate-rev"}
DROP, CAPTURE, TRACE, POLICY_VERDICT, TRACE_SOCK = 1, 3, 4, 5, 7

_COLORS: Final = {"red": 31, "green": 32, "yellow": 33, "magenta": 35, "cyan": 36}
_VERDICT_COLORS: Final = {
    "FORWARDED": "green", "REDIRECTED": "green", "DROPPED": "red", "ERROR": "red", "AUDIT": "yellow",
    "TRACED": "yellow", "TRANSLATED": "yellow",
}  # fmt: skip
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@frozen(kw_only=True)
class Look:
    """How the user wants it.

    :param output: compact, dict, json or table.
    :param time_format: one of `TIME_FORMATS`.
    :param translate: names in place of addresses.
    :param color: auto, always or never; `colored` is what came of it.
    """

    output: str = "compact"
    time_format: str = "StampMilli"
    node_name: bool = False
    policy_names: bool = False
    translate: bool = True
    color: str = "auto"
    silent: bool = False
    debug: bool = False
    colored: bool = False


def safe(text: str) -> str:
    """Without anything that a terminal would obey."""
    return (
        _CONTROL.sub(lambda found: "^" + chr(ord(found[0]) ^ 0x40), text) if _CONTROL.search(text) else text
    )


def paint(text: str, color: str, look: Look) -> str:
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m" if look.colored and text else text


# Times ------------------------------------------------------------------------------------------------------------


def _fraction(nanos: int, digits: int) -> str:
    """Go's `.999`: as many digits as there are, at most so many."""
    shown = f"{nanos:09d}"[:digits].rstrip("0")
    return f".{shown}" if shown else ""


_FORMATS: Final[Mapping[str, Callable[[datetime.datetime, int], str]]] = {
    "StampMilli": lambda t, n: f"{t:%b} {t.day:2d} {t:%H:%M:%S}.{n // 1_000_000:03d}",
    "YearMonthDay": lambda t, n: f"{t:%Y-%m-%d}",
    "YearMonthDayHour": lambda t, n: f"{t:%Y-%m-%dT%H}Z",
    "YearMonthDayHourMinute": lambda t, n: f"{t:%Y-%m-%dT%H:%M}Z",
    "RFC3339": lambda t, n: f"{t:%Y-%m-%dT%H:%M:%S}Z",
    "RFC3339Milli": lambda t, n: f"{t:%Y-%m-%dT%H:%M:%S}{_fraction(n, 3)}Z",
    "RFC3339Micro": lambda t, n: f"{t:%Y-%m-%dT%H:%M:%S}{_fraction(n, 6)}Z",
    "RFC3339Nano": lambda t, n: f"{t:%Y-%m-%dT%H:%M:%S}{_fraction(n, 9)}Z",
    "RFC1123Z": lambda t, n: f"{t:%a, %d %b %Y %H:%M:%S} +0000",
}
TIME_FORMATS: Final = tuple(_FORMATS)
_EPOCH: Final = datetime.datetime(1970, 1, 1)


def time_text(message: Any, look: Look, field: str = "time") -> str:
    """A message's time, in UTC."""
    if not message.HasField(field):
        return NOT_AVAILABLE
    stamp = getattr(message, field)
    try:
        moment = _EPOCH + datetime.timedelta(seconds=stamp.seconds)
    except OverflowError:
        return NOT_AVAILABLE
    return _FORMATS[look.time_format](moment, stamp.nanos)


# Parts of flows ----------------------------------------------------------------------------------------------------


def _port(flow: flow_pb2.Flow, side: str) -> str:
    kind = flow.l4.WhichOneof("protocol")
    if kind not in ("TCP", "UDP", "SCTP"):
        return ""
    port = getattr(getattr(flow.l4, kind), f"{side}_port")
    return str(port) if port else ""


def host(flow: flow_pb2.Flow, side: str, look: Look) -> str:
    """Who is on a side, `source` or `destination`: pod, service, DNS names or address, with the port."""
    if not flow.HasField("IP"):
        return paint(safe(getattr(flow.ethernet, side)), "cyan", look)
    who, port = name(flow, side, translate=look.translate), paint(_port(flow, side), "yellow", look)
    if port:
        who = f"[{who}]:{port}" if ":" in who else f"{who}:{port}"
    return paint(who, "cyan", look)


def name(flow: flow_pb2.Flow, side: str, *, translate: bool) -> str:
    """Who is on a side, without port: pod, service or DNS names if that is wanted and known, else the address."""
    address: str = getattr(flow.IP, side)
    if not translate:
        return safe(address)
    endpoint, service = getattr(flow, side), getattr(flow, f"{side}_service")
    namespace = service.namespace if flow.HasField(f"{side}_service") else endpoint.namespace
    if found := endpoint.pod_name or service.name:
        return safe(f"{namespace}/{found}" if namespace else found)
    return safe(",".join(getattr(flow, f"{side}_names")) or address)


def identity(number: int, look: Look) -> str:
    return paint(f"({RESERVED[number]})" if number in RESERVED else f"(ID:{number})", "magenta", look)


def flow_type(flow: flow_pb2.Flow) -> str:
    """What kind of event it is, and where it was seen."""
    if flow.HasField("l7"):
        stage = _enum(flow_pb2.L7FlowType, flow.l7.type).lower()
        record = flow.l7.WhichOneof("record")
        return (
            f"dns-{stage} {safe(flow.l7.dns.observation_source)}"
            if record == "dns"
            else f"{record or 'l7'}-{stage}"
        )
    kind, sub = flow.event_type.type, flow.event_type.sub_type
    if kind == TRACE:
        return _TRACE_POINTS[sub] if 0 <= sub < len(_TRACE_POINTS) else str(sub)
    if kind == DROP:
        return drop_text(sub)
    if kind == POLICY_VERDICT:
        match = flow.policy_match_type
        shown = _MATCHES[match] if match < len(_MATCHES) else "unknown"
        return f"policy-verdict:{shown} {flow_pb2.TrafficDirection.Name(flow.traffic_direction)}"
    if kind == CAPTURE:
        return _enum(flow_pb2.DebugCapturePoint, flow.debug_capture_point)
    if kind == TRACE_SOCK:
        return _TRANSLATIONS.get(
            flow.sock_xlate_point, _enum(flow_pb2.SocketTranslationPoint, flow.sock_xlate_point)
        )
    return "UNKNOWN"


def _enum(kind: Any, number: int) -> str:
    return str(kind.Name(number)) if number in kind.values() else str(number)


def verdict(flow: flow_pb2.Flow, look: Look) -> str:
    """The verdict's name; of policy verdicts what the policy said, with the policies when they are asked for."""
    name = _enum(flow_pb2.Verdict, flow.verdict)
    color = _VERDICT_COLORS.get(name)
    if flow.event_type.type == POLICY_VERDICT:
        if name in ("FORWARDED", "REDIRECTED"):
            name = "ALLOWED" + _policies(flow, "allowed_by", look)
        elif name in ("DROPPED", "ERROR"):
            name = "DENIED" + _policies(flow, "denied_by", look)
        elif name == "AUDIT":
            name = "AUDITED"
    return paint(name, color, look) if color else name


def _policies(flow: flow_pb2.Flow, how: str, look: Look) -> str:
    way = {1: "ingress", 2: "egress"}.get(flow.traffic_direction)
    if not look.policy_names or way is None:
        return ""
    names = [f"{p.name} ({p.kind})" for p in getattr(flow, f"{way}_{how}") if p.kind and p.name]
    return safe(" BY " + ", ".join(names)) if names else ""


def summary(flow: flow_pb2.Flow, look: Look) -> str:
    text = safe(flow.Summary)
    if flow.ip_trace_id.trace_id:
        text = f"IP Trace ID: {flow.ip_trace_id.trace_id}; {text}"
    if flow.auth_type:
        name = _enum(flow_pb2.AuthType, flow.auth_type)
        text += f"; Auth: {paint(name, 'red' if name == 'TEST_ALWAYS_FAIL' else 'green', look)}"
    return text


# Whole answers -----------------------------------------------------------------------------------------------------


def compact(answer: observer_pb2.GetFlowsResponse, look: Look) -> str:
    """A flow, or what was lost, in one line."""
    if answer.HasField("lost_events"):
        lost = answer.lost_events
        return f"EVENTS LOST: {_lost_source(lost)} CPU({lost.cpu.value}) {lost.num_events_lost}"
    flow = answer.flow
    left, right = ("source", "destination")
    arrow = "<>"
    if flow.HasField("is_reply"):
        arrow = "<-" if flow.is_reply.value else "->"
        if flow.is_reply.value:
            left, right = right, left
    node = f" [{safe(flow.node_name)}]" if look.node_name else ""
    sides = [
        f"{host(flow, side, look)} {identity(getattr(flow, side).identity, look)}" for side in (left, right)
    ]
    return (
        f"{time_text(flow, look)}{node}: {sides[0]} {arrow} {sides[1]} {flow_type(flow)} "
        f"{verdict(flow, look)} ({summary(flow, look)})"
    )


def pairs(answer: observer_pb2.GetFlowsResponse, look: Look) -> list[tuple[str, str]]:
    """A flow, or what was lost, as keys and values."""
    lost, flow = answer.lost_events, answer.flow
    if answer.HasField("lost_events"):
        found = [("TIMESTAMP", time_text(answer, look)), ("NODE", safe(answer.node_name) or "-")]
        found += [
            ("SOURCE", _lost_source(lost)),
            ("TYPE", "EVENTS LOST"),
            ("VERDICT", "-"),
            ("SUMMARY", _lost(lost)),
        ]
    else:
        found = [("TIMESTAMP", time_text(flow, look)), ("NODE", safe(flow.node_name))]
        found += [("SOURCE", host(flow, "source", look)), ("DESTINATION", host(flow, "destination", look))]
        found += [
            ("TYPE", flow_type(flow)),
            ("VERDICT", verdict(flow, look)),
            ("SUMMARY", summary(flow, look)),
        ]
    return [pair for pair in found if look.node_name or pair[0] != "NODE"]


def header(look: Look) -> list[str]:
    """The headings of a table of flows."""
    node = ["NODE"] if look.node_name else []
    return ["TIMESTAMP", *node, "SOURCE", "DESTINATION", "TYPE", "VERDICT", "SUMMARY"]


def row(answer: observer_pb2.GetFlowsResponse, look: Look) -> list[str]:
    """A flow, or what was lost, as a row of a table."""
    found = dict(pairs(answer, look))
    return [found.get(name, "-") for name in header(look)]


def dictionary(found: Iterable[tuple[str, str]], width: int = 11) -> str:
    """Lines of `KEY: VALUE`, the keys set flush right."""
    return "".join(f"{key:>{width}}: {value}\n" for key, value in found)


def _lost_source(lost: flow_pb2.LostEvent) -> str:
    return _enum(flow_pb2.LostEventSource, lost.source)


def _lost(lost: flow_pb2.LostEvent) -> str:
    return f"CPU({lost.cpu.value}) - {lost.num_events_lost}"


def node_status(answer: observer_pb2.GetFlowsResponse, look: Look) -> str:
    """What happened to nodes, in one line."""
    event = answer.node_status
    names, count = join(event.node_names), len(event.node_names)
    said = {
        relay_pb2.NODE_CONNECTED: f"Receiving flows from {count} nodes: {names}",
        relay_pb2.NODE_UNAVAILABLE: f"{count} nodes are unavailable: {names}",
        relay_pb2.NODE_GONE: f"{count} nodes removed from cluster: {names}",
        relay_pb2.NODE_ERROR: f"Error {_quoted(event.message)} on {count} nodes: {names}",
    }.get(event.state_change, f"unknown node status event: {event.state_change}")
    return f"{time_text(answer, look)} [{safe(answer.node_name)}]: {said}"


def node_status_pairs(answer: observer_pb2.GetFlowsResponse, look: Look) -> list[tuple[str, str]]:
    event = answer.node_status
    return [
        ("TIMESTAMP", time_text(answer, look)),
        ("STATE", _enum(relay_pb2.NodeState, event.state_change)),
        ("NODES", join(event.node_names)),
        ("MESSAGE", _quoted(event.message) if event.message else NOT_AVAILABLE),
    ]


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return safe(f'"{escaped}"')


def join(names: Sequence[str], length: int = NAMES_CUT_OFF) -> str:
    """Names with commas, as many as fit into the length, one at least."""
    used, end = 0, len(names)
    for position, name in enumerate(names):
        used += len(name) + 2
        if used > length and position:
            end = position
            break
    more = f" (and {len(names) - end} more)" if end < len(names) else ""
    return safe(", ".join(names[:end])) + more
