"""`/metrics`: what a collector of prometheus_client says, in the format that the asker prefers."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

if TYPE_CHECKING:
    from aiohttp import web
    from prometheus_client import Metric

Collect = Callable[[], Iterable["Metric"]]
#: Told of each answer: HTTP's code and the seconds that it took.
Observe = Callable[[int, float], None]

#: Scrapes that are written down at once, and those that may wait.
_AT_ONCE: Final = 2
_WAITING: Final = 16

#: From how many bytes on compressing is worth it.
_COMPRESSED: Final = 1024


@frozen
class _Snapshot:
    """What was collected, for an encoder in another thread."""

    metrics: list[Metric]

    def collect(self) -> list[Metric]:
        return self.metrics


def metrics_application(collect: Collect, observe: Observe | None = None) -> web.Application:
    """An application with `/metrics`, and a line at `/` that says so."""
    from aiohttp import web

    application = web.Application(client_max_size=1024)
    application.router.add_get("/metrics", metrics_handler(collect, observe))
    application.router.add_get("/", _index)
    return application


async def _index(request: web.Request) -> web.Response:
    from aiohttp import web

    return web.Response(text="see /metrics\n")


def metrics_handler(collect: Collect, observe: Observe | None = None) -> Callable[..., Awaitable[Any]]:
    """The handler. Collects in the event loop, where the numbers are at rest; writes down and compresses in a thread."""
    from aiohttp import web

    slots, waiting = asyncio.Semaphore(_AT_ONCE), 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal waiting
        if waiting >= _WAITING:
            return web.Response(status=503, text="too many ask at once\n", headers={"Retry-After": "5"})
        waiting += 1
        try:
            async with slots:
                return await _answer(request, collect)
        finally:
            waiting -= 1

    async def handler(request: web.Request) -> web.Response:
        begin = time.perf_counter()
        response = await answer(request)
        if observe is not None:
            observe(response.status, time.perf_counter() - begin)
        return response

    return handler


async def _answer(request: web.Request, collect: Collect) -> web.Response:
    from aiohttp import web

    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    compressed = "gzip" in request.headers.get("Accept-Encoding", "").lower()
    snapshot = _Snapshot(list(collect()))

    def work() -> tuple[bytes, dict[str, str]]:
        body, headers = encode(snapshot), {"Content-Type": content_type}
        if compressed and len(body) > _COMPRESSED:
            return gzip.compress(body, 1), headers | {"Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        return body, headers

    body, headers = await asyncio.to_thread(work)
    return web.Response(body=body, headers=headers)


def choose_encoder(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """The encoder for an Accept header and its content type: OpenMetrics 1.0 or the text format 0.0.4."""
    from prometheus_client import exposition

    wanted = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if "application/openmetrics-text" in wanted:
        from prometheus_client.openmetrics import exposition as openmetrics

        return openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST
    return exposition.generate_latest, "text/plain; version=0.0.4; charset=utf-8"
