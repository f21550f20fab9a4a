"""What tests of flows share: tables with some workloads and policies, an observer over them, and records as the kernel writes them."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from axoneme.core import builtin
from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.core.events.rules import RULES, Rule
from axoneme.core.events.stream import EventStream
from axoneme.core.settings import AgentSettings, NodeSettings, Settings
from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, Endpoint, Identity
from axoneme.plugins.hubble.config import HubbleConfig
from axoneme.plugins.hubble.observer import Observer
from axoneme.plugins.hubble.proto.flow_pb2 import Flow
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest, GetFlowsResponse

WORLD = 2
FIN, SYN, RST, ACK = 1, 2, 4, 16


class World:
    """Two workloads of the namespace `shop`: `web` (endpoint 1, identity 300) and `api` (2, 301), and two rules of policies."""

    def __init__(self, folder: Path = Path("/nonexistent"), **config: Any) -> None:
        """:param folder: where the agent would keep its state; by default there is none."""
        self.state = State(builtin.TABLES)
        self.events = EventStream()
        self.endpoints = self.state.writer(ENDPOINTS.name, Endpoint)
        self.identities = self.state.writer(IDENTITIES.name, Identity)
        self.rules = self.state.writer(RULES.name, Rule)
        self.identities.upsert(Identity(number=WORLD, labels=("reserved:world",)))
        self.workload(1, "web", 300)
        self.workload(2, "api", 301)
        self.rule(7, "allow-web", "ingress", "spec.ingress[0]", '{"fromEndpoints": [{}], "toPorts": [{}]}')
        self.rule(8, "closed", "ingress", "default-deny", "nothing allows it")
        self.rule(9, "careful", "egress", "spec.egress[0]", '{"toEndpoints": [{}]}')
        context: Any = SimpleNamespace(
            config=HubbleConfig(**config), settings=Settings(node=NodeSettings(name="node1"), agent=AgentSettings(state_dir=folder)), state=self.state,
            events=self.events,
        )  # fmt: skip
        self.observer = Observer(context)

    def workload(self, number: int, name: str, identity: int, namespace: str = "shop") -> None:
        labels = (
            f"k8s:app={name}",
            "k8s:io.cilium.k8s.policy.cluster=default",
            f"k8s:io.kubernetes.pod.namespace={namespace}",
        )
        self.identities.upsert(Identity(number=identity, labels=labels))
        self.endpoints.upsert(
            Endpoint(
                id=number,
                name=name,
                namespace=namespace,
                identity=identity,
                labels=labels,
                ifindex=1000 + number,
                ifname=f"axo{number}",
            )
        )

    def rule(self, number: int, name: str, direction: str, path: str, text: str) -> None:
        self.rules.upsert(
            Rule(
                id=number,
                kind="CiliumNetworkPolicy",
                namespace="shop",
                name=name,
                direction=direction,
                path=path,
                index=-1 if path == "default-deny" else 0,
                effect="allow",
                text=text,
            )
        )

    async def ask(self, **request: Any) -> list[GetFlowsResponse]:
        asked = GetFlowsRequest(**request)
        return [GetFlowsResponse.FromString(message) async for message in self.observer.get_flows(asked)]

    async def flows(self, **request: Any) -> list[Flow]:
        return [answer.flow for answer in await self.ask(**request) if answer.HasField("flow")]


def record(kind: EventType = EventType.NEW, **fields: Any) -> Any:
    """A record of TCP from `web` to `api`, both workloads of this node."""
    made = np.zeros(1, EVENT.dtype)
    given = {
        "time": time.clock_gettime_ns(time.CLOCK_MONOTONIC), "type": kind, "family": 4, "protocol": 6,
        "tcp_flags": SYN, "attach_point": 1, "next_hop": 1, "ifindex": 1001, "saddr": (0, 0, 0xFFFF, 0x0A000001),
        "daddr": (0, 0, 0xFFFF, 0x0A000002), "sport": 40000, "dport": 8080, "source_endpoint": 1,
        "destination_endpoint": 2, "source_identity": 300, "destination_identity": 301,
    }  # fmt: skip
    for name, value in (given | fields).items():
        made[name][0] = value
    return made


def records(count: int, **fields: Any) -> Any:
    """Different source ports tell them apart."""
    made = np.repeat(record(**fields), count)
    made["sport"] = 1000 + np.arange(count)
    return made


async def several(answers: AsyncIterator[bytes], count: int) -> list[GetFlowsResponse]:
    """The next ones of a stream."""
    return [GetFlowsResponse.FromString(await anext(answers)) for _ in range(count)]
