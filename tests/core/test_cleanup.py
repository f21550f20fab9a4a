from __future__ import annotations

from pathlib import Path

import pytest

from axoneme.core import cleanup
from axoneme.core.errors import KernelError, LockedError
from axoneme.core.testing.agent import AgentKit, FakePlatform

from .sample import Sample


async def left_by_an_agent(folder: Path, platform: FakePlatform) -> AgentKit:
    kit = AgentKit([Sample()], folder=folder, platform=platform)
    async with kit:
        await kit.agent.workloads.add("web")
    return kit


def test_everything_that_the_agent_made_goes_and_nothing_else(tmp_path: Path) -> None:
    import asyncio

    platform = FakePlatform()
    kit = asyncio.run(left_by_an_agent(tmp_path, platform))
    kit.resource("mine.yaml", "")
    assert any(link.pinned for link in platform.fake_kernel.links.values())
    assert list((tmp_path / "bpf" / "maps").iterdir())
    said = list(cleanup.run(kit.agent.config, platform=platform))
    assert said[-2:] == [str(tmp_path / "state"), str(tmp_path / "run")]
    assert not any(link.pinned for link in platform.fake_kernel.links.values())
    assert platform.connector.links == {}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "resources"]
    assert (tmp_path / "resources" / "mine.yaml").exists()
    assert platform.fake_kernel.open_fds == 0
    assert list(cleanup.run(kit.agent.config, platform=platform)) == ["there is nothing to remove"]


def test_not_under_a_running_agent(tmp_path: Path) -> None:
    from axoneme.core.lock import StateLock

    kit = AgentKit(folder=tmp_path)
    (tmp_path / "state").mkdir()
    lock = StateLock(tmp_path / "state")
    with pytest.raises(LockedError):
        cleanup.run(kit.agent.config, platform=kit.platform)
    lock.close()


def test_as_long_as_something_is_left_the_state_stays(tmp_path: Path) -> None:
    import asyncio

    platform = FakePlatform()
    kit = asyncio.run(left_by_an_agent(tmp_path, platform))
    platform.fake_kernel.fail("link_detach", 16)
    with pytest.raises(ExceptionGroup) as caught:
        cleanup.run(kit.agent.config, platform=platform)
    assert isinstance(caught.value.exceptions[0], KernelError)
    assert (tmp_path / "state").exists()
    assert list(cleanup.run(kit.agent.config, platform=platform))
