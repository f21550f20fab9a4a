from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from axoneme.core.records import Level, Restart, Service
from axoneme.core.scope import Scope
from axoneme.core.state.reconciler import Backoff
from axoneme.core.supervisor import STABLE, Clock, ServiceState, Supervised, Supervisor, settle

Ready = Callable[[], None]


class Middle(random.Random):
    """No jitter."""

    def uniform(self, a: float, b: float) -> float:
        return (a + b) / 2


class FakeClock:
    """Time that passes only when somebody sleeps, and notes how long."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []

    def clock(self) -> Clock:
        return Clock(now=lambda: self.time, sleep=self.sleep, backoff=Backoff(0.5, 60.0, Middle()))

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds
        await asyncio.sleep(0)


def supervised(
    run: Callable[[Ready], Awaitable[None]], fake: FakeClock, restart: Restart = Restart.ON_FAILURE
) -> Supervised:
    return Supervised("p1", Service(name="s", run=run, restart=restart), fake.clock())


async def test_delays_grow_until_the_service_is_well_and_stay_bounded() -> None:
    fake, runs = FakeClock(), 0

    async def run(ready: Ready) -> None:
        nonlocal runs
        runs += 1
        if runs <= 9:
            raise ValueError("not yet")

    service = supervised(run, fake)
    await service.run()
    assert fake.slept == [0.5, 1, 2, 4, 8, 16, 32, 60, 60]
    assert service.restarts == 9
    assert service.state is ServiceState.FINISHED


async def test_who_was_well_for_long_begins_with_short_delays() -> None:
    fake, runs = FakeClock(), 0

    async def run(ready: Ready) -> None:
        nonlocal runs
        runs += 1
        if runs == 4:
            ready()
            fake.time += STABLE
        if runs < 6:
            raise ValueError

    await supervised(run, fake).run()
    assert fake.slept == [0.5, 1, 2, 0.5, 1]


async def test_a_service_that_must_not_run_again() -> None:
    async def run(ready: Ready) -> None:
        raise ValueError("once")

    service = supervised(run, FakeClock(), Restart.NEVER)
    await service.run()
    assert service.state is ServiceState.FAILED
    assert service.health().reason == "ValueError: once"
    assert service.health().level is Level.FAILED


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), KeyError("k")])
async def test_whatever_a_service_raises_is_only_its_own_failure(error: BaseException) -> None:
    fake, runs = FakeClock(), 0

    async def run(ready: Ready) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise error

    service = supervised(run, fake)
    await service.run()
    assert (runs, service.state) == (2, ServiceState.FINISHED)


async def test_health_follows_the_service() -> None:
    fake, seen = FakeClock(), []

    async def run(ready: Ready) -> None:
        seen.append(service.health())
        if len(seen) == 1:
            raise ValueError("first")
        ready()
        ready()
        seen.append(service.health())

    service = supervised(run, fake)
    await service.run()
    assert [(h.level, h.reason) for h in seen] == [
        (Level.UNKNOWN, "starting"),
        (Level.DEGRADED, "starting again after: ValueError: first"),
        (Level.OK, ""),
    ]


async def test_closing_the_scope_stops_the_service() -> None:
    scope = Scope("p1")

    async def run(ready: Ready) -> None:
        ready()
        await asyncio.Event().wait()

    service = Supervisor().start("p1", Service(name="s", run=run), scope)
    assert await settle([service], 5) == []
    assert service.name == "p1.s"
    await scope.close()
    assert service.state is ServiceState.STOPPED


async def test_settling_ends_with_a_failure_and_with_the_time() -> None:
    scope = Scope("p1")

    async def fails(ready: Ready) -> None:
        raise ValueError

    async def hangs(ready: Ready) -> None:
        await asyncio.Event().wait()

    bad = Supervisor().start("p1", Service(name="bad", run=fails), scope)
    assert await settle([bad], 5) == [bad]
    slow = Supervisor().start("p1", Service(name="slow", run=hangs), scope)
    assert await settle([bad, slow], 0.01) == [bad, slow]
    await scope.close()


async def test_who_is_held_ends_and_runs_again_only_once_it_ended() -> None:
    scope, events, let_go = Scope("p1"), list[str](), asyncio.Event()

    async def run(ready: Ready) -> None:
        events.append("start")
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            await let_go.wait()
            events.append("end")

    service = Supervisor(FakeClock().clock()).start("p1", Service(name="s", run=run), scope)
    await service.settled.wait()
    holding = asyncio.create_task(service.hold())
    await asyncio.sleep(0)
    assert (service.state, service.health().level) == (ServiceState.HELD, Level.UNKNOWN)
    service.resume()
    assert events == ["start"], "the former run has not ended"
    let_go.set()
    await holding
    await service.settled.wait()
    assert events == ["start", "end", "start"]
    assert service.ready
    assert service.restarts == 0, "it did not fail"
    assert scope.names() == ["s"]
    service.resume()
    await scope.close()
    assert (events[3:], service.state) == (["end"], ServiceState.STOPPED)
    await service.hold()
    service.resume()
    assert service.state is ServiceState.STOPPED, "who ended by himself, or with his scope, stays so"
