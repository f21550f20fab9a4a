"""Removes what an agent made: its workloads, what it has in the kernel, and its state."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from axoneme.core import builtin, lock
from axoneme.core.config import Config
from axoneme.core.errors import AxonemeError
from axoneme.core.platform import Host, Platform


def run(config: Config, *, cache: bool = False, platform: Platform | None = None) -> Iterator[str]:
    """Removes everything, and says what; goes on when a part of it fails.

    :raises LockedError: when an agent runs on this state.
    :raises ExceptionGroup: with all that could not be removed.
    """
    return iter(asyncio.run(_run(config, cache, platform or Host())))


async def _run(config: Config, cache: bool, platform: Platform) -> list[str]:
    agent, said, errors = config.settings.agent, [], []
    if not agent.state_dir.exists() and not agent.bpffs.exists():
        return ["there is nothing to remove"]
    platform.prepare(config.settings)
    agent.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = lock.StateLock(agent.state_dir)
    try:
        async for step in _steps(config, platform):
            said.append(step) if isinstance(step, str) else errors.append(step)
        if not errors:
            # The state is what tells which things are ours: as long as one of them is left, it is needed.
            said += [_remove_folder(folder) for folder in _folders(config, cache) if folder.exists()]
    finally:
        held.close()
    if errors:
        raise ExceptionGroup("not everything could be removed", errors)
    return said


async def _steps(config: Config, platform: Platform) -> AsyncIterator[str | Exception]:
    from axoneme.core.state.table import State

    settings, state = config.settings, State(builtin.TABLES)
    workloads = platform.workloads(state, settings, on_link=_ignore, on_unlink=_ignore)
    try:
        await workloads.restore()
        for endpoint in workloads.list():
            try:
                await workloads.remove(endpoint.name, endpoint.namespace)
                yield f"workload {endpoint.uid}"
            except AxonemeError as error:
                yield error
        await workloads.remove_hub()
        platform.forget()
    finally:
        await workloads.close()
    try:
        platform.datapath(platform.kernel(), settings).remove()
        yield f"links, programs, maps and pins under {settings.agent.bpffs}"
    except (AxonemeError, OSError) as error:
        yield error


async def _ignore(ifindex: int) -> None:
    return


def _folders(config: Config, cache: bool) -> list[Path]:
    agent = config.settings.agent
    return [agent.state_dir, agent.run_dir, *([agent.cache_dir] if cache else [])]


def _remove_folder(folder: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    return str(folder)
