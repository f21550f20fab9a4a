"""All configured handlers together: what flows raise, and what Prometheus is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from axoneme.plugins.hubble.metrics import handlers, l7, series
from axoneme.plugins.hubble.metrics.handlers import Handler
from axoneme.plugins.hubble.metrics.options import Contexts, HandlerOptions
from axoneme.plugins.hubble.metrics.series import Cell, Counter, Family

if TYPE_CHECKING:
    import numpy as np
    from prometheus_client import Metric

    from axoneme.plugins.hubble.proto.flow_pb2 import Flow

_HANDLERS: Final[tuple[type[Handler], ...]] = (
    l7.DnsHandler, handlers.DropHandler, handlers.TcpHandler, handlers.FlowHandler, handlers.PortDistributionHandler,
    handlers.IcmpHandler, l7.HttpHandler, l7.HttpV2Handler, l7.KafkaHandler, handlers.PolicyHandler,
    handlers.WorldHandler,
)  # fmt: skip

_BY_NAME: Final = {handler.name: handler for handler in _HANDLERS}


@frozen
class Planned:
    """A series to raise. `exemplars`: a flow's trace is an example for it."""

    cell: Cell
    exemplars: bool


@frozen
class Plan:
    """What a flow raises, and each flow like it."""

    planned: tuple[Planned, ...]

    def apply(self, times: int, seconds: np.ndarray[Any, Any] | float, trace_id: str = "") -> None:
        """Raises the series.

        :param times: how many flows there were.
        :param seconds: their latencies, or the one that all have.
        :param trace_id: of one of them.
        """
        for planned in self.planned:
            cell = planned.cell
            if isinstance(cell, Counter):
                cell.value += times
            elif isinstance(seconds, float):
                cell.observe(seconds, times)
            else:
                cell.observe_all(seconds)
            if trace_id and planned.exemplars:
                cell.trace_id = trace_id
                if not isinstance(cell, Counter):
                    cell.traced = seconds if isinstance(seconds, float) else float(seconds[-1])


class Metrics:
    """The metrics of configured handlers.

    :param limit: how many series each metric may have.
    :param known: handlers that are there already, with what they counted.
    :ivar generation: rises whenever plans that were made before no longer hold.
    """

    def __init__(
        self,
        options: Iterable[HandlerOptions],
        limit: int,
        known: Mapping[HandlerOptions, Handler] | None = None,
    ) -> None:
        known = known or {}
        self.limit = limit
        self.handlers = [known.get(option) or _BY_NAME[option.name](option, limit) for option in options]
        self.generation = 0

    @property
    def families(self) -> list[Family]:
        return [family for handler in self.handlers for family in handler.families]

    def plan(self, flow: Flow) -> Plan:
        return Plan(
            tuple(
                Planned(cell, "exemplars" in handler.options.flags)
                for handler in self.handlers
                for cell in handler.plan(flow)
            )
        )

    def rough_plan(self, flow: Flow) -> tuple[Plan, list[Family]]:
        """The plan for flows like this one whose addresses, names and ports are new, once the families are full."""
        planned, families = [], []
        for handler in self.handlers:
            exemplars = "exemplars" in handler.options.flags
            for family, values in handler.updates(flow):
                if handler.open_ended:
                    families.append(family)
                    planned.append(Planned(family.overflow(), exemplars))
                else:
                    planned.append(Planned(family.cell(values), exemplars))
        return Plan(tuple(planned)), families

    def add(self, flow: Flow) -> None:
        """Counts one flow."""
        self.plan(flow).apply(1, flow.l7.latency_ns / 1e9, flow.trace_context.parent.trace_id)

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client: this object is a collector."""
        return series.collect(self.families)

    def remove_pod(self, namespace: str, pod: str) -> int:
        """Removes the series of a pod that is gone, of all handlers whose labels name pods; returns how many."""
        removed = 0
        for handler in self.handlers:
            if gone := _names_pod(handler.options.contexts, namespace, pod):
                removed += sum(family.remove(gone) for family in handler.families)
        self.generation += removed > 0
        return removed


def _names_pod(contexts: Contexts, namespace: str, pod: str) -> Callable[[Mapping[str, str]], bool] | None:
    """Whether labels are of the pod; None if these contexts never name one."""
    sides = [side for side in ("source", "destination") if "pod" in contexts.identifiers(side)]
    pairs = [
        (f"{side}_namespace", f"{side}_pod")
        for side in ("source", "destination")
        if {f"{side}_namespace", f"{side}_pod"} <= set(contexts.labels)
    ]
    if not sides and not pairs:
        return None
    full = f"{namespace}/{pod}"
    return lambda labels: (
        any(labels[side] == full for side in sides)
        or any((labels[a], labels[b]) == (namespace, pod) for a, b in pairs)
    )
