"""Who talks to whom, how much of it is dropped and why, and how long answers take: counted over the last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from attrs import define, field, frozen

from axoneme.plugins.hubble import formats
from axoneme.plugins.hubble.drop_texts import drop_text
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2

#: Pairs that are told apart; what comes beyond is one pair of others.
PAIRS: Final = 10_000
#: Answers per pair that latencies are taken from, the newest.
LATENCIES: Final = 512
#: What a policy says of a connection comes beside the flow of that connection, or of its drop, which is counted.
_POLICY_VERDICT: Final = 5
#: Parts of the window, which is moved on by one of them.
PARTS: Final = 10
OTHERS: Final = ("(others)", "(others)", "")

#: What has to be known of a flow.
FIELDS: Final = (
    "time", "verdict", "IP", "l4", "source.identity", "source.namespace", "source.pod_name", "destination.identity",
    "destination.namespace", "destination.pod_name", "source_names", "destination_names", "source_service",
    "destination_service", "drop_reason_desc", "event_type", "l7", "is_reply",
)  # fmt: skip

Key = tuple[str, str, str]


@frozen(kw_only=True)
class Row:
    """A pair of client and server, and what was seen of it in the window.

    :param latency: of answered layer 7 requests, (50th, 99th percentile) in milliseconds; None without any.
    """

    client: str
    server: str
    port: str
    flows: int
    rate: float
    drops: int
    reason: str
    answers: int
    latency: tuple[float, float] | None


@define
class _Pair:
    flows: list[int] = field(factory=lambda: [0] * PARTS)
    drops: list[int] = field(factory=lambda: [0] * PARTS)
    answers: list[int] = field(factory=lambda: [0] * PARTS)
    reason: str = ""
    latencies: deque[int] = field(factory=lambda: deque(maxlen=LATENCIES))

    def forget(self, part: int) -> None:
        self.flows[part] = self.drops[part] = self.answers[part] = 0


class Tally:
    """:param window: seconds that are counted."""

    def __init__(self, window: float) -> None:
        self._window = window
        self._pairs: dict[Key, _Pair] = {}
        self._step = -1
        self._began: float | None = None
        #: Flows that were lost on the way here.
        self.lost = 0

    def add(self, answer: observer_pb2.GetFlowsResponse, now: float) -> None:
        """:param now: seconds, of a clock that is never set back."""
        self._move(now)
        if answer.HasField("lost_events"):
            self.lost += answer.lost_events.num_events_lost
        flow = answer.flow
        if not answer.HasField("flow") or flow.event_type.type == _POLICY_VERDICT:
            return
        pair, part = self._pair(_key(flow)), self._step % PARTS
        pair.flows[part] += 1
        if flow.verdict == flow_pb2.DROPPED:
            pair.drops[part] += 1
            pair.reason = drop_text(flow.drop_reason_desc or flow.event_type.sub_type)
        if flow.l7.type == flow_pb2.RESPONSE:
            pair.answers[part] += 1
            pair.latencies.append(flow.l7.latency_ns)

    def _pair(self, key: Key) -> _Pair:
        if key not in self._pairs and len(self._pairs) >= PAIRS:
            key = OTHERS
        return self._pairs.setdefault(key, _Pair())

    def _move(self, now: float) -> None:
        """Forgets what has left the window."""
        self._began = now if self._began is None else self._began
        step = int(now / self._window * PARTS)
        for gone in range(max(self._step + 1, step - PARTS + 1), step + 1):
            for pair in self._pairs.values():
                pair.forget(gone % PARTS)
        if step != self._step:
            self._pairs = {key: pair for key, pair in self._pairs.items() if any(pair.flows)}
        self._step = step

    def rows(self, now: float, by: str) -> list[Row]:
        """What there is, the most first: by flows, drops, or latency."""
        self._move(now)
        began = now if self._began is None else self._began
        seconds = max(min(now - began, self._window), 0.1)
        orders: dict[str, Any] = {
            "flows": lambda row: row.flows,
            "drops": lambda row: (row.drops, row.flows),
            "latency": lambda row: (row.latency[1] if row.latency else -1.0, row.flows),
        }
        rows = [_row(key, pair, seconds) for key, pair in self._pairs.items()]
        return sorted(rows, key=lambda row: (orders[by](row), row.client, row.server, row.port), reverse=True)


def _row(key: Key, pair: _Pair, seconds: float) -> Row:
    client, server, port = key
    flows, drops, answers = sum(pair.flows), sum(pair.drops), sum(pair.answers)
    return Row(
        client=client, server=server, port=port, flows=flows, rate=flows / seconds, drops=drops,
        reason=pair.reason if drops else "", answers=answers, latency=_percentiles(pair.latencies) if answers else None,
    )  # fmt: skip


def _percentiles(latencies: Iterable[int]) -> tuple[float, float]:
    ordered = sorted(latencies)
    return tuple(ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e6 for share in (0.5, 0.99))  # type: ignore[return-value]


def _key(flow: flow_pb2.Flow) -> Key:
    """Who asked, who answers, and at which port: of a reply the other way round."""
    client, server = ("destination", "source") if flow.is_reply.value else ("source", "destination")
    kind = flow.l4.WhichOneof("protocol") or ""
    port = getattr(getattr(flow.l4, kind), f"{server}_port") if kind in ("TCP", "UDP", "SCTP") else ""
    return _who(flow, client), _who(flow, server), f"{port}/{kind}" if port else kind


def _who(flow: flow_pb2.Flow, side: str) -> str:
    name = formats.name(flow, side, translate=True)
    identity = getattr(flow, side).identity
    return f"{name} ({formats.RESERVED[identity]})" if 0 < identity < len(formats.RESERVED) else name
