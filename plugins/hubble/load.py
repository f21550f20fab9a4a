"""From messages to columns: flows of other nodes, and those that other plugins made, under the same filters."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from axoneme.plugins.hubble.columns import DTYPES, HAS_FLAGS, Array, Has, Protocol, Reply, View
from axoneme.plugins.hubble.filters.predicates import L7, flag_bits
from axoneme.plugins.hubble.names import Names, Node

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import Flow

_ENUMS: Final = {
    "verdict": "verdict", "direction": "traffic_direction", "type": "Type", "trace_reason": "trace_reason",
    "auth": "auth_type", "drop_reason": "drop_reason_desc",
}  # fmt: skip
_PROTOCOLS: Final = {
    "TCP": Protocol.TCP, "UDP": Protocol.UDP, "ICMPv4": Protocol.ICMPV4, "ICMPv6": Protocol.ICMPV6,
    "SCTP": Protocol.SCTP,
}  # fmt: skip


def load(flows: Sequence[Flow], names: Names | None = None) -> View:
    """A view of some messages, in their order.

    :param names: to number what they are about; None for numbers of its own.
    """
    names = names or Names()
    rows = [_row(flow, names) for flow in flows]
    columns = {name: np.array([row.get(name, 0) for row in rows], dtype) for name, dtype in DTYPES.items()}
    return View(0, columns, names, {place: flow.SerializeToString() for place, flow in enumerate(flows)})


def columns_of(flows: Sequence[Flow], names: Names) -> dict[str, Array]:
    """The same without the messages."""
    rows = [_row(flow, names) for flow in flows]
    return {name: np.array([row.get(name, 0) for row in rows], dtype) for name, dtype in DTYPES.items()}


def _row(flow: Flow, names: Names) -> dict[str, int]:
    """By column; what does not fit into one is its greatest value, which no filter asks for."""
    row = {"time": max(0, flow.time.seconds * 1_000_000_000 + flow.time.nanos), "has": Has.MESSAGE}
    for column, field in _ENUMS.items():
        row[column] = _fitting(column, getattr(flow, field))
    if flow.HasField("event_type"):
        row["has"] |= Has.EVENT_TYPE
        row["event_type"] = _fitting("event_type", flow.event_type.type)
        row["sub_type"] = _fitting("sub_type", flow.event_type.sub_type)
    if flow.HasField("is_reply"):
        row["reply"] = Reply.YES if flow.is_reply.value else Reply.NO
    row["l7"] = L7.get(flow.l7.WhichOneof("record") or "", 0)
    _addresses(row, flow)
    _layer4(row, flow)
    _named(row, flow, names)
    return row


def _fitting(column: str, value: int) -> int:
    most = int(np.iinfo(DTYPES[column]).max)
    return value if 0 <= value < most else most


def _addresses(row: dict[str, int], flow: Flow) -> None:
    row["ip_version"] = _fitting("ip_version", flow.IP.ipVersion)
    for end, bit in (("source", Has.SOURCE_IP), ("destination", Has.DESTINATION_IP)):
        text = getattr(flow.IP, end)
        if not text:
            continue
        number = _number(text)
        if number is None:
            row["has"] |= Has.ODD_IP
            continue
        row["has"] |= bit
        row[f"{end}_high"], row[f"{end}_low"] = number >> 64, number & 0xFFFFFFFFFFFFFFFF


def _number(text: str) -> int | None:
    """An address as in the columns; None when it would be written in another way."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 4:
        return int(address) | 0xFFFF << 32
    return int(address) if str(address) == text and "%" not in text and not address.ipv4_mapped else None


def _layer4(row: dict[str, int], flow: Flow) -> None:
    kind = flow.l4.WhichOneof("protocol")
    if kind is None:
        return
    row["protocol"] = _PROTOCOLS[kind]
    message: Any = getattr(flow.l4, kind)
    icmp = kind.startswith("ICMP")
    ports = (message.type, message.code) if icmp else (message.source_port, message.destination_port)
    if max(ports) <= 0xFFFF:
        row["has"] |= Has.PORTS
        row["source_port"], row["destination_port"] = ports
    if kind == "TCP" and message.HasField("flags"):
        row["tcp_flags"] = HAS_FLAGS | flag_bits(message.flags)


def _named(row: dict[str, int], flow: Flow, names: Names) -> None:
    for field, part in (
        ("source", names.endpoints), ("destination", names.endpoints), ("interface", names.interfaces),
        ("source_service", names.services), ("destination_service", names.services),
    ):  # fmt: skip
        if flow.HasField(field):
            row[field] = part.number(getattr(flow, field))
    for field in ("source_names", "destination_names"):
        if texts := getattr(flow, field):
            row[field] = names.dns.number(tuple(texts))
    row["node"] = names.nodes.number(Node(flow.node_name, tuple(flow.node_labels)))
