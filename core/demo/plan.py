"""Which requests a demo sends: from which namespace to which address, and as whom they arrive."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from axoneme.core.demo import article, machine, services
from axoneme.core.demo.article import OUTSIDE, Flow, Way
from axoneme.core.demo.machine import Machine
from axoneme.core.demo.services import Address, Call, Service
from axoneme.core.demo.traffic import Wanted

if TYPE_CHECKING:
    from axoneme.core.workloads.endpoints import Endpoint


@frozen(kw_only=True)
class Plan:
    """:param services: rows of the table of services; none where no plugin balances, and then nobody reaches the world either."""

    endpoints: Mapping[str, Endpoint]
    machine: Machine
    services: Sequence[Service] = ()

    @property
    def ways(self) -> tuple[Way, ...]:
        if not self.services:
            return (Way.DIRECT,)
        return tuple(way for way in Way if way is not Way.SOCKET or self.machine.cgroup is not None)

    def flows(self) -> Iterator[Wanted]:
        """Between every two workloads, and from each to the world."""
        for flow in article.flows(self.ways):
            if flow.way is Way.DIRECT:
                target = self._address(flow.destination, flow.family)
            else:
                target = services.addresses(self.services, flow.destination, "ClusterIP")[flow.family]
            sees = machine.NODE[flow.family] if flow.destination == OUTSIDE.name else None
            yield self._wanted(flow, target, sees)

    def calls(self) -> list[tuple[Call, Way, int]]:
        """What is counted."""
        return [each for each in services.series() if each[1] in self.ways] if self.services else []

    def series(self, call: Call, way: Way, family: int) -> Iterator[Wanted]:
        """The requests of one count."""
        target = services.addresses(self.services, call.service, call.kind)[family]
        sees = machine.NODE[family] if call.sees == "node" else None
        for _ in range(call.requests):
            yield self._wanted(call.flow(family, way), target, sees)

    def _wanted(self, flow: Flow, target: Address, sees: Address | None) -> Wanted:
        source = self._address(flow.source, flow.family)
        return Wanted(flow, self._netns(flow.source), source, target, sees or source)

    def _netns(self, name: str) -> str:
        return self.machine.outside if name == OUTSIDE.name else self.endpoints[name].netns

    def _address(self, name: str, family: int) -> Address:
        if name == OUTSIDE.name:
            return machine.OUTSIDE[family]
        return next(each for each in self.endpoints[name].addresses if each.version == family)
