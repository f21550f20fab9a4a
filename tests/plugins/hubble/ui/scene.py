"""A small shop under traffic, for the page to show: workloads, policies that allow and deny, and events as the kernel tells them.

Real are the agent with its plugins, the tables, the ring and the page; the kernel is one in memory, whose events are made here.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
from attrs import define, field, frozen

from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.core.events.rules import RULES, Rule
from axoneme.core.testing.agent import AgentKit
from axoneme.core.workloads.endpoints import Endpoint
from axoneme.plugins.hubble import observer
from axoneme.plugins.hubble.columns import Has, empty
from axoneme.plugins.hubble.observer import Observer
from axoneme.plugins.hubble.proto.flow_pb2 import Flow
from axoneme.plugins.hubble.ring import rising

WORLD = 2
SYN = 2
DENIED = 133


@frozen
class Talk:
    """Who talks to whom, how often in a second, and whether the policies let it.

    :param http: methods, paths and statuses, where the talk is seen on layer 7.
    """

    source: str
    destination: str
    port: int
    rate: float
    dropped: bool = False
    protocol: int = 6
    http: tuple[tuple[str, str, int], ...] = ()


WORKLOADS = (
    "shop/frontend", "shop/catalog", "shop/cart", "shop/checkout", "shop/payments", "shop/recommendations",
    "data/postgres", "data/redis", "data/kafka", "edge/gateway", "observability/prometheus", "observability/grafana",
)  # fmt: skip

TALKS = (
    Talk("world", "edge/gateway", 443, 9),
    Talk("edge/gateway", "shop/frontend", 8080, 8, http=(("GET", "/", 200), ("GET", "/product/42", 200), ("POST", "/cart", 302))),
    Talk("shop/frontend", "shop/catalog", 8080, 6, http=(("GET", "/v1/products", 200), ("GET", "/v1/products/42", 200))),
    Talk("shop/frontend", "shop/cart", 8080, 4, http=(("POST", "/v1/items", 201), ("GET", "/v1/cart", 503))),
    Talk("shop/frontend", "shop/recommendations", 9000, 3),
    Talk("shop/cart", "data/redis", 6379, 5),
    Talk("shop/catalog", "data/postgres", 5432, 4),
    Talk("shop/frontend", "shop/checkout", 8080, 2),
    Talk("shop/checkout", "shop/payments", 8443, 2),
    Talk("shop/payments", "data/postgres", 5432, 2),
    Talk("shop/checkout", "data/kafka", 9092, 2),
    Talk("shop/payments", "world", 443, 1),
    Talk("shop/recommendations", "data/postgres", 5432, 2, dropped=True),
    Talk("shop/recommendations", "world", 443, 1, dropped=True),
    Talk("observability/prometheus", "shop/checkout", 9100, 1),
    Talk("observability/prometheus", "data/kafka", 9100, 1),
    Talk("observability/prometheus", "shop/payments", 9100, 1, dropped=True),
    Talk("observability/grafana", "observability/prometheus", 9090, 1),
    Talk("shop/catalog", "data/redis", 53, 1, protocol=17),
)  # fmt: skip

POLICY = """\
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: postgres-clients
  namespace: data
spec:
  endpointSelector:
    matchLabels:
      app: postgres
  ingress:
    - fromEndpoints:
        - matchExpressions:
            - {key: app, operator: In, values: [catalog, payments]}
            - {key: k8s:io.kubernetes.pod.namespace, operator: In, values: [shop]}
      toPorts:
        - ports: [{port: "5432", protocol: TCP}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: payments-only-from-checkout
  namespace: shop
spec:
  endpointSelector:
    matchLabels:
      app: payments
  ingress:
    - fromEndpoints:
        - matchLabels:
            app: checkout
      toPorts:
        - ports: [{port: "8443", protocol: TCP}]
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: no-way-out
  namespace: shop
spec:
  endpointSelector:
    matchLabels:
      app: recommendations
  egress:
    - toEndpoints:
        - matchLabels:
            k8s:io.kubernetes.pod.namespace: data
"""


@define
class Scene:
    """The shop. `play` makes some of its traffic."""

    kit: AgentKit
    random: random.Random = field(factory=lambda: random.Random(7))
    endpoints: dict[str, Endpoint] = field(factory=dict)

    @property
    def observer(self) -> Observer:
        assert self.kit.agent.generation is not None
        return observer.of(self.kit.agent.generation.assembly.contexts["hubble"])

    async def build(self) -> None:
        for name in WORKLOADS:
            namespace, _, app = name.partition("/")
            self.endpoints[name] = await self.kit.agent.workloads.add(
                app,
                namespace=namespace,
                labels={"app": app, "team": "store" if namespace == "shop" else "platform"},
            )
        self.kit.resource("shop.yaml", POLICY)

    async def settled(self) -> None:
        """Until the policies are in force: then there are rules to name."""
        async with asyncio.timeout(20), contextlib.aclosing(self._rules()) as rules:
            async for _ in rules:
                if self.rule("data/postgres", "ingress", "allow") and self.rule(
                    "shop/recommendations", "egress", "allow"
                ):
                    return

    async def _rules(self) -> AsyncIterator[None]:
        with contextlib.closing(self.kit.agent.state.table(RULES.name, Rule).watch()) as watch:
            async for _ in watch:
                yield

    def rule(self, workload: str, direction: str, effect: str) -> int:
        """The number of the rule that decides for a workload, if there is one."""
        namespace, _, app = workload.partition("/")
        names = {
            "postgres": "postgres-clients",
            "payments": "payments-only-from-checkout",
            "recommendations": "no-way-out",
        }
        for rule in self.kit.agent.state.table(RULES.name, Rule):
            if (rule.namespace, rule.name, rule.direction, rule.effect) == (
                namespace,
                names.get(app),
                direction,
                effect,
            ):
                return rule.id
        return 0

    def play(self, seconds: float = 1.0, slices: int = 10) -> None:
        """Lets some seconds happen, ending now."""
        now = time.time_ns()
        for index in range(slices):
            begin = now - int(seconds * 1e9 * (slices - index) / slices)
            self._slice(begin, int(seconds * 1e9 / slices))

    def _slice(self, begin: int, length: int) -> None:
        """What happens within `length` ns from `begin` (ns since 1970) on."""
        made = [self._record(talk) for talk in TALKS for _ in range(self._times(talk, length / 1e9))]
        self.random.shuffle(made)
        records = np.zeros(len(made), EVENT.dtype)  # concatenating would turn the addresses' bytes round
        monotonic = begin - (time.time_ns() - time.clock_gettime_ns(time.CLOCK_MONOTONIC))
        for index, record in enumerate(made):
            record["time"] = monotonic + length * index // (len(made) + 1)
            records[index] = record[0]
        if made:
            self.observer.take(records)
        for talk in TALKS:
            if talk.http and (count := self._times(talk, length / 1e9)):
                self._requests(talk, count, begin + length)

    def _times(self, talk: Talk, seconds: float) -> int:
        expected = talk.rate * seconds
        return int(expected) + (self.random.random() < expected % 1)

    def _record(self, talk: Talk) -> Any:
        record = np.zeros(1, EVENT.dtype)
        kind = EventType.DROP if talk.dropped else EventType.NEW
        record["type"], record["family"], record["protocol"], record["tcp_flags"] = (
            kind,
            4,
            talk.protocol,
            SYN,
        )
        record["sport"], record["dport"] = self.random.randrange(32768, 61000), talk.port
        record["attach_point"], record["next_hop"] = 1, 1
        for end, name, address in (
            ("source", talk.source, "saddr"),
            ("destination", talk.destination, "daddr"),
        ):
            self._end(record, end, name, address)
        outwards = talk.dropped and talk.destination == "world"
        record["reason"] = DENIED if talk.dropped else 0
        record["egress_rule"] = self.rule(talk.source, "egress", "default-deny" if outwards else "allow")
        if not outwards:
            record["ingress_rule"] = self.rule(
                talk.destination, "ingress", "default-deny" if talk.dropped else "allow"
            )
        return record

    def _end(self, record: Any, end: str, name: str, address: str) -> None:
        words = (0, 0, 0xFFFF, 0xC0000200 + self.random.randrange(1, 20))
        record[f"{end}_identity"] = WORLD
        if name != "world":
            endpoint = self.endpoints[name]
            assert endpoint.ipv4 is not None
            record[f"{end}_endpoint"], record[f"{end}_identity"] = endpoint.id, endpoint.identity
            words = (0, 0, 0xFFFF, int(endpoint.ipv4))
        record[address] = words

    def _requests(self, talk: Talk, count: int, moment: int) -> None:
        source, destination = (self.endpoints[name] for name in (talk.source, talk.destination))
        flows = []
        for _ in range(count):
            method, path, status = self.random.choice(talk.http)
            http = {
                "method": method,
                "url": f"http://{destination.name}:{talk.port}{path}",
                "protocol": "HTTP/1.1",
            }
            ends = {"source": self._endpoint(source), "destination": self._endpoint(destination)}
            back = {"source": ends["destination"], "destination": ends["source"]}
            latency = int(self.random.lognormvariate(1.5, 0.7) * 1e6)
            common: dict[str, Any] = {
                "verdict": "FORWARDED", "Type": "L7", "event_type": {"type": 129}, "traffic_direction": "INGRESS",
                "IP": {"source": str(source.ipv4), "destination": str(destination.ipv4), "ipVersion": "IPv4"},
                "l4": {"TCP": {"source_port": 40000, "destination_port": talk.port}},
            }  # fmt: skip
            flows.append(
                Flow(**common, **ends, l7={"type": "REQUEST", "http": http}, is_reply={"value": False})
            )
            answer = {"type": "RESPONSE", "latency_ns": latency, "http": {**http, "code": status}}
            flows.append(Flow(**common, **back, l7=answer, is_reply={"value": True}))
        for flow in flows:
            flow.time.FromNanoseconds(moment)
        self.observer.add(flows)

    def _endpoint(self, endpoint: Endpoint) -> dict[str, Any]:
        return {
            "ID": endpoint.id, "identity": endpoint.identity, "namespace": endpoint.namespace, "pod_name": endpoint.name,
            "labels": list(endpoint.labels), "workloads": [{"name": endpoint.name, "kind": "Workload"}],
        }  # fmt: skip


def crowd(observer: Observer, workloads: int, flows: int) -> None:
    """Adds flows between many workloads of eight namespaces to the ring, as if they had just been seen."""
    endpoints = observer.ring.names.endpoints
    numbers = np.array([endpoints.number(_of_crowd(n)) for n in range(workloads)], np.uint32)
    columns, places = empty(flows), np.arange(flows)
    columns["time"] = rising((time.time_ns() + places).astype(np.uint64), observer.ring.last_time)
    columns["source"], columns["destination"] = numbers[places % workloads], numbers[places * 7 % workloads]
    columns["destination_port"] = (8000 + places % 3).astype(np.uint16)
    columns["event_type"][:], columns["verdict"][:], columns["reply"][:] = 4, 1, 1
    columns["protocol"][:], columns["ip_version"][:] = 1, 1
    columns["has"][:] = Has.EVENT_TYPE | Has.PORTS
    observer.ring.append(columns)


def _of_crowd(number: int) -> Any:
    name = f"w{number}"
    return Flow(
        source={
            "ID": number + 1,
            "identity": 1000 + number,
            "namespace": f"team-{number % 8}",
            "pod_name": name,
        }
    ).source
