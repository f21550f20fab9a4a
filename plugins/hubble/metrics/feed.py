"""From observed flows to counted ones, in bulk: flows that are alike are looked at once."""

from __future__ import annotations

from axoneme.plugins.hubble.metrics.registry import Metrics
from axoneme.plugins.hubble.observer import Batch


class Feed:
    """Counts batches of flows."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def add(self, batch: Batch) -> None:
        for flow in batch.flows():
            self._metrics.add(flow)
