"""Signals break off the showing, never the cleaning up."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from axoneme.core.demo.interruption import SIGNALS, Interrupted, Interruption


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_cancels_what_runs(number: signal.Signals) -> None:
    cleaned = []

    async def work() -> None:
        try:
            send(number)
            await asyncio.Event().wait()
        finally:
            cleaned.append(True)

    with Interruption() as interruption, pytest.raises(Interrupted):
        interruption.run(work())
    assert interruption.received is number
    assert cleaned == [True]


def test_later_signals_do_nothing() -> None:
    async def work() -> None:
        try:
            send(signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            send(signal.SIGINT)
            await asyncio.sleep(0)
            send(signal.SIGTERM)

    with Interruption() as interruption:
        with pytest.raises(Interrupted):
            interruption.run(work())
        send(signal.SIGINT)
    assert interruption.received is signal.SIGINT


def test_a_signal_before_the_start_keeps_it_from_starting() -> None:
    async def work() -> None:
        raise AssertionError("this must not run")

    with Interruption() as interruption:
        send(signal.SIGTERM)
        with pytest.raises(Interrupted):
            interruption.run(work())


def test_what_fails_because_of_the_signal_is_not_the_news() -> None:
    async def work() -> None:
        send(signal.SIGINT)
        raise RuntimeError("the compiler was interrupted, too")

    with Interruption() as interruption, pytest.raises(Interrupted):
        interruption.run(work())


def test_other_failures_are() -> None:
    async def work() -> None:
        raise RuntimeError("something else")

    with Interruption() as interruption, pytest.raises(RuntimeError, match="something else"):
        interruption.run(work())


def test_without_a_signal_there_is_a_result_and_the_handlers_are_as_before() -> None:
    async def work() -> int:
        return 7

    before = [signal.getsignal(number) for number in SIGNALS]
    with Interruption() as interruption:
        assert interruption.run(work()) == 7
    assert [signal.getsignal(number) for number in SIGNALS] == before
