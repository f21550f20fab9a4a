"""Flows from before the ring: none is missing, none is told twice, and they look like those of the ring."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flow_world import World, record, records, several
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from axoneme.core.datapath.abi import EventType
from axoneme.core.events.store.recorder import Directory
from axoneme.core.events.store.writer import EventStore, Limits
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest


class Past(World):
    """A world whose events also go to a store, as the agent's recorder sends them there."""

    def __init__(self, folder: Path, **config: Any) -> None:
        super().__init__(folder, **config)
        self.store = EventStore(folder / "events", Limits(1 << 24, 86400.0), node="node1")
        self._directory = Directory(self.state, dict)

    def happen(self, made: Any) -> None:
        self.store.append(made, self._directory.follow())
        self.observer.take(made)


@pytest.fixture
def past(tmp_path: Path) -> Iterator[Past]:
    world = Past(tmp_path, flows=256, policy_verdicts=False)
    yield world
    world.store.close()


def ago(seconds: float) -> Timestamp:
    moment = Timestamp()
    moment.FromNanoseconds(time.time_ns() - int(seconds * 1e9))
    return moment


def ports(flows: list[Flow]) -> list[int]:
    return [flow.l4.TCP.source_port for flow in flows]


async def test_store_and_ring_together_have_each_flow_once(past: Past) -> None:
    for begin in range(0, 2000, 100):
        made = records(100)
        made["sport"] = begin + np.arange(100)
        made["time"] += np.arange(100, dtype=np.uint64)
        past.happen(made)
    assert ports(await past.flows()) == list(range(1744, 2000))
    assert ports(await past.flows(since=ago(60))) == list(range(2000))
    assert ports(await past.flows(since=ago(60), number=3)) == [0, 1, 2]
    assert ports(await past.flows(since=ago(60), number=1800)) == list(range(1800))
    late = [FlowFilter(source_port=["7", "1999"], source_pod=["shop/web"], destination_label=["app=api"])]
    assert ports(await past.flows(since=ago(60), whitelist=late)) == [7, 1999]
    assert ports(await past.flows(since=ago(60), number=1, blacklist=[FlowFilter(source_port=["0"])])) == [1]
    found = await past.flows(since=ago(60))
    assert len({flow.uuid for flow in found}) == 2000
    times = [flow.time.ToNanoseconds() for flow in found]
    assert times[:1700] == sorted(times[:1700])
    again = await past.flows(since=ago(60), whitelist=[FlowFilter(uuid=[found[5].uuid, found[1900].uuid])])
    assert ports(again) == [5, 1900]
    until = Timestamp()
    until.FromNanoseconds(times[49])
    assert ports(await past.flows(since=ago(60), until=until)) == list(range(50))


@pytest.mark.parametrize("milliseconds", [0, 1, 15, 100])
async def test_equal_flows_are_told_as_often_as_they_were(past: Past, milliseconds: int) -> None:
    """Also those whose clock is coarse, so that they seem to be earlier than what was recorded before them."""
    begin = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - 2_000_000_000
    for turn in range(6):
        moment = begin + turn * milliseconds * 1_000_000
        new = np.repeat(record(time=moment), 70)
        drops = np.repeat(record(EventType.DROP, reason=133, time=moment - 4_000_000), 30)
        past.happen(np.concatenate([new, drops, new[:1]]))
    found = await past.flows(since=ago(60))
    assert [flow.verdict for flow in found].count(1) == 6 * 71
    assert [flow.verdict for flow in found].count(2) == 6 * 30


async def test_who_is_gone_is_still_named(past: Past) -> None:
    past.happen(record(EventType.DROP, reason=133, ingress_rule=8))
    (now,) = await past.flows()
    past.endpoints.delete(1)
    past.rules.delete(8)
    past.happen(records(400))
    then = (await past.flows(since=ago(60)))[0]
    assert [p.name for p in then.ingress_denied_by] == ["closed"]
    for flow in (now, then):
        for field in ("uuid", "time", "interface"):
            flow.ClearField(field)  # type: ignore[arg-type]
    assert then == now
    (answer, *_) = await past.ask(since=ago(60), field_mask=FieldMask(paths=["source.pod_name", "node_name"]))
    assert (answer.flow.source.pod_name, answer.node_name) == ("web", "default/node1")


async def test_what_is_in_the_ring_is_not_read_from_the_disk(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    past.happen(records(10))
    monkeypatch.setattr(
        "axoneme.plugins.hubble.history.scan", lambda *given: pytest.fail("the disk was read")
    )
    first = (await past.flows())[0].time
    assert len(await past.flows(since=first)) == 10
    assert len(await past.flows(number=20)) == 10


async def test_following_from_the_past(past: Past) -> None:
    past.happen(records(600))
    answers = past.observer.get_flows(GetFlowsRequest(since=ago(60), follow=True))
    await several(answers, 600)
    past.happen(record(sport=7))
    assert [each.flow.l4.TCP.source_port for each in await several(answers, 1)] == [7]
