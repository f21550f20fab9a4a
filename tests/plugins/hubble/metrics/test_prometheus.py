"""A real Prometheus scrapes an agent: its own metrics and those of flows, in the format that it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import yaml
from flow_world import records
from prometheus_client.parser import text_string_to_metric_families

from axoneme.core.datapath.abi import EventType
from axoneme.core.testing.agent import AgentKit

HANDLERS = [
    "dns:query",
    "drop:sourceContext=pod",
    "tcp",
    "flow",
    "port-distribution",
    "icmp",
    "httpV2",
    "policy",
]


@pytest.fixture
async def kit() -> AsyncIterator[AgentKit]:
    sections = {
        "enabled": ["policy", "hubble", "prometheus"],
        "prometheus": {"listen": "127.0.0.1:0"},
        "hubble": {"metrics": {"handlers": HANDLERS, "listen": "127.0.0.1:0"}},
    }
    async with AgentKit(values={"plugins": sections}) as kit:
        yield kit


def port(kit: AgentKit, name: str) -> int:
    assert kit.agent.generation is not None
    service = next(s for s in kit.agent.generation.services if s.name == name)
    assert service.ready, service.reason
    found: int = service.service.run.__self__.port  # type: ignore[attr-defined]
    return found


async def some_flows(kit: AgentKit) -> None:
    """20 new connections and 5 drops, as the kernel would tell of them."""
    web = await kit.agent.workloads.add("web", labels={"app": "web"})
    api = await kit.agent.workloads.add("api", labels={"app": "api"})
    ends = {
        "source_endpoint": web.id, "destination_endpoint": api.id, "source_identity": web.identity,
        "destination_identity": api.identity,
    }  # fmt: skip
    kit.agent.events.publish(records(20, kind=EventType.NEW, **ends))
    kit.agent.events.publish(records(5, kind=EventType.DROP, reason=133, **ends))


async def text_of(url: str, until: str) -> str:
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        while True:
            async with session.get(url) as response:
                text = await response.text()
            if until in text:
                return text
            await asyncio.sleep(0.05)


async def test_hubbles_own_endpoint(kit: AgentKit) -> None:
    await some_flows(kit)
    url = f"http://127.0.0.1:{port(kit, 'hubble.metrics-http')}/metrics"
    text = await text_of(url, "hubble_drop_total{")
    assert 'hubble_drop_total{protocol="TCP",reason="POLICY_DENIED",source="default/web"} 5.0' in text
    assert 'hubble_tcp_flags_total{family="IPv4",flag="SYN"} 20.0' in text
    assert 'hubble_port_distribution_total{port="8080",protocol="TCP"} 20.0' in text
    assert 'hubble_lost_events_total{source="perf_event_ring_buffer"} 0.0' in text
    again = await text_of(url, 'hubble_metrics_http_handler_requests_total{code="200"}')
    await asyncio.to_thread(promtool, again)


async def test_calls_of_the_api_are_counted(kit: AgentKit) -> None:
    import grpc

    from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest, ServerStatusRequest
    from axoneme.plugins.hubble.proto.observer_pb2_grpc import ObserverStub

    await some_flows(kit)
    url = f"http://127.0.0.1:{port(kit, 'hubble.metrics-http')}/metrics"
    before = await text_of(url, "hubble_drop_total{")
    async with grpc.aio.insecure_channel(f"unix://{kit.agent.settings.agent.run_dir}/hubble.sock") as channel:
        stub = ObserverStub(channel)
        await stub.ServerStatus(ServerStatusRequest())
        sent = [answer async for answer in stub.GetFlows(GetFlowsRequest(number=3))]
        with pytest.raises(grpc.aio.AioRpcError):
            _ = [answer async for answer in stub.GetFlows(GetFlowsRequest(first=True, follow=True))]
    after = await text_of(url, 'grpc_code="InvalidArgument"')

    def rise(name: str, **labels: str) -> float:
        return value(after, name, labels) - value(before, name, labels)

    common = {"grpc_service": "observer.Observer", "grpc_method": "GetFlows", "grpc_type": "server_stream"}
    assert rise("grpc_server_started_total", **common) == 2
    assert rise("grpc_server_handled_total", **common, grpc_code="OK") == 1
    assert rise("grpc_server_handled_total", **common, grpc_code="InvalidArgument") == 1
    assert rise("grpc_server_msg_sent_total", **common) == len(sent)
    unary = {"grpc_service": "observer.Observer", "grpc_method": "ServerStatus", "grpc_type": "unary"}
    assert rise("grpc_server_msg_sent_total", **unary) == 1


def value(text: str, name: str, labels: dict[str, str]) -> float:
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return found[0] if found else 0.0


def promtool(text: str) -> None:
    command = ["promtool", "check", "metrics"]
    checked = subprocess.run(command, input=text.encode(), capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")


@contextlib.contextmanager
def prometheus(folder: Path, targets: dict[str, int]) -> Iterator[str]:
    """The address of a Prometheus that scrapes these ports."""
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
        for name, port in targets.items()
    ]
    config = folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": "200ms"}, "scrape_configs": jobs}))
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        "--web.listen-address=127.0.0.1:0", "--log.format=json",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield f"http://{address_of(process, folder / 'log')}"
    finally:
        process.terminate()
        process.wait(20)


def address_of(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where it listens, as its log says."""
    while process.poll() is None:
        for line in log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("msg") == "Listening on":
                    return str(entry["address"])
        time.sleep(0.02)
    raise AssertionError(log.read_text())


def query(address: str, text: str) -> list[dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"{address}/api/v1/query?query={quote(text)}", timeout=20) as response:
            found: list[dict[str, Any]] = json.load(response)["data"]["result"]
    except urllib.error.HTTPError as error:
        if error.code != 503:  # still starting
            raise
        return []
    return found


def awaited(address: str, text: str) -> list[dict[str, Any]]:
    """What a query gives once it gives something."""
    deadline = time.monotonic() + 30
    while not (found := query(address, text)):
        assert time.monotonic() < deadline, text
        time.sleep(0.05)
    return found


async def answer(address: str, text: str) -> list[dict[str, Any]]:
    return await asyncio.to_thread(awaited, address, text)


async def test_a_real_prometheus_scrapes_it(kit: AgentKit, tmp_path: Path) -> None:
    await some_flows(kit)
    hubble, agent = port(kit, "hubble.metrics-http"), port(kit, "prometheus.metrics")
    await text_of(f"http://127.0.0.1:{hubble}/metrics", "hubble_drop_total{")
    context = prometheus(tmp_path, {"hubble": hubble, "agent": agent})
    address = await asyncio.to_thread(context.__enter__)
    try:
        (drops,) = await answer(address, "hubble_drop_total")
        assert drops["value"][1] == "5"
        assert drops["metric"]["source"] == "default/web"
        (verdict,) = await answer(address, 'hubble_flows_processed_total{type="Trace"}')
        assert verdict["metric"]["verdict"] == "FORWARDED"
        (endpoints,) = await answer(address, "cilium_endpoint")
        assert endpoints["value"][1] == "2"
        assert await answer(address, "cilium_agent_bootstrap_seconds{scope='overall'}")
        assert {row["value"][1] for row in await answer(address, "up")} == {"1"}
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


async def test_the_series_of_a_workload_go_after_it(kit: AgentKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("axoneme.plugins.hubble.metrics.service.LINGERING", 0.05)
    await some_flows(kit)
    url = f"http://127.0.0.1:{port(kit, 'hubble.metrics-http')}/metrics"
    assert 'source="default/web"' in await text_of(url, "hubble_drop_total{")
    assert await kit.agent.workloads.remove("web")
    async with aiohttp.ClientSession() as session, asyncio.timeout(20):
        while True:
            async with session.get(url) as response:
                text = await response.text()
            if 'source="default/web"' not in text:
                break
            await asyncio.sleep(0.05)
    assert "hubble_flows_processed_total{" in text, "what does not name it stays"
