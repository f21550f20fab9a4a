from __future__ import annotations

import pytest

from axoneme.core.context import Context
from axoneme.core.errors import PluginError
from axoneme.core.settings import Settings
from axoneme.core.testing.agent import AgentKit

from .sample import Sample


def test_what_is_not_there_yet_is_said_to_be_so() -> None:
    context = Context("p1", None, Settings())
    for ask in (
        lambda: context.state,
        lambda: context.workloads,
        lambda: context.events,
        context.raise_revision,
        lambda: context.map("m"),
    ):
        with pytest.raises(PluginError, match=r"p1 asks for .* before") as caught:
            ask()
        assert caught.value.hint == (
            "hooks that declare see only name, config and settings; use the rest in services"
        )


async def test_the_context_of_a_running_plugin() -> None:
    sample = Sample()
    async with AgentKit([sample]) as kit:
        (context,) = sample.contexts
        assert context.state is kit.agent.state
        assert context.workloads is kit.agent.workloads
        assert context.events is kit.agent.events
        assert context.settings is kit.agent.settings
        assert context.map("sample_map") is kit.agent.datapath.map("sample_map")
        before = kit.agent.datapath.map("runtime").lookup(0)["revision"]
        context.raise_revision()
        assert kit.agent.datapath.map("runtime").lookup(0)["revision"] == before + 1
        with pytest.raises(PluginError, match="sample asks for the map 'absent', which nobody declared"):
            context.map("absent")
