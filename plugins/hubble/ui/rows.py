"""A flow as a row of the table: the little that people scan, as JSON-like values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from axoneme.plugins.hubble.ui.parties import party

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import Endpoint, Flow, Policy

_DIRECTIONS: Final = {1: "ingress", 2: "egress"}
_POLICY_VERDICT: Final = 5


def row(number: int, flow: Flow) -> dict[str, Any]:
    """One row.

    :param number: of the flow in the ring, by which the rest of it is asked for.
    """
    from axoneme.plugins.hubble.proto.flow_pb2 import Verdict

    protocol = flow.l4.WhichOneof("protocol") or ""
    ports = getattr(flow.l4, protocol) if protocol in ("TCP", "UDP", "SCTP") else None
    return {
        "n": number,
        "t": flow.time.ToMilliseconds(),
        "verdict": _name(Verdict, flow.verdict).lower(),
        "reason": _reason(flow),
        "source": _end(flow.source, flow.IP.source, ports.source_port if ports else 0, flow.source_names),
        "destination": _end(
            flow.destination,
            flow.IP.destination,
            ports.destination_port if ports else 0,
            flow.destination_names,
        ),
        "protocol": (flow.l7.WhichOneof("record") or protocol).upper().replace("KAFKA", "Kafka"),
        "summary": summary(flow),
        "reply": flow.is_reply.value,
        "direction": _DIRECTIONS.get(flow.traffic_direction, ""),
        "policies": policies(flow),
    }


def _end(endpoint: Endpoint, ip: str, port: int, names: Any) -> dict[str, Any]:
    who = party(endpoint)
    outside = who.kind in ("world", "cidr") and len(names) > 0
    return {
        "id": f"name:{names[0]}" if outside else who.id,
        "kind": "name" if outside else who.kind,
        "name": names[0] if outside else who.name,
        "namespace": who.namespace,
        "ip": ip,
        "port": port,
    }


def _reason(flow: Flow) -> str:
    from axoneme.core.datapath.reasons import BY_NUMBER
    from axoneme.plugins.hubble.drop_texts import TEXTS

    number = flow.drop_reason_desc
    if not number:
        return ""
    known = BY_NUMBER.get(number)
    return TEXTS.get(number) or (known.text if known else f"reason {number}")


def summary(flow: Flow) -> str:
    """What the flow says, in a few words."""
    kind = flow.l7.WhichOneof("record")
    if kind == "http":
        http = flow.l7.http
        code = f" → {http.code}" if http.code else ""
        return f"{http.method} {http.url}{code}{_latency(flow)}"
    if kind == "dns":
        dns = flow.l7.dns
        answer = f" → {', '.join(dns.ips)}" if dns.ips else ""
        return f"{','.join(dns.qtypes)} {dns.query}{answer}{_latency(flow)}"
    if kind == "kafka":
        return f"{flow.l7.kafka.api_key} {flow.l7.kafka.topic}"
    said = str(flow.Summary)
    return f"policy verdict; {said}" if flow.event_type.type == _POLICY_VERDICT else said


def _latency(flow: Flow) -> str:
    return f" in {flow.l7.latency_ns / 1e6:.1f} ms" if flow.l7.latency_ns else ""


def policies(flow: Flow) -> list[str]:
    """NAMESPACE/NAME of the policies that decided it."""
    found: dict[str, None] = {}
    for field in ("egress_denied_by", "ingress_denied_by", "egress_allowed_by", "ingress_allowed_by"):
        for policy in getattr(flow, field):
            found[_policy(policy)] = None
    return list(found)


def _policy(policy: Policy) -> str:
    return f"{policy.namespace}/{policy.name}" if policy.namespace else policy.name


def _name(enum: Any, number: int) -> str:
    try:
        return str(enum.Name(number))
    except ValueError:
        return str(number)
