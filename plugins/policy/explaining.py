"""`policy.explain` of a running agent: the parties out of its tables."""

from __future__ import annotations

from typing import Any

from axoneme.core.plugin import PluginContext
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, Endpoint, Identity
from axoneme.plugins.policy import reconciler
from axoneme.plugins.policy.explain import explain
from axoneme.plugins.policy.parties import Address, Parties, Workload


def parties_of(context: PluginContext) -> Parties:
    """Everybody whom the agent knows now."""
    endpoints = context.state.table(ENDPOINTS.name, Endpoint)
    identities = context.state.table(IDENTITIES.name, Identity)

    def behind(address: Address) -> int | None:
        found = context.workloads.ipcache.lookup(address)
        return None if found is None else found.identity

    return Parties(
        tuple(workload_of(row) for row in endpoints if row.labels),
        {row.number: row.labels for row in identities},
        behind,
    )


def workload_of(row: Endpoint) -> Workload:
    return Workload(
        endpoint=row.id, name=row.uid, identity=row.identity, subject=reconciler.subject_of(row), addresses=row.addresses
    )  # fmt: skip


def answer(context: PluginContext, source: str, destination: str, port: str) -> dict[str, Any]:
    return explain(reconciler.of(context).engine, parties_of(context), source, destination, port)
