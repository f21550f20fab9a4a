"""Messages are made for places of a view in the order in which they were asked for."""

from __future__ import annotations

import itertools

import numpy as np
from flow_world import World, records

from axoneme.plugins.hubble.proto.flow_pb2 import Flow
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsResponse


def test_any_order_of_places() -> None:
    world = World(policy_verdicts=False)
    world.observer.take(records(5))
    view = world.observer.ring.view(world.observer.ring.tail, world.observer.ring.head)
    wire = world.observer.wire
    alone = [wire.flows(view, np.array([place]))[0] for place in range(5)]
    assert len(set(alone)) == 5
    for count in (2, 3, 4, 5):
        for places in itertools.permutations(range(5), count):
            assert wire.flows(view, np.array(places)) == [alone[place] for place in places], places
            answers = map(GetFlowsResponse.FromString, wire.responses(view, np.array(places)))
            assert [answer.flow for answer in answers] == [Flow.FromString(alone[place]) for place in places]
