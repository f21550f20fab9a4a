from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml

from axoneme.core import config as configuration
from axoneme.core import daemon
from axoneme.core.systemd import Notifier
from axoneme.core.testing.agent import AgentKit

from .sample import Sample


class Told(Notifier):
    """Notes what systemd would hear."""

    def __init__(self) -> None:
        super().__init__({})
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    def _send(self, *lines: str) -> None:
        self.lines.put_nowait(lines[0])

    async def until(self, line: str) -> None:
        async with asyncio.timeout(20):
            while await self.lines.get() != line:
                pass


@pytest.fixture
def on_file(tmp_path: Path) -> tuple[AgentKit, Path, Sample]:
    sample = Sample()
    kit = AgentKit([sample], folder=tmp_path)
    file = tmp_path / "config.yaml"
    write(file, kit)
    kit.agent.config = configuration.load(file, environ={})
    return kit, file, sample


def write(file: Path, kit: AgentKit, **section: Any) -> None:
    new = file.with_suffix(".new")
    new.write_text(yaml.safe_dump({"agent": kit.values["agent"], "plugins": {"sample": section}}))
    new.rename(file)


async def run(kit: AgentKit, told: Told) -> asyncio.Task[None]:
    task = asyncio.ensure_future(daemon.run(kit.agent, told))
    await told.until("READY=1")
    return task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_it_cleanly(on_file: tuple[AgentKit, Path, Sample], number: int) -> None:
    kit, _, sample = on_file
    told = Told()
    task = await run(kit, told)
    os.kill(os.getpid(), number)
    await told.until("STOPPING=1")
    await task
    assert sample.events == ["start 8", "stop 8"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_a_start_that_is_under_way_is_broken_off(on_file: tuple[AgentKit, Path, Sample]) -> None:
    kit, _, _ = on_file
    told = Told()
    entered = asyncio.Event()

    async def hang() -> None:
        entered.set()
        await asyncio.Event().wait()

    kit.agent._serve = hang  # type: ignore[method-assign]
    task = asyncio.ensure_future(daemon.run(kit.agent, told))
    await entered.wait()
    os.kill(os.getpid(), signal.SIGTERM)
    await task
    assert kit.platform.fake_kernel.open_fds == 0


async def test_hangup_and_a_changed_file_reload(
    on_file: tuple[AgentKit, Path, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, file, sample = on_file
    monkeypatch.setattr(daemon, "POLL", 0.01)
    told = Told()
    task = await run(kit, told)
    write(file, kit, size=9)
    await told.until("RELOADING=1")
    await told.until("READY=1")
    assert sample.events == ["start 8", "start 9", "stop 8"]
    write(file, kit, size=0)
    await told.until("RELOADING=1")
    await told.until("READY=1")
    assert "beyond the minimum" in str(kit.agent.reload_error)
    assert kit.agent.ready
    file.unlink()
    os.kill(os.getpid(), signal.SIGHUP)
    await told.until("READY=1")
    assert "cannot read the configuration" in str(kit.agent.reload_error)
    task.cancel()
    await task


async def test_the_watchdog_is_told_how_it_is(on_file: tuple[AgentKit, Path, Sample]) -> None:
    kit, _, _ = on_file
    told = Told()
    task = await run(kit, told)
    await told.until("WATCHDOG=1")
    await told.until("STATUS=ok; 0 workloads")
    task.cancel()
    await task
