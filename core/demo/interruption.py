"""Ctrl-C and SIGTERM, at any moment of a demo: they break off what is being shown, never the cleaning up after it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """Somebody wants the demo to end."""


class Interruption:
    """From entering to leaving it, signals only ask: the first one cancels what `run` runs, all others do nothing.

    :ivar received: the signal that asked, or None.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self._running: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is None:
            self.received = signal.Signals(number)
            if self._running is not None:
                loop, task = self._running
                loop.call_soon_threadsafe(task.cancel)

    def check(self) -> None:
        """Raises `Interrupted` if somebody asked already."""
        if self.received is not None:
            raise Interrupted

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs it in an event loop of its own.

        :raises Interrupted: when a signal came before it was through, whatever else then went wrong.
        """
        try:
            return asyncio.run(self._attend(work))
        except (Exception, asyncio.CancelledError):
            # A terminal's Ctrl-C also reaches the compiler, which then fails: that is not the news.
            self.check()
            raise

    async def _attend(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.current_task()
        assert task is not None
        if self.received is not None:
            work.close()
            raise Interrupted
        self._running = asyncio.get_running_loop(), task
        try:
            return await work
        finally:
            self._running = None
