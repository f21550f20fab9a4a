"""Hubble in a whole agent: what it costs the datapath, and the way from an event to a flow."""

from __future__ import annotations

import asyncio
from typing import Any

from flow_world import record

from axoneme.core.datapath.abi import EventType
from axoneme.core.testing.agent import AgentKit
from axoneme.plugins.hubble import observer
from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest, GetFlowsResponse


def kit(*plugins: str) -> AgentKit:
    return AgentKit(values={"plugins": {"enabled": list(plugins)}})


async def test_it_changes_no_program_and_no_map() -> None:
    """So that it costs packets nothing at all."""
    seen: dict[tuple[str, ...], Any] = {}
    for plugins in (("policy",), ("policy", "hubble")):
        async with kit(*plugins) as running:
            build = running.agent.datapath.active
            assert build is not None
            texts = {point: program.composition.text for point, program in build.programs.items()}
            seen[plugins] = (texts, sorted(build.maps))
    first, second = seen.values()
    assert first == second


async def test_from_an_event_to_a_flow() -> None:
    async with kit("hubble") as running:
        endpoint = await running.agent.workloads.add("web", labels={"app": "web"})
        made = record(
            EventType.DROP, reason=133, source_endpoint=endpoint.id, source_identity=endpoint.identity
        )
        found = observer.of(running.agent.context("hubble"))
        answers = found.get_flows(GetFlowsRequest(follow=True))
        waiting = asyncio.ensure_future(anext(answers))
        running.platform.fake_kernel.emit("events", made.tobytes())
        flow = GetFlowsResponse.FromString(await asyncio.wait_for(waiting, 10)).flow
        assert (flow.source.pod_name, flow.verdict) == ("web", 2)
        assert flow.drop_reason_desc == 133


async def test_samples_are_made_for_it() -> None:
    async with kit("hubble") as running:
        assert running.agent.events.wants(EventType.UPDATE)
