"""The parts of flows that are the same for many, serialized once: one for each distinct shape, endpoint, address, policy.

A part never depends on two things of which there are many: as many parts as endpoints, not as pairs of them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
from attrs import frozen

from axoneme.plugins.hubble.columns import DTYPES, HAS_FLAGS, Array, Has, Protocol, Reply
from axoneme.plugins.hubble.enrich import POLICY_REASONS, POLICY_VERDICT, TRACE, TRACE_SOCK
from axoneme.plugins.hubble.names import Interned, Names
from axoneme.plugins.hubble.policies import Policies
from axoneme.plugins.hubble.proto.flow_pb2 import Flow
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsResponse
from axoneme.plugins.hubble.summary import flag_names, summary

#: What makes a shape. None of these has many values. For ICMP its type and code come on top.
PARTS: Final = (
    "node", "tcp_flags", "drop_reason", "sub_type", "event_type", "verdict", "protocol", "reply", "direction",
    "ip_version", "type", "trace_reason", "auth", "has",
)  # fmt: skip
DTYPE: Final = np.dtype([("icmp", np.uint32), *((name, DTYPES[name]) for name in PARTS)])

#: Bytes of the two ports, with their tags.
PORTS: Final = 8
INGRESS, EGRESS = 1, 2
_DROPPED, _AUDIT = 2, 4

#: How many of each kind are remembered.
_MOST: Final = 65_536

#: Fields that are columns.
_ENUMS: Final = {
    "verdict": "verdict", "Type": "type", "traffic_direction": "direction", "trace_reason": "trace_reason",
    "auth_type": "auth",
}  # fmt: skip
#: flow.TraceObservationPoint has another number for the first one than the datapath.
_TO_ENDPOINT = 101


@frozen(slots=True)
class Shape:
    """Serialized parts of a message.

    :param head: the fields of fixed content, and the beginning of `l4`.
    :param foot: the end of `l4`, after the ports.
    :param node: the field `node_name` of the response.
    """

    head: bytes
    foot: bytes
    node: bytes
    has_ports: bool


def shape(row: Any, names: Names) -> Shape:
    """:param row: of `DTYPE`."""
    enums: dict[str, Any] = {field: int(row[column]) for field, column in _ENUMS.items()}
    flow = Flow(**enums)
    kind, sub_type = int(row["event_type"]), int(row["sub_type"])
    if row["has"] & Has.EVENT_TYPE:
        flow.event_type.type, flow.event_type.sub_type = kind, sub_type
    if kind == TRACE:
        flow.trace_observation_point = sub_type or _TO_ENDPOINT  # type: ignore[assignment]
    elif kind == TRACE_SOCK:
        flow.sock_xlate_point = sub_type  # type: ignore[assignment]
    if reason := int(row["drop_reason"]):
        flow.drop_reason, flow.drop_reason_desc = reason, reason  # type: ignore[assignment]
    if row["reply"] != Reply.UNKNOWN:
        flow.reply = flow.is_reply.value = bool(row["reply"] == Reply.YES)
    if (node := names.nodes[int(row["node"])]) is not None:
        flow.node_name = node.name
        flow.node_labels.extend(node.labels)
    head, foot, has_ports = _layer4(flow, row)
    head = flow.SerializeToString(deterministic=True) + head
    return Shape(head, foot, GetFlowsResponse(node_name=flow.node_name).SerializeToString(), has_ports)


def _layer4(flow: Flow, row: Any) -> tuple[bytes, bytes, bool]:
    """Sets the summary; returns the field `l4` in two parts, between which the ports stand if it has any."""
    protocol, flags = int(row["protocol"]), int(row["tcp_flags"])
    icmp = (int(row["icmp"]) >> 16, int(row["icmp"]) & 0xFFFF)
    names = flag_names(flags) if flags & HAS_FLAGS else None
    flow.Summary = summary(protocol, names, icmp, int(row["ip_version"]))
    if protocol in (Protocol.ICMPV4, Protocol.ICMPV6):
        made = Flow()
        message = made.l4.ICMPv4 if protocol == Protocol.ICMPV4 else made.l4.ICMPv6
        message.type, message.code = icmp
        return made.SerializeToString(), b"", False
    if protocol == Protocol.NONE:
        return b"", b"", False
    foot = b""
    if names is not None:
        set_ = b"".join(bytes([place + 1 << 3, 1]) for place in range(9) if flags >> place & 1)
        foot = bytes([0x1A, len(set_)]) + set_
    inner = PORTS + len(foot)
    return bytes([0x32, inner + 2, protocol << 3 | 2, inner]), foot, True


class _Known(dict[Any, Any]):
    """Parts by what they are of, made when they are needed first. Looking up takes no Python of ours."""

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make

    def __missing__(self, key: Any) -> Any:
        made = self[key] = self._make(key)
        return made

    def of(self, keys: list[Any]) -> list[Any]:
        if len(self) > _MOST:
            self.clear()
        return [self[key] for key in keys]


class Shapes:
    """Shapes by their rows."""

    def __init__(self) -> None:
        self._known = _Known(self._made)
        self._names: Names | None = None
        self._generation = 0

    def of(self, columns: Mapping[str, Array], names: Names) -> list[Shape]:
        if self._names is not names or self._generation != names.generation:
            self._known.clear()
            self._names, self._generation = names, names.generation
        rows = _rows(columns)
        return self._known.of(rows.view(f"V{rows.itemsize}").tolist())

    def _made(self, key: bytes) -> Shape:
        assert self._names is not None
        return shape(np.frombuffer(key, DTYPE)[0], self._names)


def _rows(columns: Mapping[str, Array]) -> Array:
    rows = np.empty(len(columns["time"]), DTYPE)
    for name in PARTS:
        rows[name] = columns[name]
    protocol = columns["protocol"]
    icmp = (protocol == Protocol.ICMPV4) | (protocol == Protocol.ICMPV6)
    packed = columns["source_port"].astype(np.uint32) << np.uint32(16) | columns["destination_port"]
    rows["icmp"] = np.where(icmp, packed, 0)
    return rows


class Named:
    """A field of a flow whose value is one of `Names`, serialized, by number."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._made: list[bytes] = [b""]
        self._of: tuple[Interned[Any], int] | None = None

    def of(self, numbers: Array, interned: Interned[Any]) -> list[bytes]:
        if self._of is None or self._of[0] is not interned or self._of[1] != interned.generation:
            self._of = (interned, interned.generation)
            self._made = [b""]
        made = self._made
        made += [self._serialized(value) for value in interned.values[len(made) :]]
        return [made[number] for number in numbers.tolist()]

    def _serialized(self, value: Any) -> bytes:
        if value is None:
            return b""
        fields: dict[str, Any] = {self._field: value}
        return Flow(**fields).SerializeToString(deterministic=True)


class PolicyParts:
    """The fields that name the policies of one direction: who allowed, or denied."""

    def __init__(self, direction: int, policies: Policies) -> None:
        self._direction = direction
        self._name = "ingress" if direction == INGRESS else "egress"
        self.policies = policies
        self._known = _Known(self._part)
        self._revision = -1

    def of(self, columns: Mapping[str, Array]) -> list[bytes] | None:
        """None where no flow has any."""
        rules = columns[f"{self._name}_rule"]
        if not rules.any():
            return None
        if self._revision != self.policies.revision:
            self._revision = self.policies.revision
            self._known.clear()
        verdict, reason = columns["verdict"], columns["drop_reason"]
        dropped = (verdict == _DROPPED) & ((reason == POLICY_REASONS[0]) | (reason == POLICY_REASONS[1]))
        denied = (dropped | (verdict == _AUDIT)) & (columns["direction"] == self._direction)
        verdicts = columns["event_type"] == POLICY_VERDICT
        about = denied.astype(np.uint64) << np.uint64(1) | verdicts
        return self._known.of((rules.astype(np.uint64) << np.uint64(2) | about).tolist())

    def _part(self, key: int) -> bytes:
        found = self.policies.get(key >> 2)
        if found is None:
            return b""
        policy, match = found
        flow = Flow(policy_match_type=match if key & 1 else 0)
        getattr(flow, f"{self._name}_{'denied' if key & 2 else 'allowed'}_by").append(policy)
        return flow.SerializeToString(deterministic=True)


class Addresses:
    """The addresses of one end, as fields with this tag."""

    def __init__(self, tag: int) -> None:
        self._tag = tag
        self._known = _Known(self._made)

    def of(self, high: Array, low: Array) -> list[bytes]:
        rows = np.empty((len(high), 2), np.uint64)
        rows[:, 0], rows[:, 1] = high, low
        return self._known.of(rows.view("V16").ravel().tolist())

    def _made(self, key: bytes) -> bytes:
        high, low = np.frombuffer(key, np.uint64).tolist()
        text = address(high, low).encode()
        return bytes([self._tag, len(text)]) + text


def address(high: int, low: int) -> str:
    """The text of an address of the columns (RFC 5952)."""
    if not high and low >> 32 == 0xFFFF:
        return socket.inet_ntop(socket.AF_INET, (low & 0xFFFFFFFF).to_bytes(4))
    return socket.inet_ntop(socket.AF_INET6, (high << 64 | low).to_bytes(16))
