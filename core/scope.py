"""A ledger of what somebody owns: tasks to end and things to close, in the reverse order of their making."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from axoneme.core import logs
from axoneme.core.errors import AxonemeError

T = TypeVar("T")
Closer = Callable[[], Awaitable[None] | None]

#: Seconds that one thing may take to close before the others are closed without waiting for it any longer.
PATIENCE: Final = 10.0
#: Closing that takes longer than this is worth a line for everybody, in seconds.
SLOW: Final = 1.0

_log = logs.get(__name__)


class CloseError(AxonemeError):
    """Something that did not close in time."""


class Scope:
    """Owns what one plugin, one generation or the agent made.

    `close` goes backwards through the ledger, keeps going when something fails, and raises all errors together.
    """

    def __init__(self, owner: str, *, patience: float = PATIENCE) -> None:
        self.owner = owner
        self._patience = patience
        self._ledger: list[tuple[str, Closer, object]] = []
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def names(self) -> list[str]:
        """What is owned, in the order of its making."""
        return [name for name, *_ in self._ledger]

    def push(self, name: str, close: Closer, what: object = None) -> None:
        """From now on `close` is called, once, when the scope closes.

        :param what: under which `close_early` finds it.
        :raises RuntimeError: when the scope is closed already; then nobody would ever call it.
        """
        if self._closed:
            raise RuntimeError(f"{self.owner} is closed and cannot own {name}")
        self._ledger.append((name, close, what))

    def spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts a task that is cancelled, and waited for, when the scope closes. A failure of it is logged."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self.owner}.{name}")
        task.add_done_callback(self._report)
        self.push(name, lambda: self._end(task), task)
        return task

    async def close_early(self, what: object) -> None:
        """Closes one thing before the others; nothing happens when it is not owned. Raises what its closing raises."""
        for entry in [entry for entry in self._ledger if entry[2] is what]:
            self._ledger.remove(entry)
            await self._close_one(*entry[:2])

    async def close(self) -> None:
        """Closes everything, the last made first. A second call does nothing.

        :raises ExceptionGroup: with the errors of all that failed to close.
        """
        self._closed = True
        errors: list[Exception] = []
        while self._ledger:
            name, close, _ = self._ledger.pop()
            start = time.monotonic()
            try:
                await self._close_one(name, close)
            except Exception as error:  # noqa: BLE001 - whatever it is, the rest must still be closed
                _log.error("not closed", owner=self.owner, name=name, error=error)
                errors.append(error)
            seconds = time.monotonic() - start
            write = _log.info if seconds > SLOW else _log.debug
            write("closed", owner=self.owner, name=name, seconds=seconds)
        if errors:
            raise ExceptionGroup(f"{self.owner} did not close cleanly", errors)

    async def _close_one(self, name: str, close: Closer) -> None:
        result = close()
        if inspect.isawaitable(result):
            try:
                async with asyncio.timeout(self._patience):
                    await result
            except TimeoutError:
                raise CloseError(f"{name} of {self.owner} did not close in {self._patience:g} s") from None

    async def _end(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        await asyncio.wait([task])

    def _report(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task failed", owner=self.owner, name=task.get_name(), error=error)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Awaits work that must not be left half done: whoever is cancelled meanwhile is so once it is through."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            cancelled = error
        except Exception:  # noqa: BLE001 - the task has it, and `result` raises it
            break
    if cancelled is not None and not task.cancelled():
        if (failed := task.exception()) is not None:
            raise cancelled from failed
        raise cancelled
    return task.result()
