"""Agent events: what the tables' changes become, and which of them a request gets."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address, ip_network
from itertools import count
from typing import Any

import pytest

from axoneme.core import builtin
from axoneme.core.errors import Where
from axoneme.core.state.resources import RESOURCES, Resource
from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import (
    ENDPOINTS,
    IPCACHE,
    Endpoint,
    EndpointState,
    IpcacheEntry,
    IpcacheSource,
)
from axoneme.plugins.hubble import agent_events
from axoneme.plugins.hubble.agent_events import AgentEvents
from axoneme.plugins.hubble.cli.texts import agent_event
from axoneme.plugins.hubble.proto import flow_pb2
from axoneme.plugins.hubble.proto.observer_pb2 import GetAgentEventsRequest, GetAgentEventsResponse
from axoneme.plugins.hubble.server.rpc import CallError


def numbered(events: int) -> AgentEvents:
    """Event n, n from 1, at nanosecond n."""
    made = AgentEvents("default/node1", now=count(1).__next__)
    for number in range(1, events + 1):
        made.add(flow_pb2.AgentEvent(unknown=flow_pb2.AgentEventUnknown(type=str(number))))
    return made


async def asked(events: AgentEvents, **request: Any) -> list[int]:
    made = GetAgentEventsRequest(**request)
    return [number(answer) async for answer in events.get(made)]


def number(data: bytes) -> int:
    answer = GetAgentEventsResponse.FromString(data)
    assert answer.node_name == "default/node1"
    assert answer.time.ToNanoseconds() == int(answer.agent_event.unknown.type)
    return answer.time.ToNanoseconds()


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"number": 2}, [4, 5]),
        ({"number": 2, "first": True}, [1, 2]),
        ({"number": 99}, [1, 2, 3, 4, 5]),
        ({"since": {"nanos": 3}}, [3, 4, 5]),
        ({"since": {"nanos": 2}, "number": 2}, [2, 3]),
        ({"until": {"nanos": 2}}, [1, 2]),
        ({"since": {"nanos": 2}, "until": {"nanos": 4}}, [2, 3, 4]),
        ({"number": 3, "until": {"nanos": 4}}, [3, 4]),
        ({"since": {"nanos": 9}}, []),
    ],
)
async def test_selection(request_: dict[str, Any], expected: list[int]) -> None:
    assert await asked(numbered(5), **request_) == expected


async def test_following_and_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    events = numbered(3)
    following = events.get(GetAgentEventsRequest(follow=True, number=2))
    assert [number(await anext(following)) for _ in range(2)] == [2, 3]
    later = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    events.add(flow_pb2.AgentEvent(unknown=flow_pb2.AgentEventUnknown(type="4")))
    assert number(await later) == 4
    monkeypatch.setattr(agent_events, "SIZE", 4)
    small = numbered(10)
    assert await asked(small) == [7, 8, 9, 10]
    with pytest.raises(CallError, match="first cannot be specified with follow"):
        await asked(small, first=True, follow=True)


async def told(*steps: Any) -> list[str]:
    """What the changes of the tables become, in the words that people read."""
    state, events = State(builtin.TABLES), AgentEvents("n", now=lambda: 10**9)
    tables = {spec.name: state.writer(spec.name) for spec in (ENDPOINTS, IPCACHE, RESOURCES)}
    running = asyncio.ensure_future(events.run(lambda: None, state))
    await asyncio.sleep(0)
    for table, action, argument in steps:
        getattr(tables[table.name], action)(argument)
        for _ in range(5):
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    answers = [GetAgentEventsResponse.FromString(data) async for data in events.get(GetAgentEventsRequest())]
    shown = [
        f"{flow_pb2.AgentEventType.Name(a.agent_event.type)} {agent_event(a.agent_event, 'T')}"
        for a in answers
    ]
    assert shown[0] == "AGENT_STARTED start time: T"
    return shown[1:]


def endpoint(state: EndpointState, reason: str = "") -> Endpoint:
    return Endpoint(id=7, name="web", namespace="shop", labels=("k8s:app=web",), state=state, reason=reason)


async def test_endpoints() -> None:
    assert await told(
        (ENDPOINTS, "upsert", endpoint(EndpointState.CREATING)),
        (ENDPOINTS, "upsert", endpoint(EndpointState.READY)),
        (ENDPOINTS, "upsert", endpoint(EndpointState.READY, "same state")),
        (ENDPOINTS, "upsert", endpoint(EndpointState.FAILED, "no room")),
        (ENDPOINTS, "delete", 7),
    ) == [
        "ENDPOINT_CREATED id: 7, namespace: shop, pod name: web",
        "ENDPOINT_REGENERATE_SUCCESS id: 7, labels: [k8s:app=web]",
        "ENDPOINT_REGENERATE_FAILURE id: 7, labels: [k8s:app=web], error: no room",
        "ENDPOINT_DELETED id: 7, namespace: shop, pod name: web",
    ]


async def test_addresses() -> None:
    prefix = ip_network("10.0.0.1/32")

    def entry(identity: int, node: str = "") -> IpcacheEntry:
        address = ip_address(node) if node else None
        return IpcacheEntry(prefix=prefix, identity=identity, source=IpcacheSource.LOCAL, node=address, key=3)

    assert await told(
        (IPCACHE, "upsert", entry(300)),
        (IPCACHE, "upsert", entry(301, "192.0.2.1")),
        (IPCACHE, "delete", prefix),
    ) == [
        "IPCACHE_UPSERTED cidr: 10.0.0.1/32, identity: 300, encrypt key: 3",
        "IPCACHE_UPSERTED cidr: 10.0.0.1/32, identity: 301, old identity: 300, host ip: 192.0.2.1, encrypt key: 3",
        "IPCACHE_DELETED cidr: 10.0.0.1/32, identity: 301, host ip: 192.0.2.1, encrypt key: 3",
    ]


async def test_policies() -> None:
    def resource(kind: str, parsed: Any, **raw: Any) -> Resource:
        return Resource(
            kind=kind, namespace="shop", name="allow", api_version="cilium.io/v2", source="test", where=Where("x"),
            raw=raw, parsed=parsed,
        )  # fmt: skip

    labels = ",".join(
        f"k8s:io.cilium.k8s.policy.{label}"
        for label in ("derived-from=CiliumNetworkPolicy", "name=allow", "namespace=shop")
    )
    shown = await told(
        (RESOURCES, "upsert", resource("Service", object())),
        (RESOURCES, "upsert", resource("CiliumNetworkPolicy", object(), spec={})),
        (RESOURCES, "upsert", resource("CiliumNetworkPolicy", object(), spec={}, specs=[{}, {}])),
        (RESOURCES, "upsert", resource("CiliumNetworkPolicy", None, spec="wrong")),
        (RESOURCES, "delete", ("CiliumNetworkPolicy", "shop", "allow")),
    )
    assert [line.partition(", revision")[0] for line in shown] == [
        f"POLICY_UPDATED labels: [{labels}]",
        f"POLICY_UPDATED labels: [{labels}]",
        f"POLICY_DELETED labels: [{labels}]",
    ]
    assert [line.rpartition(": ")[2] for line in shown] == ["1", "3", "1"]
