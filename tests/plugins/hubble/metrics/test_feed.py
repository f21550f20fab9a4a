"""Counting in bulk gives what counting one by one gives, remembers no more than it may, and forgets pods that are gone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flow_world import World, record
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.plugins.hubble.metrics import feed as module
from axoneme.plugins.hubble.metrics.feed import Feed
from axoneme.plugins.hubble.metrics.options import parse
from axoneme.plugins.hubble.metrics.registry import Metrics
from axoneme.plugins.hubble.observer import Batch, Observer
from axoneme.plugins.hubble.proto.flow_pb2 import Flow

EVERYTHING = (
    "dns drop tcp flow icmp http kafka policy port-distribution:sourceContext=ip "
    "flows-to-world:port;any-drop;destinationContext=pod|reserved-identity|dns|ip"
)
PODS = "flow:sourceContext=pod;destinationContext=pod drop:labelsContext=source_pod,source_namespace"


def batch(observer: Observer) -> Batch:
    view = observer.ring.view(observer.ring.tail, observer.ring.head)
    return Batch(view, observer.wire)


def numbers(metrics: Metrics) -> dict[Any, float]:
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in metrics.collect()
        for sample in family.samples
    }


def records(draw: Any, count: int) -> Any:
    """Records of every kind, with few distinct values each, so that some are alike."""
    made = np.zeros(count, EVENT.dtype)
    chosen: dict[str, list[int]] = {
        "type": [int(kind) for kind in EventType],
        "protocol": [1, 6, 17, 58, 132, 50],
        "family": [4, 6],
        "reply": [0, 1],
        "tcp_flags": [0, 2, 18, 17, 4],
        "icmp_type": [0, 8, 128],
        "sport": [4000, 53],
        "dport": [80, 443, 0],
        "source_endpoint": [0, 1, 2],
        "destination_endpoint": [0, 1, 2],
        "source_identity": [1, 2, 300, 301],
        "destination_identity": [2, 300, 301],
        "reason": [0, 132, 133, 181, 300],
        "egress_rule": [0, 9],
        "ingress_rule": [0, 7, 8],
        "next_hop": [0, 1],
    }
    for name, values in chosen.items():
        made[name] = draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))
    hosts = draw(st.lists(st.integers(1, 3), min_size=2 * count, max_size=2 * count))
    made["saddr"][:, 2], made["daddr"][:, 2] = 0xFFFF, 0xFFFF
    made["saddr"][:, 3], made["daddr"][:, 3] = hosts[:count], hosts[count:]
    made["time"] = np.arange(1, count + 1)
    return made


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_in_bulk_as_one_by_one(data: st.DataObject) -> None:
    world = World()
    bulk, single = (Metrics(parse([EVERYTHING]), limit=100_000) for _ in range(2))
    feed = Feed(bulk)
    position = 0
    for _ in range(3):
        world.observer.take(records(data.draw, data.draw(st.integers(1, 12))))
        world.observer.add(
            [Flow(verdict="FORWARDED", event_type={"type": 129}, l7={"type": "REQUEST", "dns": {}})]
        )
        view = world.observer.ring.view(position, world.observer.ring.head)
        position = world.observer.ring.head
        given_batch = Batch(view, world.observer.wire)
        feed.add(given_batch)
        for flow in given_batch.flows():
            single.add(flow)
    assert numbers(bulk) == numbers(single)
    assert numbers(bulk)


def test_verdicts_of_different_rules_are_not_alike() -> None:
    world = World()
    bulk, single = (Metrics(parse(["policy"]), limit=100) for _ in range(2))
    for rule in (7, 8, 7):
        world.observer.take(record(ingress_rule=rule))
    Feed(bulk).add(batch(world.observer))
    for flow in batch(world.observer).flows():
        single.add(flow)
    assert numbers(bulk) == numbers(single)
    assert len(numbers(bulk)) == 2


def test_a_rule_that_becomes_known_is_told_from_then_on() -> None:
    """After a restart, events are read before policies are."""
    world, metrics = World(), Metrics(parse(["policy"]), limit=100)
    feed = Feed(metrics)
    for known in (False, True):
        if known:
            world.rule(20, "late", "ingress", "spec.ingress[0]", '{"fromEndpoints": [{}], "toPorts": [{}]}')
        world.observer.take(record(ingress_rule=20))
        view = world.observer.ring.view(world.observer.ring.head - 2, world.observer.ring.head)
        feed.add(Batch(view, world.observer.wire))
    assert {dict(key[1:])["match"] for key in numbers(metrics)} == {"none", "l3-l4"}


def flood(count: int) -> Any:
    """As many drops, each of another address and port."""
    made = np.zeros(count, EVENT.dtype)
    made["type"], made["protocol"], made["family"], made["reason"] = EventType.DROP, 6, 4, 133
    made["source_endpoint"], made["source_identity"], made["destination_identity"] = 1, 300, 2
    made["daddr"][:, 2], made["daddr"][:, 3] = 0xFFFF, np.arange(count)
    made["dport"] = np.arange(count) % 65536
    made["time"] = np.arange(1, count + 1)
    return made


def test_a_scan_is_one_flow_to_those_who_do_not_ask_for_addresses() -> None:
    world = World(flows=65536)
    metrics = Metrics(parse(["drop flow port-distribution"]), limit=100)
    feed = Feed(metrics)
    world.observer.take(flood(20_000))
    feed.add(batch(world.observer))
    assert len(feed._plans) <= 2
    values = numbers(metrics)
    assert values["hubble_drop_total", ("protocol", "TCP"), ("reason", "POLICY_DENIED")] == 20_000


def test_a_flood_of_labels_overflows_and_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PLANS", 500)
    world = World(flows=65536)
    metrics = Metrics(parse(["drop:destinationContext=ip"]), limit=100)
    feed = Feed(metrics)
    for _ in range(3):
        world.observer.take(flood(1000))
        feed.add(batch(world.observer))
    family = metrics.families[0]
    assert len(family) == 101
    assert len(feed._plans) <= 1000 * 3
    assert sum(cell.value for cell in family._cells.values()) == 1000 + 2000 + 3000  # type: ignore[union-attr]
    overflow = (
        "hubble_drop_total",
        ("destination", "overflow"),
        ("protocol", "overflow"),
        ("reason", "overflow"),
    )
    assert numbers(metrics)[overflow] == 6000 - 100 * 6


def test_a_pod_that_is_gone_takes_its_series_along() -> None:
    world = World()
    metrics = Metrics(parse([PODS]), limit=100)
    feed = Feed(metrics)
    world.observer.take(flood(3))
    feed.add(batch(world.observer))
    assert any("shop/web" in str(key) for key in numbers(metrics))
    assert metrics.remove_pod("shop", "web") == 2
    assert not numbers(metrics)
    feed.add(batch(world.observer))
    assert any("shop/web" in str(key) for key in numbers(metrics)), "the plans did not outlive the series"
    assert metrics.remove_pod("shop", "other") == 0
