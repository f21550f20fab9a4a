"""A list of what to undo when something fails half-way."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from axoneme.core import logs

log = logs.get(__name__)


class Undo:
    """Steps that take back what was done, run in reverse order.

    A step that fails is logged and the others are run all the same: the error that made them necessary is the one that
    its reader needs.
    """

    def __init__(self) -> None:
        self._steps: list[tuple[str, Callable[[], Awaitable[object] | None]]] = []

    def add(self, what: str, step: Callable[[], Awaitable[object] | None]) -> None:
        """:param what: for the log, in the infinitive (`delete link 7`)."""
        self._steps.append((what, step))

    async def run(self) -> None:
        while self._steps:
            what, step = self._steps.pop()
            try:
                waiting = step()
                if waiting is not None:
                    await waiting
            except Exception as error:  # noqa: BLE001 whatever it is, the other steps are still to be run
                log.error("could not undo", error=error, step=what)
