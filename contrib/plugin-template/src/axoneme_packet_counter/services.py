"""What runs while the plugin is enabled. The agent starts services, restarts those that fail, and cancels them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from axoneme.core import logs
from axoneme.core.plugin import PluginContext
from axoneme.core.workloads.endpoints import ENDPOINTS, Endpoint
from axoneme_packet_counter.counts import top

log = logs.get(__name__)


async def forget(context: PluginContext, ready: Callable[[], None]) -> None:
    """Removes the counts of workloads that are gone, also of those that went while no agent ran: the map outlives it."""
    endpoints = context.state.table(ENDPOINTS.name, Endpoint)
    async for batch in endpoints.watch():
        if not batch.initialized:
            continue  # not all workloads are known yet: one that is missing may still come
        counts = context.map("packet_counts")
        keys, _ = counts.items()
        counts.delete_batch([key for key in keys.tolist() if key not in endpoints])
        ready()


async def log_busiest(context: PluginContext, ready: Callable[[], None]) -> None:
    ready()
    while True:
        await asyncio.sleep(context.config.log_interval)
        for row in top(context):
            log.info("traffic", **row)
