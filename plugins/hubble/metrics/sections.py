"""Handlers by the flows that they want to see, and how they change while the agent runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby
from typing import TYPE_CHECKING

from attrs import frozen

from axoneme.plugins.hubble.filters.compiler import Filter, compiled
from axoneme.plugins.hubble.metrics.feed import Feed
from axoneme.plugins.hubble.metrics.handlers import Handler
from axoneme.plugins.hubble.metrics.options import HandlerOptions
from axoneme.plugins.hubble.metrics.registry import Metrics
from axoneme.plugins.hubble.proto.flow_pb2 import FlowFilter

if TYPE_CHECKING:
    from prometheus_client import Metric

    from axoneme.plugins.hubble.observer import Batch, Observer


@frozen
class Section:
    """Handlers with the same filters."""

    metrics: Metrics
    feed: Feed


class Sections:
    """All handlers.

    :param limit: how many series each metric may have.
    """

    def __init__(self, observer: Observer, limit: int) -> None:
        self._observer = observer
        self._limit = limit
        self._sections: list[Section] = []

    @property
    def handlers(self) -> dict[HandlerOptions, Handler]:
        return {
            handler.options: handler for section in self._sections for handler in section.metrics.handlers
        }

    def use(self, handlers: Iterable[HandlerOptions]) -> None:
        """From now on these. Those that were there unchanged go on counting from where they are."""
        known = self.handlers
        ordered = sorted(handlers, key=_filters)
        sections = []
        for (include, exclude), group in groupby(ordered, key=_filters):
            metrics = Metrics(group, self._limit, known)
            sections.append(Section(metrics, Feed(metrics, self._filter(include, exclude))))
        self._sections = sections

    def _filter(self, include: tuple[bytes, ...], exclude: tuple[bytes, ...]) -> Filter | None:
        if not include and not exclude:
            return None
        allowed, denied = ([FlowFilter.FromString(one) for one in some] for some in (include, exclude))
        return compiled(allowed, denied, decode=self._observer._decode, uuids=self._observer.wire.uuids)

    def add(self, batch: Batch) -> None:
        """Counts new flows."""
        for section in self._sections:
            section.feed.add(batch)

    def remove_pod(self, namespace: str, name: str) -> None:
        for section in self._sections:
            section.metrics.remove_pod(namespace, name)

    def collect(self) -> Iterator[Metric]:
        return chain.from_iterable(section.metrics.collect() for section in self._sections)


def _filters(options: HandlerOptions) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    return options.include, options.exclude
