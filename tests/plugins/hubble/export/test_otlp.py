"""Flows at a real OTLP receiver: the collector's gRPC services, in this process, by the protocol's own messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from flow_world import World, record, records
from google.protobuf.timestamp_pb2 import Timestamp
from hubble_certificates import Authority
from hubble_nodes import running, until
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from axoneme.core.datapath.abi import EventType
from axoneme.core.errors import AxonemeError, ConfigError
from axoneme.plugins.hubble.export import pump
from axoneme.plugins.hubble.export.config import OtlpExport, OtlpTls, request
from axoneme.plugins.hubble.export.otlp import Otlp
from axoneme.plugins.hubble.export.pump import Pump
from axoneme.plugins.hubble.proto import flow_pb2


class Receiver:
    """What a collector got."""

    def __init__(self) -> None:
        self.logs: list[Any] = []
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.refuse = False
        self.port = 0

    async def Export(self, message: Any, context: Any) -> Any:
        if self.refuse:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
        if isinstance(message, logs_service_pb2.ExportLogsServiceRequest):
            for resource in message.resource_logs:
                self.resources.append(plain(resource.resource.attributes))
                self.logs += [entry for scope in resource.scope_logs for entry in scope.log_records]
            return logs_service_pb2.ExportLogsServiceResponse()
        for traced in message.resource_spans:
            self.spans += [span for scope in traced.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


def plain(attributes: Any) -> dict[str, Any]:
    return {entry.key: value(entry.value) for entry in attributes}


def value(held: Any) -> Any:
    kind = held.WhichOneof("value")
    return (
        [value(inner) for inner in held.array_value.values] if kind == "array_value" else getattr(held, kind)
    )


@contextlib.asynccontextmanager
async def receiving(credentials: Any = None) -> AsyncIterator[Receiver]:
    server, receiver = grpc.aio.server(), Receiver()
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(receiver, server)
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    add = server.add_insecure_port if credentials is None else server.add_secure_port
    receiver.port = add("localhost:0", *([] if credentials is None else [credentials]))
    await server.start()
    try:
        async with asyncio.timeout(30):
            yield receiver
    finally:
        await server.stop(None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pump, "DELAY", 0.02)


def exporter(world: World, settings: OtlpExport) -> Pump:
    return Pump(world.observer, request(settings), Otlp(settings, world.observer.node_name))


def response(trace_id: str) -> flow_pb2.Flow:
    moment = Timestamp()
    moment.GetCurrentTime()
    return flow_pb2.Flow(
        time=moment, verdict="FORWARDED", Type="L7", event_type={"type": 129}, traffic_direction="INGRESS",
        is_reply={"value": True}, trace_context={"parent": {"trace_id": trace_id}}, Summary="HTTP/1.1 503 2ms (GET /)",
        l7={"type": "RESPONSE", "latency_ns": 2_000_000,
            "http": {"code": 503, "method": "GET", "url": "http://api/items", "protocol": "HTTP/1.1"}},
        source={"pod_name": "api", "namespace": "shop", "workloads": [{"name": "api", "kind": "Deployment"}]},
    )  # fmt: skip


async def test_flows_are_log_records_and_answered_requests_are_spans() -> None:
    world = World(policy_verdicts=False)
    async with receiving() as receiver:
        settings = OtlpExport(endpoint=f"http://localhost:{receiver.port}")
        async with running(exporter(world, settings).run):
            world.observer.take(records(1))
            world.observer.take(record(EventType.DROP, reason=133))
            world.observer.add([response("4bf92f3577b34da6a3ce929d0e0e4736"), response("")])
            await until(lambda: len(receiver.logs) == 4 and len(receiver.spans) == 2)
    new, drop, http, _ = receiver.logs
    shown = plain(new.attributes)
    assert {
        "hubble.verdict": "FORWARDED", "source.address": "10.0.0.1", "source.port": 1000, "destination.address": "10.0.0.2",
        "destination.port": 8080, "network.transport": "tcp", "network.type": "ipv4", "hubble.source.pod": "web",
        "hubble.source.namespace": "shop", "hubble.destination.identity": 301,
    }.items() <= shown.items()  # fmt: skip
    assert (new.severity_text, drop.severity_text) == ("INFO", "WARN")
    assert plain(drop.attributes)["hubble.drop_reason"] == "POLICY_DENIED"
    assert "shop/web:1000 (ID:300) -> shop/api:8080 (ID:301)" in new.body.string_value
    assert new.time_unix_nano > 0
    assert receiver.resources[0]["service.name"] == "axoneme-hubble"
    assert receiver.resources[0]["host.name"] == "node1"
    assert http.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    span, untraced = receiver.spans
    assert (span.name, span.trace_id, span.end_time_unix_nano - span.start_time_unix_nano) == (
        "GET",
        http.trace_id,
        2_000_000,
    )
    assert span.kind == 2  # SERVER
    assert span.status.code == 2  # ERROR
    assert plain(span.attributes)["http.response.status_code"] == 503
    assert plain(span.attributes)["hubble.source.workload"] == "Deployment/api"
    assert untraced.trace_id not in (b"", http.trace_id)


async def test_what_the_collector_does_not_take_comes_again() -> None:
    world = World(policy_verdicts=False)
    async with receiving() as receiver:
        settings = OtlpExport(endpoint=f"http://localhost:{receiver.port}", traces=False, timeout=1)
        pumped = exporter(world, settings)
        receiver.refuse = True
        started = asyncio.Event()
        failing = asyncio.ensure_future(pumped.run(started.set))
        await started.wait()
        await asyncio.sleep(0.05)
        world.observer.take(records(2))
        with pytest.raises(AxonemeError, match="does not take flows"):
            await failing
        assert receiver.logs == []
        receiver.refuse = False
        pumped._delivered = 1  # as after a first flow
        async with running(pumped.run):
            await until(lambda: len(receiver.logs) == 2)


async def test_tls_and_filters(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    certificate, key = ours.issue("collector")
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    world = World(policy_verdicts=False)
    async with receiving(credentials) as receiver:
        settings = OtlpExport(
            endpoint=f"https://localhost:{receiver.port}",
            tls=OtlpTls(ca=ours.file),
            allow=({"source_port": ["1001"]},),
        )
        async with running(exporter(world, settings).run):
            world.observer.take(records(3))
            await until(lambda: receiver.logs)
    assert [plain(entry.attributes)["source.port"] for entry in receiver.logs] == [1001]


async def test_an_endpoint_that_is_none_is_explained() -> None:
    with pytest.raises(ConfigError, match="no http:// or https:// URL"):
        await exporter(World(), OtlpExport(endpoint="collector:4317")).run(lambda: None)
