"""Gives names to an event: addresses, workloads, identities, rules and reasons, for people and for JSON.

Done only for records that somebody looks at; the stream itself never makes a Python object of a record.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from axoneme.core.datapath.abi import TICK_SHIFT, AttachPoint, EventFlag, EventType, NextHop
from axoneme.core.events.rules import RULES, Rule
from axoneme.core.records import DropReason
from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, Endpoint, Identity

if TYPE_CHECKING:
    from axoneme.core.events.store.journal import Names

T = TypeVar("T", covariant=True)

_PROTOCOLS = {1: "ICMPv4", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP"}
_SIDES = (("source", "saddr", "sport"), ("destination", "daddr", "dport"))
_FLAGS = ((1, "FIN"), (2, "SYN"), (4, "RST"), (8, "PSH"), (16, "ACK"), (32, "URG"))


@cache
def boot_offset_ns() -> int:
    """What to add to the monotonic clock, in which the programs count, to get the time of day."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class Rows(Protocol[T]):
    """Rows by their number: a table, or a mapping."""

    def get(self, key: int, /) -> T | None: ...


class Namer:
    """Turns records into JSON-like dictionaries with stable keys.

    :param reasons: drop reasons by number.
    """

    def __init__(self, state: State, reasons: Mapping[int, DropReason]) -> None:
        self._endpoints: Rows[Endpoint] = state.table(ENDPOINTS.name, Endpoint)
        self._identities: Rows[Identity] = state.table(IDENTITIES.name, Identity)
        self._rules: Rows[Rule] = state.table(RULES.name, Rule)
        self._reasons = reasons
        #: What to add to a record's time to get the time of day.
        self._offset = boot_offset_ns()

    def name(self, event: np.void) -> dict[str, Any]:
        """One record. Ports are absent for ICMP, and reply counters before the close."""
        kind = EventType(int(event["type"]))
        # The last packet of a connection may have gone either way; people want to read who called whom.
        backwards = kind in (EventType.CLOSE, EventType.UPDATE) and bool(event["reply"])
        named: dict[str, Any] = {
            "time": _moment(int(event["time"]) + self._offset),
            "type": kind.name.lower(),
            "protocol": _PROTOCOLS.get(int(event["protocol"]), str(int(event["protocol"]))),
            "source": self._side(event, *(_SIDES[backwards])),
            "destination": self._side(event, *(_SIDES[not backwards])),
            "reply": bool(event["reply"]) and not backwards,
            "attach_point": AttachPoint(int(event["attach_point"])).name if event["attach_point"] else "",
        }
        if event["protocol"] == 6:
            named["tcp_flags"] = [name for bit, name in _FLAGS if int(event["tcp_flags"]) & bit]
        elif event["protocol"] in (1, 58):
            named["icmp_type"] = int(event["icmp_type"])
        return named | self._verdict(event, kind) | self._counts(event, kind, backwards)

    def _side(self, event: np.void, side: str, address: str, port: str) -> dict[str, Any]:
        identity, number = int(event[f"{side}_identity"]), int(event[f"{side}_endpoint"])
        endpoint, labels = self._endpoints.get(number), self._identities.get(identity)
        named: dict[str, Any] = {"address": address_text(event[address]), "identity": identity}
        if event["protocol"] in (6, 17, 132):
            named["port"] = int(event[port])
        if endpoint is not None:
            named |= {"endpoint": number, "workload": endpoint.uid}
        if labels is not None:
            named["labels"] = list(labels.labels)
        return named

    def _verdict(self, event: np.void, kind: EventType) -> dict[str, Any]:
        named: dict[str, Any] = {"verdict": "dropped" if kind is EventType.DROP else "forwarded"}
        audited = bool(int(event["flags"]) & EventFlag.AUDITED)
        if audited:
            named["verdict"] = "audited"
        if kind is EventType.DROP or audited:
            reason = self._reasons.get(int(event["reason"]))
            named["reason"] = reason.name if reason else str(int(event["reason"]))
            named["reason_text"] = reason.text if reason else f"reason {int(event['reason'])}"
        if kind is not EventType.DROP:
            named["next_hop"] = NextHop(int(event["next_hop"])).name.lower()
        for direction in ("egress", "ingress"):
            if number := int(event[f"{direction}_rule"]):
                named[f"{direction}_rule"] = self._rule(number)
        return named

    def _rule(self, number: int) -> dict[str, Any]:
        rule = self._rules.get(number)
        if rule is None:
            return {"id": number, "text": f"rule {number}"}
        return {
            "id": number, "policy": f"{rule.namespace}/{rule.name}".strip("/"), "path": rule.path,
            "effect": rule.effect, "text": rule.describe(),
        }  # fmt: skip

    def _counts(self, event: np.void, kind: EventType, backwards: bool) -> dict[str, Any]:
        there, back = ("reply_", "") if backwards else ("", "reply_")
        counts = {"packets": int(event[f"{there}packets"]), "bytes": int(event[f"{there}bytes"])}
        if kind is not EventType.CLOSE:
            return counts
        age = (int(event["time"]) >> TICK_SHIFT) - int(event["created"]) & 0xFFFFFFFF
        return counts | {
            "reply_packets": int(event[f"{back}packets"]),
            "reply_bytes": int(event[f"{back}bytes"]),
            "seconds": round((age << TICK_SHIFT) / 1e9, 3),
        }


class StoredNamer(Namer):
    """The same for records of the event store: with the names of then, and times that are of the day."""

    def __init__(self, names: Names) -> None:
        self._endpoints, self._identities, self._rules = names.endpoints, names.identities, names.rules
        self._reasons, self._offset = names.reasons, 0


def _moment(ns: int) -> str:
    moment = datetime.fromtimestamp(ns / 1e9, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def address_text(wide: Any) -> str:
    """Four 32-bit words, IPv6 or IPv4-mapped, as people write them."""
    number = 0
    for word in wide.tolist():
        number = number << 32 | word
    address = IPv6Address(number)
    return str(address.ipv4_mapped or address)
