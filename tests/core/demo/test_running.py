"""The waits of the demo, on a whole agent without a kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from axoneme.core.demo import article
from axoneme.core.demo.place import DemoError
from axoneme.core.demo.running import in_force, in_kernel
from axoneme.core.testing.agent import AgentKit

[L4] = [each for each in article.RESOURCES if each.file == "l4-lb-policy.yaml"]


@pytest.fixture
async def kit() -> AsyncIterator[AgentKit]:
    async with AgentKit(values={"plugins": {"enabled": ["policy"]}}) as kit:
        yield kit


async def test_a_policy_is_in_force_once_its_rules_are_written(kit: AgentKit) -> None:
    await kit.agent.workloads.add("backend", "production", {"app": "backend-service"})
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(in_force(kit.agent, [L4.file]))
        await asyncio.sleep(0)
        assert not waiting.done()
        kit.resource(L4.file, L4.text())
    assert any(rule.name == "backend-l4-policy" for rule in kit.agent.state.table("rules"))


async def test_a_policy_that_is_not_valid_is_an_error(kit: AgentKit) -> None:
    kit.resource(L4.file, L4.text().replace("endpointSelector", "endpointSelektor"))
    with pytest.raises(DemoError, match="is not valid") as caught:
        await in_force(kit.agent, [L4.file])
    assert caught.value.where is not None


async def test_nothing_to_wait_for(kit: AgentKit) -> None:
    await in_force(kit.agent, [])
    await in_kernel(kit.agent.datapath, [])


async def test_a_workload_is_waited_for_until_the_kernel_knows_it(kit: AgentKit) -> None:
    endpoint = await kit.agent.workloads.add("web", labels={"app": "web"})
    await in_kernel(kit.agent.datapath, [endpoint])
    assert kit.agent.datapath.map("links").lookup(endpoint.ifindex)["identity"] == endpoint.identity
    assert kit.agent.datapath.on_revision == []
