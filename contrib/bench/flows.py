"""The flows of the bench: a believable cluster of workloads, and what the programs would report of it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import numpy as np

from axoneme.core import builtin
from axoneme.core.datapath.abi import EVENT, EventType, NextHop
from axoneme.core.events.rules import RULES, Rule
from axoneme.core.events.stream import EventStream
from axoneme.core.settings import Settings
from axoneme.core.state.table import State
from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, Endpoint, Identity
from axoneme.core.workloads.identities import workload_labels
from axoneme.plugins.hubble.config import HubbleConfig
from axoneme.plugins.hubble.observer import Observer

NAMESPACES, APPS, WORKLOADS, POLICIES = 10, 50, 1000, 100
_FIRST = 256
_PORTS = (80, 443, 8080, 53, 9090, 5432, 6379, 3306, 22, 8443)


def identity(workload: Any) -> Any:
    """500 identities: workloads of the same application and namespace share one."""
    return _FIRST + workload % APPS * NAMESPACES + workload % NAMESPACES


def observer(flows: int) -> Observer:
    """One with empty ring, over filled tables."""
    state = State(builtin.TABLES)
    endpoints, identities = state.writer(ENDPOINTS.name, Endpoint), state.writer(IDENTITIES.name, Identity)
    rules = state.writer(RULES.name, Rule)
    with state.transaction() as txn:
        for n in range(1, WORKLOADS + 1):
            namespace = f"ns{n % NAMESPACES}"
            labels = workload_labels({"app": f"app{n % APPS}", "version": "v1"}, namespace)
            txn.upsert(identities, Identity(number=identity(n), labels=labels))
            row = Endpoint(
                id=n, name=f"app{n % APPS}-{n}", namespace=namespace, identity=identity(n), labels=labels,
                ifindex=n, ifname=f"axo{n}",
            )  # fmt: skip
            txn.upsert(endpoints, row)
        for n in range(1, POLICIES + 1):
            txn.upsert(rules, _rule(n))
    context: Any = SimpleNamespace(
        config=HubbleConfig(flows=flows), settings=Settings(), state=state, events=EventStream()
    )
    return Observer(context)


def _rule(number: int) -> Rule:
    return Rule(
        id=number, kind="CiliumNetworkPolicy", namespace=f"ns{number % NAMESPACES}", name=f"policy{number}",
        direction="ingress", path="spec.ingress[0]", index=0, effect="allow", text='{"fromEndpoints": [{}]}',
    )  # fmt: skip


def records(count: int, seed: int = 0) -> Any:
    """Half are new connections, four of ten have ended, one of ten was dropped; any workload talks to any other."""
    random = np.random.default_rng(seed)
    made = np.zeros(count, EVENT.dtype)
    made["time"] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - 1000 * np.arange(count, 0, -1)
    made["type"] = random.choice([EventType.NEW, EventType.CLOSE, EventType.DROP], count, p=[0.5, 0.4, 0.1])
    made["family"], made["attach_point"], made["next_hop"] = 4, 1, NextHop.LOCAL
    made["protocol"] = random.choice([6, 17], count, p=[0.9, 0.1])
    made["tcp_flags"] = np.where(made["type"] == EventType.CLOSE, 0x13, 2)
    made["reason"] = np.where(made["type"] == EventType.DROP, 133, 0)
    made["sport"] = random.integers(32768, 61000, count)
    made["dport"] = random.choice(_PORTS, count)
    made["ingress_rule"] = random.integers(1, POLICIES + 1, count)
    for end, address in (("source", "saddr"), ("destination", "daddr")):
        who = random.integers(1, WORKLOADS + 1, count)
        made[address][:, 2], made[address][:, 3] = 0xFFFF, 0x0AF40000 + who
        made[f"{end}_endpoint"], made[f"{end}_identity"] = who, identity(who)
    made["ifindex"] = made["source_endpoint"]
    return made
