"""Flows as OpenTelemetry logs, answered layer 7 requests as spans, sent to a collector over gRPC (OTLP).

The records are made here, from flows that are over already; encoding, sending, retrying and compression are the
OpenTelemetry SDK's. Attributes follow its semantic conventions where these have a name; the rest is `hubble.…`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from axoneme.core.errors import AxonemeError, ConfigError
from axoneme.plugins.hubble import formats
from axoneme.plugins.hubble.export.config import OtlpExport
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan

SCOPE: Final = "axoneme.hubble"
Attributes = dict[str, Any]


class Otlp:
    """The sink. Raises `AxonemeError` when the collector does not take what it gets."""

    def __init__(self, settings: OtlpExport, node: str) -> None:
        self._settings = settings
        self._node = node
        self._logs: Any = None
        self._spans: Any = None

    def open(self) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise ConfigError("export.otlp needs OpenTelemetry", hint="pip install 'axoneme[otlp]'") from None
        common = self._arguments()
        self._logs = OTLPLogExporter(**common) if self._settings.logs else None
        self._spans = OTLPSpanExporter(**common) if self._settings.traces else None

    def _arguments(self) -> Attributes:
        import grpc

        settings, url = self._settings, urlsplit(self._settings.endpoint)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ConfigError(f"export.otlp.endpoint {settings.endpoint!r} is no http:// or https:// URL")
        common: Attributes = {
            "endpoint": settings.endpoint,
            "timeout": settings.timeout,
            "insecure": url.scheme == "http",
        }
        if url.scheme == "https":
            tls = settings.tls
            files = [path.read_bytes() if path else None for path in (tls.ca, tls.key, tls.certificate)]
            common["credentials"] = grpc.ssl_channel_credentials(*files)
        return common

    def write(self, messages: Sequence[bytes]) -> None:
        answers = [observer_pb2.GetFlowsResponse.FromString(message) for message in messages]
        resource = _resource(self._node)
        if self._logs is not None:
            self._deliver(self._logs, [log_record(answer, resource) for answer in answers])
        if self._spans is not None:
            self._deliver(self._spans, [span for answer in answers for span in spans(answer.flow, resource)])

    def _deliver(self, exporter: Any, records: list[Any]) -> None:
        if records and exporter.export(records).name != "SUCCESS":
            raise AxonemeError(f"the collector at {self._settings.endpoint} does not take flows")

    def close(self) -> None:
        for exporter in (self._logs, self._spans):
            if exporter is not None:
                exporter.shutdown()


def _resource(node: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    return Resource(
        {"service.name": "axoneme-hubble", "host.name": node.rpartition("/")[2], "k8s.node.name": node}
    )


def log_record(answer: observer_pb2.GetFlowsResponse, resource: Resource) -> Any:
    """A flow, or what was lost, as a log record; drops, errors and losses are warnings."""
    from opentelemetry._logs import LogRecord, SeverityNumber
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    flow, lost = answer.flow, answer.HasField("lost_events")
    bad = lost or flow.verdict in (flow_pb2.DROPPED, flow_pb2.ERROR)
    trace = _trace_id(flow)
    record = LogRecord(
        timestamp=answer.time.ToNanoseconds() or None,
        context=_context(trace) if trace else None,
        severity_number=SeverityNumber.WARN if bad else SeverityNumber.INFO,
        severity_text="WARN" if bad else "INFO",
        body=formats.compact(answer, formats.Look(time_format="RFC3339Nano")),
        attributes=_lost(answer.lost_events) if lost else attributes(flow),
        event_name="hubble.lost_events" if lost else "hubble.flow",
    )
    return ReadableLogRecord(record, resource, InstrumentationScope(SCOPE))


def _context(trace: int) -> Any:
    """That a record belongs to a trace, of whose spans none is known."""
    from opentelemetry.trace import NonRecordingSpan, SpanContext, set_span_in_context

    return set_span_in_context(NonRecordingSpan(SpanContext(trace, 0, is_remote=True)))


def _lost(lost: flow_pb2.LostEvent) -> Attributes:
    return {
        "hubble.lost.source": flow_pb2.LostEventSource.Name(lost.source),
        "hubble.lost.count": lost.num_events_lost,
    }


def attributes(flow: flow_pb2.Flow) -> Attributes:
    """What a flow says, by OpenTelemetry's names; what it does not say is left out."""
    protocol = flow.l4.WhichOneof("protocol")
    found: Attributes = {
        "hubble.uuid": flow.uuid,
        "hubble.verdict": formats.verdict(flow, formats.Look()),
        "hubble.event": formats.flow_type(flow),
        "hubble.drop_reason": flow_pb2.DropReason.Name(flow.drop_reason_desc)
        if flow.drop_reason_desc
        else "",
        "hubble.direction": flow_pb2.TrafficDirection.Name(flow.traffic_direction).lower()
        if flow.traffic_direction
        else "",
        "network.transport": (protocol or "").lower(),
        "network.type": {1: "ipv4", 2: "ipv6"}.get(flow.IP.ipVersion, ""),
        "network.interface.name": flow.interface.name,
        **_side(flow, "source"),
        **_side(flow, "destination"),
        **_http(flow),
    }
    if flow.HasField("is_reply"):
        found["hubble.reply"] = flow.is_reply.value
    if flow.l7.dns.query:
        found["dns.question.name"] = flow.l7.dns.query
    for way in ("egress", "ingress"):
        policies = [*getattr(flow, f"{way}_allowed_by"), *getattr(flow, f"{way}_denied_by")]
        found[f"hubble.policy.{way}"] = [
            f"{p.namespace}/{p.name}" if p.namespace else p.name for p in policies
        ]
    return {name: value for name, value in found.items() if value not in ("", [], None)}


def _side(flow: flow_pb2.Flow, side: str) -> Attributes:
    endpoint, kind = getattr(flow, side), flow.l4.WhichOneof("protocol")
    workload = endpoint.workloads[0] if endpoint.workloads else flow_pb2.Workload()
    port = getattr(getattr(flow.l4, kind), f"{side}_port") if kind in ("TCP", "UDP", "SCTP") else 0
    return {
        f"{side}.address": getattr(flow.IP, side),
        f"{side}.port": port or None,
        f"hubble.{side}.identity": endpoint.identity or None,
        f"hubble.{side}.namespace": endpoint.namespace,
        f"hubble.{side}.pod": endpoint.pod_name,
        f"hubble.{side}.workload": f"{workload.kind}/{workload.name}" if workload.kind else workload.name,
        f"hubble.{side}.labels": list(endpoint.labels),
        f"hubble.{side}.names": list(getattr(flow, f"{side}_names")),
    }


def _http(flow: flow_pb2.Flow) -> Attributes:
    http = flow.l7.http
    return {
        "http.request.method": http.method,
        "url.full": http.url,
        "http.response.status_code": http.code or None,
        "network.protocol.name": "http" if flow.l7.HasField("http") else "",
        "network.protocol.version": http.protocol.rpartition("/")[2],
    }


def spans(flow: flow_pb2.Flow, resource: Resource) -> Iterator[ReadableSpan]:
    """The request that a layer 7 response answers, as one span: it began when the request came."""
    if flow.l7.type != flow_pb2.RESPONSE or not flow.HasField("time"):
        return
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    end, trace = flow.time.ToNanoseconds(), _trace_id(flow) or _random(128)
    failed = flow.l7.http.code >= 500 or flow.l7.dns.rcode not in (0, 3)
    yield ReadableSpan(
        name=_span_name(flow),
        context=SpanContext(trace, _random(64), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED)),
        resource=resource,
        attributes=attributes(flow),
        kind=SpanKind.SERVER if flow.traffic_direction == flow_pb2.INGRESS else SpanKind.CLIENT,
        instrumentation_scope=InstrumentationScope(SCOPE),
        status=Status(StatusCode.ERROR if failed else StatusCode.UNSET),
        start_time=end - flow.l7.latency_ns,
        end_time=end,
    )


def _span_name(flow: flow_pb2.Flow) -> str:
    """Of few kinds, as names of spans should be: no paths, no names of hosts."""
    kind = flow.l7.WhichOneof("record") or "l7"
    return flow.l7.http.method or "HTTP" if kind == "http" else kind.upper()


def _trace_id(flow: flow_pb2.Flow) -> int | None:
    try:
        return int(flow.trace_context.parent.trace_id, 16) or None
    except ValueError:
        return None


def _random(bits: int) -> int:
    return random.getrandbits(bits) or 1
