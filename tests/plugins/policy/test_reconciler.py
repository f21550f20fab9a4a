"""From tables to maps: what is written, in which order, and what a restart finds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from ipaddress import ip_network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from axoneme.core.datapath import abi
from axoneme.core.datapath.maps import Map
from axoneme.core.events.rules import L7_RULES, RULES
from axoneme.core.records import Level
from axoneme.core.state.document import At, Document
from axoneme.core.state.resources import RESOURCES, Kinds, Resource, read_resource
from axoneme.core.state.table import State
from axoneme.core.testing.fake_kernel import FakeKernel
from axoneme.core.workloads.endpoints import ENDPOINTS, TABLES, Endpoint, IpcacheEntry
from axoneme.core.workloads.endpoints import Identity as IdentityRow
from axoneme.core.workloads.identities import RESERVED, workload_labels
from axoneme.core.workloads.ipcache import Ipcache
from axoneme.core.workloads.names import DNS_NAMES, FQDN_SELECTORS
from axoneme.plugins.policy import world
from axoneme.plugins.policy.config import PolicyConfig
from axoneme.plugins.policy.fit import Room
from axoneme.plugins.policy.kinds import resource_kinds
from axoneme.plugins.policy.maps import PolicyMaps, specs
from axoneme.plugins.policy.model import Direction
from axoneme.plugins.policy.reconciler import PolicyReconciler

BACKEND = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: backend, namespace: production}
spec:
  endpointSelector: {matchLabels: {app: backend}}
  ingress:
    - fromEndpoints: [{matchLabels: {app: gateway}}]
      toPorts: [{ports: [{port: "8080", protocol: TCP}]}]
"""
WORLDLY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: outside, namespace: production}
spec:
  endpointSelector: {matchLabels: {app: backend}}
  egress: [{toCIDR: [192.0.2.0/24]}]
"""
DENIES_NOISY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: quiet, namespace: production}
spec:
  endpointSelector: {matchLabels: {app: backend}}
  enableDefaultDeny: {ingress: false}
  ingressDeny: [{fromEndpoints: [{matchLabels: {app: noisy}}]}]
"""
BACKEND_ID, GATEWAY_ID = 1, 2
TCP = 6


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes the kernel's ipcache here, unless the test does."""
    monkeypatch.setattr(world, "SETTLE", 0.2)


class Agent:
    """The parts of an agent that the plugin sees, with maps in memory."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.kernel = FakeKernel()
        self.state = State([*TABLES, RESOURCES, RULES, L7_RULES, DNS_NAMES, FQDN_SELECTORS])
        self.revision = 0
        self.config = PolicyConfig(**config)
        declared = [*specs(self.config.peers, self.config.verdicts), *_ipcache_maps()]
        self.maps = {spec.name: Map.create(self.kernel, spec) for spec in declared}
        self.settings = SimpleNamespace(agent=SimpleNamespace(state_dir=folder))
        self.ipcache = Ipcache(self.state, dual_stack_world=True)
        self.ipcache.start()
        self.workloads = SimpleNamespace(ipcache=self.ipcache, gate=lambda name, wait: lambda: None)
        self.name = "policy"
        rows = (IdentityRow(number=number, labels=labels) for number, labels in RESERVED.items())
        self.state.writer("identities").upsert(*rows)
        for endpoint, app in ((BACKEND_ID, "backend"), (GATEWAY_ID, "gateway")):
            self.add(endpoint, app)
        for table in ("identities", "endpoints", "resources"):
            self.state.writer(table).mark_initialized()

    def add(self, endpoint: int, app: str) -> None:
        labels = workload_labels({"app": app}, "production")
        identity = 256 + endpoint
        self.state.writer("identities").upsert(IdentityRow(number=identity, labels=labels, references=1))
        self.state.writer(ENDPOINTS.name, Endpoint).upsert(
            Endpoint(id=endpoint, name=app, namespace="production", identity=identity, labels=labels)
        )

    def know(self, identity: int, app: str, **labels: str) -> None:
        """An identity of somewhere else."""
        row = IdentityRow(number=identity, labels=workload_labels({"app": app, **labels}, "production"))
        self.state.writer("identities").upsert(row)

    def map(self, name: str) -> Map:
        return self.maps[name]

    def raise_revision(self) -> None:
        self.revision += 1

    def apply(self, text: str) -> Resource:
        document = Document("policy.yaml", yaml.safe_load(text), {}, At(0, 0))
        resource = read_resource(document, Kinds(resource_kinds()), "test").resource
        self.state.writer(RESOURCES.name, Resource).upsert(resource)
        return resource

    @property
    def policy_maps(self) -> PolicyMaps:
        return PolicyMaps(*(self.maps[f"policy_{name}"] for name in ("subjects", "peers", "verdicts")))

    def allows(self, endpoint: int, direction: Direction, peer: int, port: int) -> bool:
        found = self.policy_maps.read().lookup(endpoint, direction, peer, TCP, port)
        return found is not None and found.action.allows


def _ipcache_maps() -> list[Any]:
    core = abi.core_maps(connections=64, endpoints=64, ipcache=64, events=4096)
    return [spec for spec in core if spec.name.startswith("ipcache")]


@asynccontextmanager
async def running(agent: Agent) -> AsyncIterator[PolicyReconciler]:
    reconciler = PolicyReconciler(agent)  # type: ignore[arg-type]
    ready = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reconciler.run(ready.set))
        await ready.wait()
        try:
            yield reconciler
        finally:
            task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for are rows and maps, which nobody signals
            await asyncio.sleep(0)


async def test_a_policy_becomes_decisions(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    async with running(agent):
        assert agent.allows(BACKEND_ID, Direction.INGRESS, 256 + GATEWAY_ID, 1)
        before = agent.revision
        agent.apply(BACKEND)
        await until(lambda: agent.revision > before)
        assert agent.allows(BACKEND_ID, Direction.INGRESS, 256 + GATEWAY_ID, 8080)
        assert not agent.allows(BACKEND_ID, Direction.INGRESS, 256 + GATEWAY_ID, 8081)
        assert not agent.allows(BACKEND_ID, Direction.INGRESS, 256 + BACKEND_ID, 8080)


async def test_a_denied_packet_names_the_policy_that_turned_default_deny_on(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.apply(BACKEND)
    async with running(agent):
        found = agent.policy_maps.read().lookup(BACKEND_ID, Direction.INGRESS, 256 + BACKEND_ID, TCP, 8080)
        assert found is not None
        row = agent.state.table(RULES.name).get(found.rule)
        assert (row.namespace, row.name, row.effect) == ("production", "backend", "default-deny")


async def test_a_restart_writes_nothing(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.apply(BACKEND)
    agent.apply(WORLDLY)
    async with running(agent):
        pass
    before, revision = agent.policy_maps.read(), agent.revision
    async with running(agent) as second:
        assert second.writes == 0
    assert agent.policy_maps.read() == before
    assert agent.revision == revision


async def test_what_the_kernel_has_stays_in_force_until_everything_is_known(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.apply(BACKEND)
    async with running(agent):
        pass
    before = agent.policy_maps.read()
    agent.state.writer(RESOURCES.name).expect("folder")
    agent.state.writer(RESOURCES.name).delete(("CiliumNetworkPolicy", "production", "backend"))
    reconciler = PolicyReconciler(agent)  # type: ignore[arg-type]
    async with asyncio.TaskGroup() as group:
        task = group.create_task(reconciler.run(lambda: None))
        for _ in range(20):
            await asyncio.sleep(0)
        assert agent.policy_maps.read() == before
        agent.state.writer(RESOURCES.name).mark_initialized("folder")
        await until(lambda: agent.policy_maps.read() != before)
        task.cancel()
    assert agent.allows(BACKEND_ID, Direction.INGRESS, 256 + BACKEND_ID, 1)


async def test_a_prefix_gets_an_identity_before_its_policy_takes_effect(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    async with running(agent):
        agent.apply(WORLDLY)
        prefix = ip_network("192.0.2.0/24")
        table = agent.state.table("ipcache", IpcacheEntry)
        await until(lambda: table.get(prefix) is not None)
        identity = table.get(prefix).identity  # type: ignore[union-attr]
        assert agent.allows(BACKEND_ID, Direction.EGRESS, 9, 80)  # the policy waits for the kernel's ipcache
        key = {"length": 24, "address": {"a": [int(prefix.network_address)]}}
        agent.map("ipcache4").update(key, {"identity": identity})
        await until(lambda: not agent.allows(BACKEND_ID, Direction.EGRESS, 9, 80))
        assert agent.allows(BACKEND_ID, Direction.EGRESS, identity, 80)
        agent.map("ipcache4").clear()
        agent.state.writer(RESOURCES.name).delete(("CiliumNetworkPolicy", "production", "outside"))
        await until(lambda: table.get(prefix) is None and identity not in agent.state.table("identities"))
        await until(lambda: agent.allows(BACKEND_ID, Direction.EGRESS, 9, 80))


async def test_a_removed_endpoint_loses_its_entry(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    async with running(agent):
        agent.state.writer(ENDPOINTS.name).delete(BACKEND_ID)
        await until(lambda: BACKEND_ID not in agent.policy_maps.read().subjects)


def _ports(name: str, peer: str, count: int, first: int = 1) -> str:
    """A policy that opens this many ports to a peer, none beside another."""
    ports = [{"port": str(port), "protocol": "TCP"} for port in range(first, first + 2 * count, 2)]
    parts = [ports[index : index + 30] for index in range(0, count, 30)]
    value = yaml.safe_load(BACKEND)
    value["metadata"]["name"] = name
    value["spec"]["ingress"] = [
        {"fromEndpoints": [{"matchLabels": {"app": peer}}], "toPorts": [{"ports": part}]} for part in parts
    ]
    return yaml.safe_dump(value)


async def test_what_does_not_fit_is_closed_and_the_rest_goes_on(tmp_path: Path) -> None:
    agent = Agent(tmp_path, verdicts=1024)
    async with running(agent) as reconciler:
        agent.apply(BACKEND.replace("app: gateway", "app: backend").replace("name: backend,", "name: small,"))
        agent.apply(_ports("big", "gateway", 1200))
        await until(lambda: reconciler.health().level is Level.DEGRADED)
        assert "no room" in reconciler.health().reason
        assert metrics(reconciler)["axoneme_policy_no_room", "peers"] == 1
        assert metrics(reconciler)["axoneme_policy_no_room", "workloads"] == 0
        assert agent.allows(BACKEND_ID, Direction.INGRESS, 256 + BACKEND_ID, 8080)
        assert agent.allows(GATEWAY_ID, Direction.EGRESS, 256 + BACKEND_ID, 80)
        for port in (1, 80, 2399):
            assert not agent.allows(BACKEND_ID, Direction.INGRESS, 256 + GATEWAY_ID, port)
        agent.apply(_ports("big", "gateway", 100))
        await until(lambda: reconciler.health().level is Level.OK)
        assert agent.allows(BACKEND_ID, Direction.INGRESS, 256 + GATEWAY_ID, 1)
        assert agent.policy_maps.read() == reconciler.engine.tables


async def test_a_change_without_room_for_old_and_new_at_once_goes_through(tmp_path: Path) -> None:
    agent = Agent(tmp_path, verdicts=1024)
    async with running(agent) as reconciler:
        for first in (1, 2001, 4001):
            agent.apply(_ports("big", "gateway", 900, first))
            probe = (BACKEND_ID, Direction.INGRESS, 256 + GATEWAY_ID, first)
            await until(partial(agent.allows, *probe))
            assert reconciler.health().level is Level.OK
            assert agent.policy_maps.read() == reconciler.engine.tables
            assert agent.allows(GATEWAY_ID, Direction.EGRESS, 256 + BACKEND_ID, 80)


async def test_maps_that_are_fuller_than_they_should_be_shut_what_changes(tmp_path: Path) -> None:
    agent = Agent(tmp_path, verdicts=1024)
    async with running(agent) as reconciler:
        assert reconciler.writer is not None
        reconciler.writer._room = Room(1 << 20, 1 << 20)
        agent.apply(_ports("big", "gateway", 1200))
        await until(lambda: reconciler.health().level is Level.FAILED)
        assert "1 workloads are shut" in reconciler.health().reason
        assert BACKEND_ID not in agent.policy_maps.read().subjects
        assert agent.allows(GATEWAY_ID, Direction.EGRESS, 256 + BACKEND_ID, 80)
        agent.apply(_ports("big", "gateway", 100))
        await until(lambda: reconciler.health().level is Level.OK)
        assert agent.policy_maps.read() == reconciler.engine.tables


async def test_a_denial_that_does_not_fit_closes_its_workload_and_says_so(tmp_path: Path) -> None:
    agent = Agent(tmp_path, peers=1024)
    async with running(agent) as reconciler:
        for number in range(1100):
            agent.know(1000 + number, "noisy", version=str(number))
        agent.apply(DENIES_NOISY)
        await until(lambda: reconciler.health().level is Level.FAILED)
        assert metrics(reconciler)["axoneme_policy_no_room", "workloads"] == 1
        assert not agent.allows(BACKEND_ID, Direction.INGRESS, 2050, 80)
        assert not agent.allows(BACKEND_ID, Direction.INGRESS, 256 + GATEWAY_ID, 80)
        found = agent.policy_maps.read().lookup(BACKEND_ID, Direction.INGRESS, 2050, TCP, 80)
        assert found is not None
        assert agent.state.table(RULES.name).get(found.rule).path == "no-room"
        assert agent.allows(BACKEND_ID, Direction.EGRESS, 2050, 80)
        assert agent.allows(GATEWAY_ID, Direction.INGRESS, 2050, 80)
        agent.state.writer("identities").delete(*range(1000, 1200))
        await until(lambda: reconciler.health().level is Level.OK)
        assert not agent.allows(BACKEND_ID, Direction.INGRESS, 2050, 80)
        assert agent.allows(BACKEND_ID, Direction.INGRESS, 256 + GATEWAY_ID, 80)


def metrics(reconciler: PolicyReconciler) -> dict[tuple[str, str], float]:
    found = reconciler.shortfall
    return {
        ("axoneme_policy_no_room", "workloads"): len(found.closed),
        ("axoneme_policy_no_room", "peers"): sum(found.narrowed.values()),
    }


async def test_contradicting_rules_are_told_and_the_old_policy_stays(tmp_path: Path) -> None:
    agent = Agent(tmp_path)
    agent.apply(BACKEND)
    async with running(agent) as reconciler:
        both = BACKEND + "      authentication: {mode: required}\n"
        other = BACKEND.replace("name: backend,", "name: other,") + "      authentication: {mode: disabled}\n"
        agent.apply(both)
        agent.apply(other)
        await until(lambda: reconciler.health().level is Level.DEGRADED)
        assert "authentication modes" in reconciler.health().reason
        assert agent.allows(BACKEND_ID, Direction.INGRESS, 256 + GATEWAY_ID, 8080)
