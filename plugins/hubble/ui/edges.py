"""What flows between parties: many flows become few edges, each with its verdicts, reasons and rules."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from axoneme.plugins.hubble.columns import Array, Protocol, Reply, View
from axoneme.plugins.hubble.mixing import Mixer
from axoneme.plugins.hubble.ui.parties import Parties

_DROP, _TRACE, _POLICY_VERDICT, _L7 = 1, 4, 5, 129
_DROPPED, _ERROR, _AUDIT, _REDIRECTED = 2, 3, 4, 5

#: Different flows that are looked at one by one; when there are more, ports no longer tell them apart.
_GROUPS: Final = 4096
#: The place of the port among the columns.
_PORT: Final = 3
#: Rules that are named per edge.
_RULES: Final = 8

_PROTOCOLS: Final = {
    int(Protocol.TCP): "TCP", int(Protocol.UDP): "UDP", int(Protocol.SCTP): "SCTP",
    int(Protocol.ICMPV4): "ICMP", int(Protocol.ICMPV6): "ICMPv6",
}  # fmt: skip
_APPLICATIONS: Final = {1: "DNS", 2: "HTTP", 3: "Kafka"}

Key = tuple[int, int, int, int, int]
Edge = dict[str, Any]


class Edges:
    """Adds up edges. `count` is the number of flows that are in them."""

    def __init__(self, parties: Parties) -> None:
        self.count = 0
        self.dropped = 0
        self._parties = parties
        self._mixer = Mixer(9)
        self._edges: dict[Key, Edge] = {}

    def add(self, view: View, places: Array) -> None:
        """The flows at these places of a view: what was sent, not what came back."""
        kind, verdict = view["event_type"][places], view["verdict"][places]
        told = (kind == _TRACE) | (kind == _DROP) | (kind == _L7)
        told |= (kind == _POLICY_VERDICT) & ((verdict == _AUDIT) | (verdict == _REDIRECTED))
        places = places[told & (view["reply"][places] != Reply.YES)]
        if not len(places):
            return
        self.count += len(places)
        self.dropped += int((view["verdict"][places] == _DROPPED).sum())
        columns, times = self._columns(view, places), view["time"][places]
        first, back, counts = self._alike(columns)
        if len(first) > _GROUPS:
            columns[_PORT][:] = 0
            first, back, counts = self._alike(columns)
        last = np.zeros(len(first), np.uint64)
        np.maximum.at(last, back, times)
        rows = np.stack([column[first] for column in columns], axis=1).tolist()
        for row, number, moment in zip(rows, counts.tolist(), last.tolist(), strict=True):
            self._add(tuple(row), number, moment)

    def _alike(self, columns: list[Array]) -> tuple[Array, Array, Array]:
        """The first of all rows that are alike, which of these each row is like, and how many there are of each."""
        mixed = self._mixer.mix(columns)
        _, first, back, counts = np.unique(mixed, return_index=True, return_inverse=True, return_counts=True)
        return first, back, counts

    def _columns(self, view: View, places: Array) -> list[Array]:
        """What tells edges apart: see `_add`."""
        source, destination = self._parties.ends(view)
        protocol = view["protocol"][places]
        ports = (protocol == Protocol.TCP) | (protocol == Protocol.UDP) | (protocol == Protocol.SCTP)
        columns = (
            source[places], destination[places], protocol, np.where(ports, view["destination_port"][places], 0),
            view["l7"][places], view["verdict"][places], view["drop_reason"][places],
            view["egress_rule"][places], view["ingress_rule"][places],
        )  # fmt: skip
        return [column.astype(np.uint64) for column in columns]

    def _add(self, row: tuple[int, ...], number: int, last: int) -> None:
        source, destination, protocol, port, l7, verdict, reason, *rules = row
        key = (source, destination, protocol, port, l7)
        edge = self._edges.get(key)
        if edge is None:
            edge = self._edges[key] = {
                "source": self._parties.all[source].id, "destination": self._parties.all[destination].id,
                "protocol": _PROTOCOLS.get(protocol, "other"), "port": port, "l7": _APPLICATIONS.get(l7, ""),
                "forwarded": 0, "dropped": 0, "audit": 0, "redirected": 0, "reasons": {}, "rules": {}, "last": 0,
            }  # fmt: skip
        name = {_DROPPED: "dropped", _ERROR: "dropped", _AUDIT: "audit", _REDIRECTED: "redirected"}.get(
            verdict, "forwarded"
        )
        edge[name] += number
        edge["last"] = max(edge["last"], last // 1_000_000)
        if name == "dropped":
            edge["reasons"][reason] = edge["reasons"].get(reason, 0) + number
        for rule in rules:
            if rule and (rule in edge["rules"] or len(edge["rules"]) < _RULES):
                edge["rules"][rule] = edge["rules"].get(rule, 0) + number

    def plain(self) -> list[Edge]:
        return list(self._edges.values())
