"""Runs services: starts them again when they fail, with growing delays, and knows how each of them is."""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Awaitable, Callable
from typing import Final

from attrs import field, frozen

from axoneme.core import logs
from axoneme.core.records import Health, Level, Restart, Service
from axoneme.core.scope import Scope
from axoneme.core.state.reconciler import Backoff

#: A service that was ready for so long, in seconds, begins anew with short delays when it fails.
STABLE: Final = 60.0

_log = logs.get(__name__)


class ServiceState(enum.StrEnum):
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    FAILED = "failed"
    FINISHED = "finished"
    STOPPED = "stopped"
    HELD = "held"


@frozen(kw_only=True)
class Clock:
    """Time, replaced in tests."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    backoff: Backoff = field(factory=lambda: Backoff(first=0.5, longest=60.0))


class Supervised:
    """One service that runs, or waits to run again."""

    def __init__(self, plugin: str, service: Service, clock: Clock) -> None:
        self.plugin = plugin
        self.service = service
        self.state = ServiceState.STARTING
        #: Why it failed last, or an empty text.
        self.reason = ""
        self.restarts = 0
        #: Set once the service was ready or failed for the first time.
        self.settled = asyncio.Event()
        self._clock = clock
        self._failures = 0
        self._ready_since: float | None = None
        self._scope: Scope | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        return f"{self.plugin}.{self.service.name}"

    @property
    def ready(self) -> bool:
        return self.state in (ServiceState.READY, ServiceState.FINISHED)

    def health(self) -> Health:
        if self.ready:
            return Health(level=Level.OK)
        if self.state is ServiceState.STARTING and not self.reason:
            return Health(level=Level.UNKNOWN, reason="starting")
        if self.state is ServiceState.HELD:
            return Health(level=Level.UNKNOWN, reason="another configuration is about to take over")
        if self.state is ServiceState.STARTING:
            return Health(level=Level.DEGRADED, reason=f"starting again after: {self.reason}")
        return Health(level=Level.FAILED, reason=self.reason or self.state.value)

    def start(self, scope: Scope) -> None:
        """Runs the service until the scope closes."""
        self._scope = scope
        self._task = scope.spawn(self.service.name, self.run())

    async def hold(self) -> None:
        """Ends it, unless it has ended by itself. `resume` runs it again. Raises `CloseError` when it does not end."""
        if self._scope is None or self._task is None or self._task.done():
            return
        self.state = ServiceState.HELD
        await self._scope.close_early(self._task)

    def resume(self) -> None:
        """Runs it again if it is held."""
        if self.state is not ServiceState.HELD or self._scope is None or self._scope.closed:
            return
        assert self._task is not None, "it ran"
        self.settled.clear()
        self._task = self._scope.spawn(self.service.name, self._again(self._task))

    async def _again(self, former: asyncio.Task[None]) -> None:
        """Runs once the former run has ended: it may have refused to, for as long as a scope waits."""
        await asyncio.wait([former])
        self.state = ServiceState.STARTING
        self.settled.clear()
        await self.run()

    async def run(self) -> None:
        """Runs the service until it ends by itself or is cancelled."""
        try:
            while (error := await self._once()) is not None:
                self._failed(error)
                if self.state is ServiceState.FAILED:
                    return
                await self._clock.sleep(self._clock.backoff.delay(self._failures))
                self.restarts += 1
                self.state = ServiceState.STARTING
            self.state = ServiceState.FINISHED
            self.settled.set()
        except asyncio.CancelledError:
            if self.state is not ServiceState.HELD:
                self.state = ServiceState.STOPPED
            self.settled.set()
            raise

    async def _once(self) -> BaseException | None:
        """What the service failed with, or None when it ended."""
        self._ready_since = None
        try:
            await self.service.run(self._on_ready)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return error  # a cancellation of its own making that escaped: a failure like any other
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a plugin's failure is a state
            return error
        return None

    def _on_ready(self) -> None:
        if self.state is not ServiceState.STARTING:
            return
        self.state, self.reason = ServiceState.READY, ""
        self._ready_since = self._clock.now()
        self.settled.set()
        _log.debug("service ready", plugin=self.plugin, service=self.service.name)

    def _failed(self, error: BaseException) -> None:
        since = self._ready_since
        stable = since is not None and self._clock.now() - since >= STABLE
        self._failures = 1 if stable else self._failures + 1
        again = self.service.restart is Restart.ON_FAILURE
        self.state = ServiceState.WAITING if again else ServiceState.FAILED
        self.reason = logs.describe(error)
        self.settled.set()
        _log.error(
            "service failed",
            plugin=self.plugin,
            service=self.service.name,
            failures=self._failures,
            restarts=again,
            error=error,
        )


class Supervisor:
    """Starts services into the scopes of their owners."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()

    def start(self, plugin: str, service: Service, scope: Scope) -> Supervised:
        """Runs the service until the scope closes."""
        supervised = Supervised(plugin, service, self._clock)
        supervised.start(scope)
        return supervised


async def settle(services: list[Supervised], seconds: float) -> list[Supervised]:
    """Waits, at most `seconds`, until each service was ready or failed once; returns those that are not ready."""
    try:
        async with asyncio.timeout(seconds):
            for supervised in services:
                await supervised.settled.wait()
    except TimeoutError:
        pass
    return [supervised for supervised in services if not supervised.ready]
