"""Calls of the gRPC services, counted for the metrics `grpc_server_…` that every gRPC server in Cilium has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from attrs import define, field

if TYPE_CHECKING:
    from prometheus_client import Metric


@define
class Calls:
    """Those of one method.

    :ivar handled: by gRPC code, as Go writes it: `OK`, `InvalidArgument`.
    """

    service: str
    method: str
    streams: bool
    started: int = 0
    received: int = 0
    sent: int = 0
    handled: Counter[str] = field(factory=Counter)

    def begin(self) -> None:
        """A call, with its one request."""
        self.started += 1
        self.received += 1

    def end(self, code: str) -> None:
        """:param code: `INVALID_ARGUMENT`, as in `grpc.StatusCode`."""
        self.handled["OK" if code == "OK" else _words(code)] += 1


def _words(code: str) -> str:
    return "Canceled" if code == "CANCELLED" else code.title().replace("_", "")


_METHODS: Final[dict[tuple[str, str], Calls]] = {}


def of(service: str, method: str, *, streams: bool) -> Calls:
    """The counts of a method, the same for as long as the process lives."""
    return _METHODS.setdefault((service, method), Calls(service, method, streams))


def collect() -> Iterator[Metric]:
    """For prometheus_client."""
    from prometheus_client.core import CounterMetricFamily

    labels = ["grpc_type", "grpc_service", "grpc_method"]
    parts = {"started": "calls begun", "msg_received": "messages received", "msg_sent": "messages sent"}
    families = {
        name: CounterMetricFamily(f"grpc_server_{name}", text, labels=labels) for name, text in parts.items()
    }
    handled = CounterMetricFamily("grpc_server_handled", "calls ended", labels=[*labels, "grpc_code"])
    for calls in _METHODS.values():
        own = ["server_stream" if calls.streams else "unary", calls.service, calls.method]
        for name, number in (
            ("started", calls.started),
            ("msg_received", calls.received),
            ("msg_sent", calls.sent),
        ):
            families[name].add_metric(own, number)
        for code, number in calls.handled.items():
            handled.add_metric([*own, code], number)
    yield from families.values()
    yield handled
