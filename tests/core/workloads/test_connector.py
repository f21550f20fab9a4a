"""One thread speaks to the kernel, and a step is never left half-way."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from axoneme.core.workloads.connector import Connector
from axoneme.core.workloads.wishes import WorkloadOptions


async def test_calls_share_one_thread_that_is_not_ours(tmp_path: Path) -> None:
    connector = Connector(WorkloadOptions(folder=tmp_path))
    names = {await connector.call(threading.get_ident) for _ in range(3)}
    assert len(names) == 1
    assert threading.get_ident() not in names
    with pytest.raises(ZeroDivisionError):
        await connector.call(divmod, 1, 0)
    await connector.close()
    await connector.close()


async def test_a_cancelled_call_is_waited_for(tmp_path: Path) -> None:
    connector = Connector(WorkloadOptions(folder=tmp_path))
    begun, go, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        assert go.wait(10)
        ended.append(True)

    calling = asyncio.ensure_future(connector.call(work))
    await asyncio.to_thread(begun.wait, 10)
    calling.cancel()
    await asyncio.sleep(0)
    assert not calling.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await calling
    assert ended == [True]
    await connector.close()
