"""Flows of what proxies report: one for each request, and one for its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from axoneme.core.events.requests import Dns, Http, Outcome, Request
from axoneme.core.workloads.endpoints import Address
from axoneme.plugins.hubble.policies import Policies
from axoneme.plugins.hubble.proto.flow_pb2 import Endpoint, Flow

_L7_EVENT, _L7_FLOW = 129, 2
_REQUEST, _RESPONSE = 1, 2
_VERDICTS: Final = {Outcome.FORWARDED: 1, Outcome.DENIED: 2, Outcome.ERROR: 3}
_INGRESS, _EGRESS = 1, 2
_PROTOCOLS: Final = {6: "TCP", 17: "UDP", 132: "SCTP"}

#: RFC 6895, in the words of gopacket, which clients know.
_RCODES: Final = {
    1: "Format Error", 2: "Server Failure", 3: "Non-Existent Domain", 4: "Not Implemented", 5: "Query Refused",
    6: "Name Exists when it should not", 7: "RR Set Exists when it should not", 8: "RR Set that should exist does not",
    9: "Server Not Authoritative for zone", 10: "Name not contained in zone",
}  # fmt: skip

#: Who has an endpoint's number and identity; which names stand for an address.
Who = Callable[[int, int], Endpoint]
Named = Callable[[Address], list[str]]


def flow_of(request: Request, who: Who, named: Named, policies: Policies) -> Flow:
    flow = Flow(
        source=who(request.source_endpoint, request.source_identity),
        destination=who(request.destination_endpoint, request.destination_identity),
        source_names=named(request.source), destination_names=named(request.destination),
        event_type={"type": _L7_EVENT}, is_reply={"value": request.answer}, reply=request.answer,
    )  # fmt: skip
    flow.time.FromNanoseconds(request.time)
    _set(
        flow, verdict=_VERDICTS[request.outcome], Type=_L7_FLOW,
        traffic_direction=_INGRESS if request.ingress else _EGRESS,
    )  # fmt: skip
    flow.IP.source, flow.IP.destination = str(request.source), str(request.destination)
    _set(flow.IP, ipVersion=1 if request.source.version == 4 else 2)
    if (name := _PROTOCOLS.get(request.protocol)) is not None:
        ports = getattr(flow.l4, name)
        ports.source_port, ports.destination_port = request.source_port, request.destination_port
    _policies(flow, request, policies)
    _set(flow.l7, type=_RESPONSE if request.answer else _REQUEST)
    flow.l7.latency_ns = request.latency
    if request.trace_id:
        flow.trace_context.parent.trace_id = request.trace_id
    flow.Summary = (
        _dns(flow, request.what, request)
        if isinstance(request.what, Dns)
        else _http(flow, request.what, request)
    )
    return flow


def _set(message: Any, **enums: int) -> None:
    for name, value in enums.items():
        setattr(message, name, value)


def _policies(flow: Flow, request: Request, policies: Policies) -> None:
    """The rules of its connection; a denial is by the side whose proxy it is."""
    for direction, rule in (("egress", request.egress_rule), ("ingress", request.ingress_rule)):
        if (found := policies.get(rule)) is not None:
            its_own = request.ingress == (direction == "ingress")
            word = "denied" if its_own and request.outcome is Outcome.DENIED else "allowed"
            getattr(flow, f"{direction}_{word}_by").append(found[0])


def _dns(flow: Flow, what: Dns, request: Request) -> str:
    types = ",".join(what.types)
    dns = flow.l7.dns
    dns.query, dns.observation_source = what.query, "proxy"
    dns.qtypes.extend(what.types)
    if not request.answer:
        return f"DNS Query {what.query} {types}"
    dns.rcode, dns.ttl = what.rcode, what.ttl
    dns.ips.extend(what.addresses)
    dns.cnames.extend(what.cnames)
    dns.rrtypes.extend(what.answer_types)
    parts = [f'"{",".join(what.addresses)}"'] if what.addresses else []
    parts += [f'CNAMEs: "{",".join(what.cnames)}"'] if what.cnames else []
    if what.rcode:
        parts = [f"RCode: {_RCODES.get(what.rcode, f'Unknown ({what.rcode})')}"]
    return f"DNS Answer {' '.join(parts)} TTL: {what.ttl} (Proxy {what.query} {types})"


def _http(flow: Flow, what: Http, request: Request) -> str:
    http = flow.l7.http
    http.code, http.method, http.url, http.protocol = what.status, what.method, what.url, what.protocol
    for key, value in what.headers:
        http.headers.add(key=key, value=value)
    if not request.answer:
        return f"{what.protocol} {what.method} {what.url}"
    return f"{what.protocol} {what.status} {request.latency // 1_000_000}ms ({what.method} {what.url})"
