"""The agent as a program of its own: privileges, signals, systemd, and the watch over its configuration file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from axoneme.core import logs, privileges
from axoneme.core.config import Config
from axoneme.core.errors import AxonemeError
from axoneme.core.scope import Scope
from axoneme.core.settings import AgentSettings, Privileges
from axoneme.core.systemd import Notifier

if TYPE_CHECKING:
    from axoneme.core.agent import Agent

#: Seconds between two looks at the configuration file.
POLL: Final = 1.0

#: Threads of numpy's algebra, which nothing here uses, and handlers that gRPC would run around every fork.
_LEAN: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "GRPC_ENABLE_FORK_SUPPORT": "0"}

#: Inode, size and time of change.
Signature = tuple[int, int, int] | None

_log = logs.get(__name__)


def main(config: Config, *, no_plugins: bool = False, verbose: bool = False) -> None:
    """Runs an agent until it is told to stop. Raises `AxonemeError` when it cannot start."""
    settings = config.settings.agent
    logs.setup("debug" if verbose else settings.log.level, settings.log.format)
    os.umask(0o027)
    os.environ |= {key: value for key, value in _LEAN.items() if key not in os.environ}
    with contextlib.suppress(
        ValueError, OSError
    ):  # kernels before 5.11 count maps against it; others don't care
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if settings.privileges is Privileges.DROP and os.geteuid() == 0:
        _drop(settings)
    from axoneme.core.agent import Agent

    asyncio.run(run(Agent(config, no_plugins=no_plugins), Notifier()))


def _drop(settings: AgentSettings) -> None:
    """Gives up what is not needed. A socket of a group has to be given to it, so that this is kept then."""
    privileges.drop([*settings.capabilities, *(["chown"] if settings.socket_group else [])])
    _log.debug("privileges dropped", kept=",".join(settings.capabilities))


async def run(agent: Agent, notifier: Notifier) -> None:
    """Runs the agent in this task until SIGTERM or SIGINT. A start that is under way is broken off."""
    task = asyncio.current_task()
    assert task is not None
    wanted = asyncio.Event()
    scope = Scope("daemon")
    # As it was when it was read: a change during a long start is one too.
    known = _signature(agent.config.file)
    with _signals({signal.SIGTERM: task.cancel, signal.SIGINT: task.cancel, signal.SIGHUP: wanted.set}):
        try:
            await agent.start()
            notifier.ready(_words(agent))
            scope.spawn("watchdog", _watchdog(agent, notifier))
            scope.spawn("configuration", _watch(agent, known, wanted))
            await _reloads(agent, notifier, wanted)
        except asyncio.CancelledError:
            task.uncancel()
            _log.info("stopping; traffic flows on under the last known state")
        finally:
            notifier.stopping()
            await scope.close()
            await agent.stop()


@contextlib.contextmanager
def _signals(handlers: dict[signal.Signals, Callable[[], object]]):  # type: ignore[no-untyped-def]
    loop = asyncio.get_running_loop()
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    try:
        yield
    finally:
        for number in handlers:
            loop.remove_signal_handler(number)


async def _reloads(agent: Agent, notifier: Notifier, wanted: asyncio.Event) -> None:
    """Reloads whenever it is wanted, without end."""
    while True:
        await wanted.wait()
        wanted.clear()
        notifier.reloading()
        try:
            await agent.reload()
        except AxonemeError:
            pass  # logged and shown in the status; the running configuration stays
        except Exception as error:  # noqa: BLE001 - a bug in a reload must not end what works
            _log.error("reload failed", error=error)
        notifier.ready(_words(agent))


async def _watch(agent: Agent, known: Signature, wanted: asyncio.Event) -> None:
    """Wants a reload when the file was changed and has been still since the last look."""
    seen = known
    while True:
        await asyncio.sleep(POLL)
        now = _signature(agent.config.file)
        if now is not None and now == seen != known and agent.settings.agent.watch_config:
            known = now
            wanted.set()
        seen = now


def _signature(file: Path | None) -> Signature:
    """What tells that a file was changed; None when it is not there, which is never a reason to reload."""
    try:
        status = file.stat() if file is not None else None
    except OSError:
        return None
    return (status.st_ino, status.st_size, status.st_mtime_ns) if status is not None else None


async def _watchdog(agent: Agent, notifier: Notifier) -> None:
    """Tells systemd that the loop runs, and how the agent is."""
    shown = ""
    while True:
        notifier.alive()
        if (words := _words(agent)) != shown:
            shown = words
            notifier.status(words)
        await asyncio.sleep(notifier.interval or 10.0)


def _words(agent: Agent) -> str:
    from axoneme.core.status import status

    now = status(agent)
    bad = [
        f"{row['plugin']}: {row['reason']}"
        for row in (*now["services"], *now["checks"])
        if row["level"] != "ok"
    ]
    return (
        f"{now['level']}; {'; '.join(bad)}"
        if bad
        else f"{now['level']}; {now['counts']['endpoints']} workloads"
    )
