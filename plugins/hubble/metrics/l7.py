"""The handlers of layer 7: DNS, HTTP, Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from axoneme.plugins.hubble.metrics import names
from axoneme.plugins.hubble.metrics.handlers import DROPPED, REQUEST, RESPONSE, Handler
from axoneme.plugins.hubble.metrics.options import HandlerOptions
from axoneme.plugins.hubble.metrics.series import Family, Labels

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import Flow


class DnsHandler(Handler):
    name = "dns"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        query = ("query",) if "query" in options.flags else ()
        common = ("rcode", "qtypes", "ips_returned", *query)
        self._queries = self.counter("hubble_dns_queries_total", "DNS queries", *common)
        self._responses = self.counter("hubble_dns_responses_total", "DNS responses", *common)
        self._types = self.counter(
            "hubble_dns_response_types_total", "Records of DNS responses", "type", "qtypes", *query
        )

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        if flow.l7.WhichOneof("record") != "dns":
            return
        dns, flags = flow.l7.dns, self.options.flags
        if "ignoreAAAA" in flags and list(dns.qtypes) == ["AAAA"]:
            return
        qtypes, context = ",".join(dns.qtypes), self.context(flow)
        rest = ((dns.query,) if "query" in flags else ()) + context
        common = (qtypes, str(len(dns.ips)), *rest)
        if flow.verdict == DROPPED:
            yield self._queries, ("Policy denied", *common)
        elif not flow.is_reply.value:
            yield self._queries, ("", *common)
        else:
            yield self._responses, (names.RCODES.get(dns.rcode, "Unknown"), *common)
            for kind in dns.rrtypes:
                yield self._types, (kind, qtypes, *rest)


class HttpHandler(Handler):
    name = "http"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        self._requests = self.counter(
            "hubble_http_requests_total", "HTTP requests", "method", "protocol", "reporter"
        )
        self._responses = self.counter(
            "hubble_http_responses_total", "HTTP responses", "method", "status", "reporter", "protocol"
        )
        self._seconds = self.histogram(
            "hubble_http_request_duration_seconds", "From request to response", "method", "reporter"
        )

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        if flow.l7.WhichOneof("record") != "http":
            return
        http, reporter, context = flow.l7.http, names.reporter(flow), self.context(flow)
        if flow.l7.type == REQUEST:
            yield self._requests, (http.method, http.protocol, reporter, *context)
        elif flow.l7.type == RESPONSE:
            yield self._responses, (http.method, str(http.code), reporter, http.protocol, *context)
            yield self._seconds, (http.method, reporter, *context)


class HttpV2Handler(Handler):
    """Counts responses only, and names the sides as the request did: one series tells rate, errors and duration."""

    name = "httpV2"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        self._requests = self.counter(
            "hubble_http_requests_total", "HTTP requests", "method", "protocol", "status", "reporter"
        )
        self._seconds = self.histogram(
            "hubble_http_request_duration_seconds", "From request to response", "method", "reporter"
        )

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        if flow.l7.WhichOneof("record") != "http" or flow.l7.type != RESPONSE:
            return
        http, reporter, context = flow.l7.http, names.reporter(flow), self.context(flow, swapped=True)
        yield self._requests, (http.method, http.protocol, str(http.code), reporter, *context)
        yield self._seconds, (http.method, reporter, *context)


class KafkaHandler(Handler):
    name = "kafka"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        self._requests = self.counter(
            "hubble_kafka_requests_total", "Kafka requests", "topic", "api_key", "error_code", "reporter"
        )
        self._seconds = self.histogram(
            "hubble_kafka_request_duration_seconds",
            "Latency of Kafka requests",
            "topic",
            "api_key",
            "reporter",
        )

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        if flow.l7.WhichOneof("record") != "kafka" or flow.l7.type != REQUEST:
            return
        kafka, reporter, context = flow.l7.kafka, names.reporter(flow), self.context(flow)
        yield self._requests, (kafka.topic, kafka.api_key, str(kafka.error_code), reporter, *context)
        yield self._seconds, (kafka.topic, kafka.api_key, reporter, *context)
