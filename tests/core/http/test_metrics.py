"""`/metrics`: formats for whoever asks, and for how many at once."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import Metric

from axoneme.core.http.metrics import choose_encoder, metrics_application


def collected() -> Iterator[Metric]:
    metric = Metric("things", "how many", "counter")
    metric.add_sample("things_total", {"kind": "a"}, 3)
    yield metric


@pytest.mark.parametrize(
    ("accept", "openmetrics"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain;version=0.0.4", False),
        ("application/openmetrics-text;version=1.0.0;q=0.8,text/plain", True),
        ("application/openmetrics-text;version=evil", True),
        ("APPLICATION/OPENMETRICS-TEXT", True),
        (";;;,,,=;version", False),
        ("a" * 4000, False),
    ],
)
async def test_whoever_asks_gets_a_format(accept: str, openmetrics: bool) -> None:
    encode, content_type = choose_encoder(accept)
    assert content_type.startswith("application/openmetrics-text; version=1.0.0") == openmetrics
    text = encode(type("Collector", (), {"collect": staticmethod(collected)})).decode()
    assert 'things_total{kind="a"} 3.0' in text
    assert text.endswith("# EOF\n") == openmetrics


async def test_too_many_at_once_are_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow encoder must not pile up requests; each answer is told to the observer."""
    release, refused, told = threading.Event(), asyncio.Event(), list[int]()

    def slow(snapshot: object) -> bytes:
        release.wait(20)
        return b""

    def tell(code: int, seconds: float) -> None:
        told.append(code)
        if len(told) == 4:
            refused.set()

    monkeypatch.setattr("axoneme.core.http.metrics.choose_encoder", lambda accept: (slow, "text/plain"))
    application: web.Application = metrics_application(collected, tell)
    async with TestClient(TestServer(application)) as client:
        asked = [asyncio.ensure_future(client.get("/metrics")) for _ in range(20)]
        async with asyncio.timeout(20):
            await refused.wait()
        assert told == [503] * 4
        release.set()
        answers = [response.status for response in await asyncio.gather(*asked)]
    assert sorted(answers) == [200] * 16 + [503] * 4
