"""The inputs of the running agent's engine, as they are now."""

from __future__ import annotations

from ipaddress import ip_network

from axoneme.core.plugin import PluginContext
from axoneme.core.state.resources import RESOURCES, Resource
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, IPCACHE, Endpoint, Identity, IpcacheEntry
from axoneme.core.workloads.identities import WORLD
from axoneme.core.workloads.names import DNS_NAMES, DnsName
from axoneme.plugins.policy import reconciler
from axoneme.plugins.policy.explaining import workload_of
from axoneme.plugins.policy.model import CidrGroup
from axoneme.plugins.policy.parties import Address
from axoneme.plugins.policy.rehearsal.inputs import Inputs
from axoneme.plugins.policy.services import KINDS, known_services


def inputs_of(context: PluginContext) -> Inputs:
    """A snapshot; its parts are shared and never change."""
    state, engine = context.state, reconciler.of(context).engine
    resources = state.table(RESOURCES.name, Resource)
    groups = (row.parsed for row in resources.by("kind", "CiliumCIDRGroup"))
    services = [row for kind in KINDS for row in resources.by("kind", kind)]
    names: dict[str, tuple[Address, ...]] = {}
    for row in state.table(DNS_NAMES.name, DnsName):
        names[row.name] = (*names.get(row.name, ()), row.address)
    return Inputs(
        settings=engine.settings,
        policies=dict(engine.policies),
        groups={one.name: one for one in groups if isinstance(one, CidrGroup)},
        identities={row.number: row.labels for row in state.table(IDENTITIES.name, Identity)},
        workloads=tuple(workload_of(row) for row in state.table(ENDPOINTS.name, Endpoint) if row.labels),
        worlds=(_world(context, "0.0.0.0/0"), _world(context, "::/0")),
        names=names,
        services=tuple(known_services(services)),
    )


def _world(context: PluginContext, prefix: str) -> int:
    row = context.state.table(IPCACHE.name, IpcacheEntry).get(ip_network(prefix))
    return WORLD if row is None else row.identity
