"""What Prometheus reads: the formats, and that no metric can hide or flood the others."""

from __future__ import annotations

import asyncio
import gzip
import subprocess
from collections.abc import AsyncIterator

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from axoneme.core.histogram import Histogram
from axoneme.core.hooks import hookimpl
from axoneme.core.records import Metric, MetricType, PluginInfo
from axoneme.core.testing.agent import AgentKit
from axoneme.plugins.prometheus.exposition import bounded, family

PORT = 0


class Sample:
    """A plugin with metrics of every type, one of which cannot be read."""

    def __init__(self) -> None:
        self.seconds = Histogram((0.1, 1.0))

    @hookimpl
    def axoneme_info(self) -> PluginInfo:
        return PluginInfo(name="sample")

    @hookimpl
    def axoneme_metrics(self, context: object) -> list[Metric]:
        return [
            Metric(name="sample_total", type=MetricType.COUNTER, help="", read=lambda: 3.0),
            Metric(name="sample_broken", type=MetricType.GAUGE, help="cannot be read", read=lambda: 1 / 0),
            Metric(
                name="sample_text",
                type=MetricType.GAUGE,
                help='with "quotes"\nand lines',
                read=lambda: {('a"b\n\\',): 1.0},
                labels=("text",),
            ),
            Metric(
                name="sample_seconds",
                type=MetricType.HISTOGRAM,
                help="a histogram",
                read=self.seconds.read,
                labels=("who",),
            ),
        ]


@pytest.fixture
async def kit() -> AsyncIterator[AgentKit]:
    sample = Sample()
    for seconds in (0.05, 0.5, 5.0):
        sample.seconds.observe(seconds, "me")
    values = {"plugins": {"enabled": ["policy", "prometheus"], "prometheus": {"listen": "127.0.0.1:0"}}}
    async with AgentKit([sample], values) as kit:
        yield kit


def port(kit: AgentKit) -> int:
    assert kit.agent.generation is not None
    service = next(s for s in kit.agent.generation.services if s.name == "prometheus.metrics")
    assert service.ready, service.reason
    found: int = service.service.run.__self__.port  # type: ignore[attr-defined]
    return found


async def scrape(kit: AgentKit, **headers: str) -> tuple[str, str]:
    url = f"http://127.0.0.1:{port(kit)}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as response:
        assert response.status == 200
        return response.headers["Content-Type"], await response.text()


def promtool(text: str) -> None:
    command = ["promtool", "check", "metrics"]
    checked = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


POLICY = """{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: other},
spec: {endpointSelector: {matchLabels: {app: other}}, ingress: [{}]}}"""


async def test_the_agents_metrics(kit: AgentKit, caplog: pytest.LogCaptureFixture) -> None:
    await kit.agent.workloads.add("web", labels={"app": "web"})
    kit.resource("web.yaml", POLICY)
    async with asyncio.timeout(10):
        async for _ in kit.agent.state.table("resources").watch():
            if len(kit.agent.state.table("resources")):
                break
    await scrape(kit)
    content_type, text = await scrape(kit)
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    values = {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for each in text_string_to_metric_families(text)
        for sample in each.samples
    }
    assert values[("cilium_endpoint",)] == 1
    assert values[("cilium_endpoint_state", "ready")] == 1
    assert values[("cilium_identity", "cluster_local")] == 1
    assert values[("cilium_policy_endpoint_enforcement_status", "none")] == 1
    assert values[("axoneme_bpf_map_entries", "endpoints4")] == 1
    assert values[("cilium_bpf_map_pressure", "endpoints4")] == 1 / 65536
    assert values[("cilium_bpf_map_ops_total", "endpoints4", "update", "success")] >= 1
    assert values[("cilium_agent_bootstrap_seconds", "success", "overall")] > 0
    assert values[("sample_text", 'a"b\n\\')] == 1
    assert values[("sample_seconds_bucket", "0.1", "me")] == 1
    assert values[("sample_seconds_bucket", "+Inf", "me")] == 3
    assert values[("sample_seconds_sum", "me")] == pytest.approx(5.55)
    assert values[("axoneme_resources", "CiliumNetworkPolicy", "valid")] == 1
    assert values[("axoneme_metrics_errors_total",)] == 2  # the one that cannot be read hides no other
    assert caplog.text.count("metric not read") == 1  # of two scrapes
    assert "cilium_process_cpu_seconds_total" in text
    await asyncio.to_thread(promtool, text)


async def test_openmetrics_and_compression(kit: AgentKit) -> None:
    content_type, text = await scrape(
        kit, Accept="application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    )
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    names = {each.name for each in parse_openmetrics(text)}
    assert {"cilium_endpoint", "sample", "cilium_bpf_map_ops"} <= names
    url = f"http://127.0.0.1:{port(kit)}/metrics"
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(url, headers={"Accept-Encoding": "gzip"}) as response,
    ):
        assert response.headers["Content-Encoding"] == "gzip"
        assert b"cilium_endpoint " in gzip.decompress(await response.read())


async def test_only_metrics_are_served(kit: AgentKit) -> None:
    async with aiohttp.ClientSession() as session:
        for path, status in (
            ("/", 200),
            ("/debug/pprof", 404),
            ("/metrics/../config", 404),
            ("//metrics", 404),
        ):
            async with session.get(f"http://127.0.0.1:{port(kit)}{path}") as response:
                assert response.status == status, path


async def test_wrong_settings_are_refused() -> None:
    from axoneme.core.errors import AxonemeError

    for section in ({"listen": "nowhere"}, {"metrics": ["cilium_endpoint"]}, {"max_series": 1}):
        values = {"plugins": {"enabled": ["prometheus"], "prometheus": section}}
        with pytest.raises(AxonemeError):
            async with AgentKit(values=values):
                pass


def test_too_many_series_overflow_into_one() -> None:
    values = {(f"{number:04}",): 1.0 for number in range(1000)}
    kept = bounded(values, 10, 1)
    assert len(kept) == 11
    assert kept[("overflow",)] == 990
    assert sum(float(value) for value in kept.values()) == 1000  # type: ignore[arg-type]
    histogram = Histogram((1.0,))
    for number in range(20):
        histogram.observe(0.5, str(number))
    metric = Metric(name="h", type=MetricType.HISTOGRAM, help="", read=histogram.read, labels=("n",))
    samples = family(metric, histogram.read(), 5).samples
    assert sum(s.value for s in samples if s.name == "h_count") == 20


async def test_all_metrics_have_whole_names_and_help() -> None:
    """What Cilium has as well is called as there; everything else says whose it is."""
    every = ["policy", "hubble", "prometheus", "lb", "dns"]
    values = {"plugins": {"enabled": every, "prometheus": {"listen": "127.0.0.1:0"}}}
    async with AgentKit(values=values) as kit:
        metrics = kit.agent.metrics()
    assert [m.name for m in metrics if not m.name.startswith(("cilium_", "axoneme_"))] == []
    assert [m.name for m in metrics if not m.help] == []
    assert [m.name for m in metrics if (m.type is MetricType.COUNTER) != m.name.endswith("_total")] == []
