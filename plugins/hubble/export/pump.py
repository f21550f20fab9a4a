"""From the ring to somewhere else, in batches. What cannot be delivered is not forgotten: it is read from the ring again.

An exporter that fails is started again by the agent, and goes on behind the last flow that it delivered. What the ring
has lost by then is told as lost, exactly, as to any reader.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, Protocol

from axoneme.plugins.hubble.proto import observer_pb2

if TYPE_CHECKING:
    from axoneme.plugins.hubble.observer import Observer

#: Messages that are delivered at once, and seconds until fewer are.
SIZE: Final = 512
DELAY: Final = 0.5
#: Seconds for the last ones when the agent stops.
FINAL: Final = 5.0


class Sink(Protocol):
    """Where flows go. Its methods run in a thread, one at a time."""

    def open(self) -> None: ...

    def write(self, messages: Sequence[bytes]) -> None:
        """Delivers serialized `GetFlowsResponse`s, or raises."""
        ...

    def close(self) -> None: ...


class Pump:
    """One exporter.

    :param request: which flows; it is followed.
    """

    def __init__(self, observer: Observer, request: observer_pb2.GetFlowsRequest, sink: Sink) -> None:
        self._observer = observer
        self._request = request
        self._sink = sink
        self._batch: list[bytes] = []
        self._writing = asyncio.Lock()
        self._thread: ThreadPoolExecutor | None = None
        #: The time of the newest flow that was delivered.
        self._delivered = 0

    async def run(self, ready: Callable[[], None]) -> None:
        """The service: from where the last run ended, or from now. Raises what the sink raised."""
        request = observer_pb2.GetFlowsRequest()
        request.CopyFrom(self._request)
        request.since.FromNanoseconds(self._delivered + 1 if self._delivered else time.time_ns())
        self._batch = []
        # One thread: what was begun is done before what follows, also when this task is cancelled meanwhile.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="hubble-export")
        try:
            await self._do(self._sink.open)
            ready()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._collect(request))
                tasks.create_task(self._tick())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            await self._do(self._sink.close)
            self._thread.shutdown(wait=False)

    async def _do(self, work: Callable[..., None], *arguments: Any) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    async def _collect(self, request: observer_pb2.GetFlowsRequest) -> None:
        try:
            async for message in self._observer.get_flows(request):
                self._batch.append(message)
                if len(self._batch) >= SIZE:
                    await self._flush()
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FINAL):
                    await self._flush()  # the last ones, when the agent stops

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(DELAY)
            await self._flush()

    async def _flush(self) -> None:
        async with self._writing:
            batch, self._batch = self._batch, []
            if not batch:
                return
            await self._do(self._sink.write, batch)
            self._delivered = max(self._delivered, _time(batch[-1]))


def _time(message: bytes) -> int:
    answer = observer_pb2.GetFlowsResponse.FromString(message)
    return answer.time.ToNanoseconds()
