"""From what is known of services to the maps' image and to rows of the public tables, service by service. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set

from attrs import define, field

from axoneme.core.errors import Where
from axoneme.core.state.resources import Problem
from axoneme.plugins.lb.catalog import Catalog, candidates_of
from axoneme.plugins.lb.demand import Demand, Wanted
from axoneme.plugins.lb.image import Image
from axoneme.plugins.lb.maps import Scope
from axoneme.plugins.lb.model import Name
from axoneme.plugins.lb.numbers import LimitError
from axoneme.plugins.lb.resolve import Front, Resolved, unique
from axoneme.plugins.lb.rows import BackendKey, RowKey, row_key
from axoneme.plugins.lb.selection import Candidate
from axoneme.plugins.lb.tables import Backend, BackendsRow, Frontend, ServiceRow


@define(eq=False)
class Changes:
    """What became of services: their rows, the names of those that are gone, and backends that nobody has any more."""

    services: dict[Name, ServiceRow | None] = field(factory=dict)
    backends: dict[Name, BackendsRow | None] = field(factory=dict)
    dead: dict[bytes, Candidate] = field(factory=dict)


class Engine:
    """Holds each service's last resolution."""

    def __init__(self, catalog: Catalog, image: Image) -> None:
        self.catalog, self.image = catalog, image
        self.resolved: dict[Name, Resolved] = {}
        #: Services that do not fit into the maps, and why. They keep what they had.
        self.refused: dict[Name, LimitError] = {}
        self._changes = Changes()
        self._rows: dict[Name, tuple[ServiceRow, BackendsRow]] = {}
        #: How many services have a backend, whatever its state.
        self._known: dict[bytes, int] = {}

    def work(self) -> Iterator[Name]:
        """Does one dirty service after the other, until there is none; yields after each."""
        while self.catalog.dirty:
            for name in self.catalog.take_dirty():
                self._update(name)
                yield name

    def take_changes(self) -> Changes:
        """What changed since the last time."""
        changes, self._changes = self._changes, Changes()
        return changes

    def retry(self) -> None:
        """Those who found no room try again."""
        self.catalog.touch(*self.refused)

    def touch_addresses(self, addresses: Set[bytes]) -> None:
        """The addresses (packed) began or ceased to be workloads of this node."""
        for name, made in self.resolved.items():
            if any(one.key[:-4] in addresses for one in candidates_of(made)):
                self.catalog.touch(name)

    def _update(self, name: Name) -> None:
        made = self.catalog.resolve(name)
        self.refused.pop(name, None)
        taken: Mapping[RowKey, Name] = {}
        try:
            applied = self.image.apply(name, Demand() if made is None else made.demand)
        except LimitError as error:
            self.refused[name] = error
            if made is not None and not self.image.has(name):
                taken = self._close(name, made.demand)
        else:
            taken = applied.taken
            self.catalog.touch(*applied.again)
        self._know(name, made)
        if made is None:
            self.resolved.pop(name, None)
            if self._rows.pop(name, None) is not None:
                self._changes.services[name] = self._changes.backends[name] = None
            return
        self.resolved[name] = made
        self._publish(name, made, taken)

    def _close(self, name: Name, demand: Demand) -> Mapping[RowKey, Name]:
        """A service that finds no room has no backends: its clients are told so, rather than led to whoever has its address."""
        rows = {key: Wanted(row.balance, (), row.flags, rank=row.rank) for key, row in demand.rows.items()}
        try:
            applied = self.image.apply(name, Demand(rows, {}, demand.guards))
        except LimitError:  # not even its addresses fit
            return {}
        self.catalog.touch(*applied.again)
        return applied.taken

    def _know(self, name: Name, made: Resolved | None) -> None:
        """Counts backends; whom no service has any more is dead."""
        before = self.resolved.get(name)
        new = {} if made is None else {one.key: one for one in candidates_of(made)}
        old = {} if before is None else {one.key: one for one in candidates_of(before)}
        dead = self._changes.dead
        for key in new:
            if key not in old:
                self._known[key] = self._known.get(key, 0) + 1
                if dead:
                    dead.pop(key, None)
        for key, one in old.items():
            if key not in new:
                self._known[key] -= 1
                if not self._known[key]:
                    del self._known[key]
                    dead[key] = one

    def unknown(self, backends: Iterable[BackendKey]) -> list[BackendKey]:
        """Those of them that no service has, used or not."""
        return [key for key in backends if key not in self._known]

    # For others

    def row(self, name: Name) -> ServiceRow | None:
        """What the public table says of a service, or will say in a moment."""
        rows = self._rows.get(name)
        return None if rows is None else rows[0]

    def _publish(self, name: Name, made: Resolved, taken: Mapping[RowKey, Name]) -> None:
        service = made.service
        fronts = tuple(self._frontend(made, front) for front in made.fronts)
        problems = [*made.problems, *_taken(made, taken)]
        if (refused := self.refused.get(name)) is not None:
            problems.append(Problem(refused.message, service.where, refused.hint))
        row = ServiceRow(
            namespace=name[0],
            name=name[1],
            source=service.origin,
            type=service.type.value,
            labels=service.labels,
            selector=service.selector,
            frontends=fronts,
            addresses=unique(one.address for one in fronts),
            problems=tuple(problems),
            where=service.where,
        )
        behind = BackendsRow(
            namespace=name[0],
            name=name[1],
            backends=tuple(self._behind(made)),
            addresses=tuple({one.key[:-4]: one.address for one in candidates_of(made)}.values()),
        )
        before = self._rows.get(name)
        if before is None or row != before[0]:
            self._changes.services[name] = row
        if before is None or behind != before[1]:
            self._changes.backends[name] = behind
        self._rows[name] = (row, behind)

    def _frontend(self, made: Resolved, front: Front) -> Frontend:
        port = made.service.ports[front.number]
        key = row_key(front.address, front.port, port.protocol, Scope.INTERNAL)
        number = self.image.number(key)
        return Frontend(front.address, front.port, port.protocol.name, front.kind, port.name, number)

    def _behind(self, made: Resolved) -> Iterator[Backend]:
        for number, candidates in made.backends.items():
            port = made.service.ports[number]
            protocol, port_name = port.protocol.name, port.name
            for one in candidates:
                endpoint = one.endpoint
                yield Backend(
                    one.address,
                    one.port,
                    protocol,
                    port_name,
                    one.state,
                    one.weight,
                    endpoint.node,
                    endpoint.zone,
                    endpoint.target,
                    self.image.backends.number(one.key),
                )


def _taken(made: Resolved, taken: Mapping[RowKey, Name]) -> Iterator[Problem]:
    """An address that another service has: said once, not for each scope."""
    where: Where | None = made.service.where
    for front in made.fronts if taken else ():
        for _, key in front.keys(made.service):
            if key in taken:
                port = made.service.ports[front.number]
                text = f"{front.address}:{front.port}/{port.protocol.name} belongs to {'/'.join(taken[key])}"
                yield Problem(text, where)
                break
