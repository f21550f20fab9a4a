"""The filter flags of `hubble observe`, and what each puts into the request.

A set of flags becomes at most two `FlowFilter`s, of which either may match: a flag for either side (`--pod`) asks for
the source in the left one and for the destination in the right one, all others stand in both. Flags behind `--not` make
a second set, for the deny list.

Source: the interface of the `hubble` command, version 1.19.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from axoneme.core.errors import AxonemeError
from axoneme.plugins.hubble.proto import flow_pb2

#: Names of event types (`CiliumEventType.type`).
EVENT_TYPES: Final = {
    "unspecified": 0, "drop": 1, "debug": 2, "capture": 3, "trace": 4, "policy-verdict": 5, "recorder": 6,
    "trace-sock": 7, "l7": 129, "agent": 130,
}  # fmt: skip
TRACE_POINTS: Final = (
    "to-endpoint", "to-proxy", "to-host", "to-stack", "to-overlay", "from-endpoint", "from-proxy", "from-host",
    "from-stack", "from-overlay", "from-network", "to-network", "from-crypto", "to-crypto",
)  # fmt: skip
AGENT_EVENTS: Final = (
    "unspecified", "message", "agent-started", "endpoint-regenerate-success", "endpoint-regenerate-failure",
    "policy-updated", "policy-deleted", "endpoint-created", "endpoint-deleted", "ipcache-upserted", "ipcache-deleted",
)  # fmt: skip
_SUBTYPES: Final = {"trace": TRACE_POINTS, "agent": AGENT_EVENTS}
RESERVED: Final = {
    "host": 1, "world": 2, "unmanaged": 3, "health": 4, "init": 5, "remote-node": 6, "kube-apiserver": 7, "ingress": 8,
    "world-ipv4": 9, "world-ipv6": 10,
}  # fmt: skip
TCP_FLAGS: Final = ("SYN", "FIN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")
_IP_VERSIONS: Final = {4: ("4", "v4", "ipv4", "ip4"), 6: ("6", "v6", "ipv6", "ip6")}


class UsageError(AxonemeError):
    """Flags that say something impossible."""


def _number(text: str, what: str, bits: int = 32) -> int:
    if not text.isascii() or not text.isdigit() or int(text) >> bits:
        raise UsageError(f"{what} {text!r} is neither a known name nor a number")
    return int(text)


def event_type(text: str) -> flow_pb2.EventTypeFilter:
    """`TYPE[:SUBTYPE]`, each a name or a number; names of subtypes exist for trace and agent."""
    name, colon, sub = text.partition(":")
    kind = EVENT_TYPES[name] if name in EVENT_TYPES else _number(name, "the event type")
    if not colon:
        return flow_pb2.EventTypeFilter(type=kind)
    names = _SUBTYPES.get(name, ())
    number = names.index(sub) if sub in names else _number(sub, "the event subtype")
    return flow_pb2.EventTypeFilter(type=kind, match_sub_type=True, sub_type=number)


def identity(text: str) -> int:
    return RESERVED[text.lower()] if text.lower() in RESERVED else _number(text, "the identity")


def workload(text: str) -> flow_pb2.Workload:
    """`[KIND/]NAME`."""
    kind, slash, name = text.partition("/")
    return flow_pb2.Workload(kind=kind, name=name) if slash else flow_pb2.Workload(name=kind)


def tcp_flags(text: str) -> flow_pb2.TCPFlags:
    names = [name.upper() for name in text.split(",")]
    if unknown := [name for name in names if name not in TCP_FLAGS]:
        raise UsageError(f"unknown tcp flag: {unknown[0].lower()}", hint=f"it can be {', '.join(TCP_FLAGS)}")
    return flow_pb2.TCPFlags(**dict.fromkeys(names, True))


def http_header(text: str) -> flow_pb2.HTTPHeader:
    key, colon, value = text.partition(":")
    if not colon:
        raise UsageError(f"invalid http-header value {text!r}, expected name:value")
    return flow_pb2.HTTPHeader(key=key, value=value)


def _member(enum: Any, flag: str) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if text not in enum.keys():  # noqa: SIM118 - a protobuf enum is no mapping
            raise UsageError(f"invalid --{flag} value: {text}")
        return int(enum.Value(text))

    return convert


def ip_version(text: str) -> int:
    return next((v // 2 - 1 for v, names in _IP_VERSIONS.items() if text.lower() in names), 0)


def direction(text: str) -> int:
    number = {"ingress": 1, "egress": 2}.get(text.lower())
    if number is None:
        raise UsageError(f"{text}: invalid traffic direction, expected ingress or egress")
    return number


def trace_number(text: str) -> int:
    number = _number(text, "the IP trace ID", 64)
    if not number:
        raise UsageError("invalid --ip-trace-id value; must be greater than 0")
    return number


@frozen
class Flag:
    """One filter flag.

    :param left: the field of the left half, and `right` that of the right one; empty for a namespace flag.
    :param constant: the value of a flag that takes none.
    """

    name: str
    left: str
    right: str
    help: str
    convert: Callable[[str], Any] = str
    short: str = ""
    constant: str | None = None

    @property
    def parameter(self) -> str:
        return self.name.replace("-", "_")


def _both(name: str, field: str, help: str, convert: Callable[[str], Any] = str, **more: Any) -> Flag:
    return Flag(name, field, field, help, convert, **more)


def _sided(
    name: str, field: str, what: str, convert: Callable[[str], Any] = str, short: str = ""
) -> tuple[Flag, Flag, Flag]:
    """`--NAME` for either side, `--from-NAME` and `--to-NAME`."""
    source, destination = f"source_{field}", f"destination_{field}"
    return (
        _both(f"from-{name}", source, f"Flows from {what}.", convert),
        Flag(name, source, destination, f"Flows from or to {what}.", convert, short),
        _both(f"to-{name}", destination, f"Flows to {what}.", convert),
    )


_NAMESPACES: Final = (
    Flag("from-namespace", "", "", "Flows from this namespace."),
    Flag("namespace", "", "", "Flows from or to this namespace.", short="n"),
    Flag("to-namespace", "", "", "Flows to this namespace."),
    Flag("from-all-namespaces", "", "", "Flows from any namespace.", constant=""),
    Flag("all-namespaces", "", "", "Flows from or to any namespace.", short="A", constant=""),
    Flag("to-all-namespaces", "", "", "Flows to any namespace.", constant=""),
)

FLAGS: Final[Mapping[str, Flag]] = {
    flag.name: flag
    for flag in (
        _both("uuid", "uuid", "The flow with this UUID."),
        _both("node-name", "node_name", "Flows seen on nodes of this name, [CLUSTER/]NODE; * is any text."),
        _both("node-label", "node_labels", "Flows seen on nodes with these labels."),
        *_sided("cluster", "cluster_name", "the cluster of this name"),
        _both("protocol", "protocol", "Flows of this protocol: tcp, udp, sctp, icmp, icmpv4, icmpv6, dns, http, kafka."),
        _both("tcp-flags", "tcp_flags", "Flows with all of these TCP flags, as syn,ack.", tcp_flags),
        _both("type", "event_type", "Events of this type, TYPE[:SUBTYPE]: capture, drop, l7, policy-verdict, trace "
              f"(subtypes {', '.join(TRACE_POINTS)}), trace-sock.", event_type, short="t"),
        _both("verdict", "verdict", f"Flows with this verdict: {', '.join(flow_pb2.Verdict.keys()[1:])}.",
              _member(flow_pb2.Verdict, "verdict")),
        _both("drop-reason-desc", "drop_reason_desc", "Flows dropped for this reason, as POLICY_DENIED.",
              _member(flow_pb2.DropReason, "drop-reason-desc")),
        _both("http-status", "http_status_code", "Responses with this status: 404, or 5+ for all that begin so."),
        _both("http-method", "http_method", "Requests with this method."),
        _both("http-path", "http_path", "Requests whose path matches this regular expression (RE2)."),
        _both("http-url", "http_url", "Requests whose URL matches this regular expression (RE2)."),
        _both("http-header", "http_header", "Requests and responses with this header, NAME:VALUE.", http_header),
        _both("trace-id", "trace_id", "Flows of this trace."),
        _both("ip-trace-id", "ip_trace_id", "Flows with this trace number in an IP option.", trace_number),
        *_sided("fqdn", "fqdn", "this DNS name; * is any text"),
        *_sided("ip", "ip", "this address or network"),
        _both("snat-ip", "source_ip_xlated", "Flows masqueraded with this address, or one of this network."),
        _both("ipv4", "ip_version", "IPv4 flows.", ip_version, short="4", constant="v4"),
        _both("ipv6", "ip_version", "IPv6 flows.", ip_version, short="6", constant="v6"),
        _both("ip-version", "ip_version", "Flows of this IP version: v4, v6, or none.", ip_version),
        *_NAMESPACES,
        *_sided("pod", "pod", "pods whose name begins so, [NAMESPACE/]NAME; without namespace: default"),
        *_sided("service", "service", "services whose name begins so, [NAMESPACE/]NAME; without namespace: default"),
        *_sided("port", "port", "this port"),
        *_sided("label", "label", "endpoints with these labels, as key=value or reserved:world", short="l"),
        *_sided("workload", "workload", "this workload, [KIND/]NAME", workload),
        *_sided("identity", "identity", "this security identity, a number or as `world`", identity),
        _both("traffic-direction", "traffic_direction", "Flows in this direction: ingress or egress.", direction),
        _both("cel-expression", "cel_expression", "Flows for which this CEL expression over _flow is true."),
        _both("interface", "interface", "Flows seen at the interface of this name.",
              lambda name: flow_pb2.NetworkInterface(name=name)),
        _both("encrypted", "encrypted", "Encrypted flows.", lambda _: True, constant="true"),
        _both("unencrypted", "encrypted", "Flows that are not encrypted.", lambda _: False, constant="true"),
    )
}  # fmt: skip

#: Values that shells propose; others may be possible, too.
CHOICES: Final[Mapping[str, Sequence[str]]] = {
    "type": ("capture", "drop", "l7", "policy-verdict", "trace", *(f"trace:{p}" for p in TRACE_POINTS), "trace-sock"),
    "verdict": flow_pb2.Verdict.keys()[1:],
    "drop-reason-desc": flow_pb2.DropReason.keys()[1:],
    "protocol": ("tcp", "udp", "sctp", "icmp", "icmpv4", "icmpv6", "dns", "http", "kafka"),
    "tcp-flags": tuple(map(str.lower, TCP_FLAGS)),
    "http-method": ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"),
    "ip-version": ("v4", "v6", "none"),
    "traffic-direction": ("ingress", "egress"),
    **dict.fromkeys(("identity", "from-identity", "to-identity"), tuple(RESERVED)),
}  # fmt: skip

#: Flags that can't be combined: any two of a line.
CONFLICTS: Final = tuple(
    tuple(line.split())
    for line in (
        "from-fqdn from-ip ip fqdn from-namespace namespace from-all-namespaces all-namespaces",
        "from-fqdn from-ip ip fqdn from-pod pod",
        "to-fqdn to-ip ip fqdn to-namespace namespace to-all-namespaces all-namespaces",
        "to-fqdn to-ip ip fqdn to-pod pod",
        "to-pod namespace all-namespaces",
        "from-pod namespace all-namespaces",
        "to-service namespace all-namespaces",
        "from-service namespace all-namespaces",
        "label from-label",
        "label to-label",
        "service from-service",
        "service to-service",
        "port to-port",
        "port from-port",
        "identity to-identity",
        "identity from-identity",
        "workload to-workload",
        "workload from-workload",
        "encrypted unencrypted",
    )
)


def filters(given: Iterable[tuple[str, Sequence[str]]]) -> list[flow_pb2.FlowFilter]:
    """The filters, none to two, that a set of flags means.

    :param given: the flags' names in the order of their first use, each with its values.
    :raises UsageError: for flags that can't be combined, and values that mean nothing.
    """
    values = {name: list(texts) for name, texts in given if texts}
    _check_conflicts(list(values))
    left, right = flow_pb2.FlowFilter(), flow_pb2.FlowFilter()
    for name, texts in values.items():
        flag = FLAGS[name]
        for text in texts if flag.left else ():
            _add(left, flag.left, flag.convert(text))
            _add(right, flag.right, flag.convert(text))
    _apply_namespaces(values, left, right)
    if not values:
        return []
    return [left] if left == right else [left, right]


def _add(half: flow_pb2.FlowFilter, field: str, value: Any) -> None:
    owner = half.experimental if field == "cel_expression" else half
    getattr(owner, field).append(value)


def _check_conflicts(names: Sequence[str]) -> None:
    """The order in which the flags were given decides which pair is named, and in which order."""
    for count, last in enumerate(names, 1):
        for group in CONFLICTS:
            if last not in group:
                continue
            clashing = [name for name in group if name in names[:count]]
            if len(clashing) > 1:
                raise UsageError(f"filters --{clashing[0]} and --{clashing[1]} cannot be combined")


def _apply_namespaces(
    values: Mapping[str, Sequence[str]], left: flow_pb2.FlowFilter, right: flow_pb2.FlowFilter
) -> None:
    """Namespaces stand before the names of pods and services: `shop/` is any pod of the namespace shop."""
    for way, targets in (
        ("to-", ((left, "destination"), (right, "destination"))),
        ("from-", ((left, "source"), (right, "source"))),
        ("", ((left, "source"), (right, "destination"))),
    ):
        names = [*values.get(f"{way}namespace", ()), *values.get(f"{way}all-namespaces", ())]
        for half, side in targets if names else ():
            _qualify(half, side, names)


def _qualify(half: flow_pb2.FlowFilter, side: str, namespaces: Sequence[str]) -> None:
    pods, services = getattr(half, f"{side}_pod"), getattr(half, f"{side}_service")
    if not pods and not services:
        pods.append("")
    for entries in (pods, services):
        for entry in entries:
            namespace, slash, _ = entry.partition("/")
            if slash and any(name not in ("", namespace) for name in namespaces):
                raise UsageError(f"namespace conflict: {namespaces[0]!r} does not contain {entry!r}")
        entries[:] = [
            full
            for entry in entries
            for full in ([entry] if "/" in entry else [f"{n}/{entry}" for n in namespaces])
        ]
