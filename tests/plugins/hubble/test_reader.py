"""Which flows a request gets, in which order, and what a slow reader is told: the table of facts about Hubble's observer."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from flow_world import World, record, records, several
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from axoneme.core.datapath.abi import EventType
from axoneme.plugins.hubble.filters.errors import CombinationError, RequestError
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter, LostEventSource
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest, GetFlowsResponse

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
#: Every other flow of the worlds here is to this port.
EVEN = [FlowFilter(destination_port=["8080"])]


def moment(seconds: float) -> Timestamp:
    made = Timestamp()
    made.FromNanoseconds(START + int(seconds * SECOND))
    return made


def numbered(count: int, capacity: int = 256) -> World:
    """Flows 1, 2, … at the second of their number, told apart by their source port."""
    world = World(flows=capacity, policy_verdicts=False)
    flows = [
        Flow(
            verdict=1, time=moment(number), event_type={"type": 4},
            l4={"TCP": {"source_port": number, "destination_port": 8080 if number % 2 == 0 else 80}},
        )
        for number in range(1, count + 1)
    ]  # fmt: skip
    world.observer.add(flows)
    return world


def ports(flows: list[Flow]) -> list[int]:
    return [flow.l4.TCP.source_port for flow in flows]


ALL = list(range(1, 11))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, ALL),
        ({"number": 0, "first": True}, ALL),
        ({"number": 3}, [8, 9, 10]),
        ({"number": 2**64 - 1}, ALL),
        ({"number": 100}, ALL),
        ({"number": 3, "first": True}, [1, 2, 3]),
        ({"number": 2, "whitelist": EVEN}, [8, 10]),
        ({"number": 2, "first": True, "whitelist": EVEN}, [2, 4]),
        ({"number": 2, "blacklist": EVEN}, [7, 9]),
        ({"since": moment(4)}, [4, 5, 6, 7, 8, 9, 10]),
        ({"since": moment(3.5)}, [4, 5, 6, 7, 8, 9, 10]),
        ({"since": moment(4), "number": 3}, [4, 5, 6]),
        ({"since": moment(4), "number": 3, "first": True}, [4, 5, 6]),
        ({"since": moment(4), "number": 2, "whitelist": EVEN}, [4, 6]),
        ({"since": moment(11)}, []),
        ({"until": moment(3)}, [1, 2, 3]),
        ({"until": moment(3.5)}, [1, 2, 3]),
        ({"until": moment(0)}, []),
        ({"since": Timestamp(seconds=-(2**62)), "until": Timestamp(seconds=2**62)}, ALL),
        ({"until": Timestamp(seconds=-5)}, []),
        ({"until": moment(9), "number": 3}, [8, 9]),
        ({"since": moment(3), "until": moment(5)}, [3, 4, 5]),
        ({"number": 1, "whitelist": [FlowFilter(verdict=["DROPPED"])]}, []),
    ],
)
async def test_selection(request_: dict[str, Any], expected: list[int]) -> None:
    assert ports(await numbered(10).flows(**request_)) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ({}, [10]),
        ({"number": 3}, [8, 9, 10]),
        ({"since": moment(7)}, [7, 8, 9, 10]),
        ({"number": 1, "since": moment(9)}, [9, 10]),
        ({"number": 1, "whitelist": EVEN}, [10]),
    ],
)
async def test_following(request_: dict[str, Any], expected: list[int]) -> None:
    """What is there is sent, then what comes, without end."""
    world = numbered(10)
    answers = world.observer.get_flows(GetFlowsRequest(follow=True, **request_))
    there = await several(answers, len(expected))
    assert ports([answer.flow for answer in there]) == expected
    waiting = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    world.observer.add([Flow(l4={"TCP": {"source_port": 77, "destination_port": 8080}})])
    assert GetFlowsResponse.FromString(await waiting).flow.l4.TCP.source_port == 77


async def test_following_ends_after_until() -> None:
    world = numbered(10)
    asked = GetFlowsRequest(follow=True, since=moment(1), until=moment(12))
    answers = world.observer.get_flows(asked)
    await several(answers, 10)
    world.observer.add([Flow(time=moment(12)), Flow(time=moment(13))])
    assert [GetFlowsResponse.FromString(each).time async for each in answers] == [moment(12)]


async def test_what_makes_no_sense_is_refused() -> None:
    world = numbered(1)
    for error, request in (
        (CombinationError, {"first": True, "follow": True}),
        (RequestError, {"whitelist": [FlowFilter(source_ip=["x"])]}),
        (RequestError, {"field_mask": FieldMask(paths=["no.such"])}),
        (RequestError, {"whitelist": [FlowFilter()] * 300}),
        (RequestError, {"blacklist": [FlowFilter(source_port=["1"] * 5000)]}),
        (RequestError, {"whitelist": [FlowFilter(dns_query=["(a{900}){900}"])]}),
        (RequestError, {"whitelist": [FlowFilter(source_fqdn=["*a" * 3000])]}),
    ):
        with pytest.raises(error):
            await world.ask(**request)


async def test_masks() -> None:
    world = World(policy_verdicts=False)
    world.observer.take(record())
    (answer,) = await world.ask(field_mask=FieldMask(paths=["source.pod_name", "l4", "IP.source", "verdict"]))
    flow = answer.flow
    assert flow == Flow(
        source={"pod_name": "web"}, verdict=1, IP={"source": "10.0.0.1"},
        l4={"TCP": {"source_port": 40000, "destination_port": 8080, "flags": {"SYN": True}}},
    )  # fmt: skip
    assert (answer.node_name, answer.HasField("time")) == ("", False)
    old = {"experimental": {"field_mask": FieldMask(paths=["time", "node_name", "source.labels", "source"])}}
    (answer,) = await world.ask(**old)
    assert (answer.node_name, answer.flow.source.pod_name) == ("default/node1", "web")
    assert answer.time == answer.flow.time


async def test_a_reader_who_stops_reading_is_told_exactly_what_he_missed() -> None:
    world = World(flows=1024, policy_verdicts=False)
    slow = world.observer.get_flows(GetFlowsRequest(follow=True))
    quick = world.observer.get_flows(GetFlowsRequest(follow=True))
    world.observer.take(records(1))
    await several(slow, 1)
    await several(quick, 1)
    numbers = 1
    for _ in range(10):
        world.observer.take(records(500))
        assert all(answer.HasField("flow") for answer in await several(quick, 500))
        numbers += 500
    (told,) = await several(slow, 1)
    assert told.lost_events.source == LostEventSource.HUBBLE_RING_BUFFER
    assert told.lost_events.num_events_lost == numbers - 1024 - 1
    assert told.node_name == "default/node1"
    assert [answer.HasField("flow") for answer in await several(slow, 1024)] == [True] * 1024


async def test_what_is_overwritten_while_it_is_sent() -> None:
    """Each flow is either sent or counted as lost, and none is sent twice."""
    world = World(flows=2048, policy_verdicts=False)
    world.observer.take(records(2048))
    seen, lost = [], 0
    number = 0
    async for message in world.observer.get_flows(GetFlowsRequest(follow=True, number=2048)):
        answer = GetFlowsResponse.FromString(message)
        if answer.HasField("lost_events"):
            lost += answer.lost_events.num_events_lost
        else:
            seen.append(answer.flow.uuid)
        number += 1
        if number in (100, 1500):
            world.observer.take(records(3000))
        if len(seen) + lost == 2048 + 6000:
            break
    assert len(set(seen)) == len(seen)
    assert lost > 0


async def test_losses_on_the_way_are_told_whatever_is_filtered() -> None:
    world = World(policy_verdicts=False)
    world.observer.take(record())
    world.observer.ring.lose(LostEventSource.PERF_EVENT_RING_BUFFER, 3, START)
    world.observer.take(record())
    answers = await world.ask(number=2, whitelist=[FlowFilter(verdict=["FORWARDED"])])
    assert [answer.WhichOneof("response_types") for answer in answers].count("flow") == 2
    lost = [answer.lost_events for answer in answers if answer.HasField("lost_events")]
    assert [(each.source, each.num_events_lost) for each in lost] == [(1, 3)]


async def test_the_service_counts_what_it_did_not_get() -> None:
    world = World(policy_verdicts=False)
    ready = asyncio.Event()
    running = asyncio.ensure_future(world.observer.run(ready.set))
    await ready.wait()
    answers = world.observer.get_flows(GetFlowsRequest(follow=True))
    waiting = asyncio.ensure_future(anext(answers))
    await asyncio.sleep(0)
    world.events.publish(record(EventType.DROP, reason=133))
    assert GetFlowsResponse.FromString(await waiting).flow.verdict == 2
    world.events.lost += 9
    for _ in range(3):
        world.events.publish(records(40_000))
    told = [(each.lost_events.source, each.lost_events.num_events_lost) for each in await several(answers, 2)]
    assert told == [(1, 9), (2, 80_000)]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_two_hundred_followers() -> None:
    world = World(flows=4096, policy_verdicts=False)

    async def follow() -> int:
        seen = 0
        async for message in world.observer.get_flows(GetFlowsRequest(follow=True, whitelist=EVEN)):
            seen += len(message) > 100
            if seen == 50:
                return seen
        return seen

    followers = [asyncio.ensure_future(follow()) for _ in range(200)]
    await asyncio.sleep(0)
    for _ in range(10):
        world.observer.take(records(5))
        await asyncio.sleep(0)
    assert await asyncio.gather(*followers) == [50] * 200


async def test_everything_new_in_batches() -> None:
    world = World(flows=256, policy_verdicts=False)
    batches = world.observer.listen()
    waiting = asyncio.ensure_future(anext(batches))
    await asyncio.sleep(0)
    world.observer.take(records(3))
    batch = await waiting
    assert (len(batch), ports(batch.flows())) == (3, [1000, 1001, 1002])
    assert batch.view.names.endpoints[int(batch.view["source"][0])].pod_name == "web"  # type: ignore[union-attr]
    world.observer.take(records(1000))
    batch = await anext(batches)
    assert [(each.source, each.num_events_lost) for each in batch.lost] == [(3, 1000 - 256)]
    seen = len(batch)
    while seen < 256:
        seen += len(await anext(batches))
    assert seen == 256


async def test_status_and_namespaces() -> None:
    world = World(flows=1000, policy_verdicts=False)
    assert world.observer.status().num_flows == 0
    world.workload(3, "lonely", 310, namespace="alone")
    world.observer.take(records(600))
    world.observer.take(record(source_endpoint=3, source_identity=310))
    status = world.observer.status()
    assert (status.num_flows, status.max_flows, status.seen_flows) == (601, 1000, 601)
    assert status.flows_rate == pytest.approx(601 / 60, rel=0.01)
    world.observer.take(records(2000))
    status = world.observer.status()
    assert (status.num_flows, status.seen_flows) == (1000, 2601)
    assert status.flows_rate > 16
    assert world.observer.namespaces() == [("default", "alone"), ("default", "shop")]


async def test_flows_of_others() -> None:
    """What they leave out is filled in; what they say stays."""
    world = World(policy_verdicts=False)
    world.observer.take(record())
    full = Flow(uuid="U", node_name="c/n", l7={"http": {"code": 404}}, event_type={"type": 129})
    world.observer.add([full, Flow(verdict=2)])
    one, other = (await world.flows())[1:]
    assert (one.uuid, one.node_name, one.l7.http.code) == ("U", "c/n", 404)
    assert (len(other.uuid), other.node_name) == (36, "default/node1")
    found = await world.flows(whitelist=[FlowFilter(http_status_code=["4+"])])
    assert [flow.uuid for flow in found] == ["U"]
    assert [flow.uuid for flow in await world.flows(whitelist=[FlowFilter(uuid=["U", other.uuid])])] == [
        "U",
        other.uuid,
    ]
