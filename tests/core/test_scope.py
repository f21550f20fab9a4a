from __future__ import annotations

import asyncio
import logging

import pytest

from axoneme.core.scope import CloseError, Scope, to_the_end


async def test_closes_backwards_and_keeps_all_errors(caplog: pytest.LogCaptureFixture) -> None:
    scope, closed = Scope("p1"), []

    def fail(name: str) -> None:
        closed.append(name)
        raise ValueError(name)

    async def later() -> None:
        closed.append("async")

    scope.push("first", lambda: fail("first"))
    scope.push("async", later)
    scope.push("last", lambda: fail("last"))
    assert scope.names() == ["first", "async", "last"]
    with pytest.raises(ExceptionGroup) as caught:
        await scope.close()
    assert closed == ["last", "async", "first"]
    assert [str(error) for error in caught.value.exceptions] == ["last", "first"]
    assert [getattr(r, "axoneme_fields")["owner"] for r in caplog.records] == ["p1", "p1"]  # noqa: B009
    await scope.close()


async def test_a_task_is_cancelled_and_may_clean_up() -> None:
    scope, cleaned, started = Scope("p1"), [], asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    task = scope.spawn("work", work())
    await started.wait()
    await scope.close()
    assert cleaned == [True]
    assert task.cancelled()


async def test_what_does_not_close_in_time_does_not_keep_the_rest_from_closing() -> None:
    scope, closed = Scope("p1", patience=0.01), []
    scope.push("good", lambda: closed.append(True))
    scope.push("stuck", lambda: asyncio.Event().wait())  # type: ignore[arg-type, return-value]
    with pytest.raises(ExceptionGroup) as caught:
        await scope.close()
    assert isinstance(caught.value.exceptions[0], CloseError)
    assert closed == [True]


async def test_a_closed_scope_owns_nothing_more() -> None:
    scope = Scope("p1")
    await scope.close()
    with pytest.raises(RuntimeError, match="p1 is closed and cannot own late"):
        scope.push("late", lambda: None)


async def test_a_task_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    scope = Scope("p1")

    async def work() -> None:
        raise ValueError("boom")

    caplog.set_level(logging.ERROR)
    task = scope.spawn("work", work())
    await asyncio.wait([task])
    assert "task failed" in caplog.messages
    await scope.close()


async def test_who_is_cancelled_meanwhile_is_so_once_the_work_is_through() -> None:
    done: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append("closed")

    task = asyncio.create_task(to_the_end(work()))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["closed"]


async def test_what_the_work_raises_or_returns_is_passed_on() -> None:
    async def fail() -> None:
        raise ValueError("no")

    async def answer() -> int:
        return 7

    with pytest.raises(ValueError, match="no"):
        await to_the_end(fail())
    assert await to_the_end(answer()) == 7
