"""The words that label values are made of, as Cilium's handlers print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import Flow

#: `event_type.type`.
DROP, CAPTURE, TRACE, POLICY_VERDICT, L7 = 1, 3, 4, 5, 129

#: `event_type.sub_type` of traces, which are numbered as in the datapath, not as `TraceObservationPoint`.
TRACE_POINTS: Final = (
    "to-endpoint", "to-proxy", "to-host", "to-stack", "to-overlay", "from-endpoint", "from-proxy", "from-host",
    "from-stack", "from-overlay", "from-network", "to-network", "from-crypto", "to-crypto",
)  # fmt: skip

#: `policy_match_type`.
MATCHES: Final = ("none", "l3-only", "l3-l4", "l4-only", "all", "l3-proto", "proto-only")

#: DNS response codes (the IANA registry "DNS RCODEs"), in the words of Cilium's parser.
RCODES: Final[Mapping[int, str]] = {
    0: "No Error",
    1: "Format Error",
    2: "Server Failure",
    3: "Non-Existent Domain",
    4: "Not Implemented",
    5: "Query Refused",
    6: "Name Exists when it should not",
    7: "RR Set Exists when it should not",
    8: "RR Set that should exist does not",
    9: "Server Not Authoritative for zone",
    10: "Name not contained in zone",
}

# Types and codes of RFC 792, 950, 1256, 1812; a type without codes has no second part.
_ICMP4: Final[Mapping[int, tuple[str, Mapping[int, str] | None]]] = {
    0: ("EchoReply", None),
    3: ("DestinationUnreachable", dict(enumerate((
        "Net", "Host", "Protocol", "Port", "FragmentationNeeded", "SourceRoutingFailed", "NetUnknown", "HostUnknown",
        "SourceIsolated", "NetAdminProhibited", "HostAdminProhibited", "NetTOS", "HostTOS", "CommAdminProhibited",
        "HostPrecedence", "PrecedenceCutoff",
    )))),
    4: ("SourceQuench", None),
    5: ("Redirect", dict(enumerate(("Net", "Host", "TOS+Net", "TOS+Host")))),
    8: ("EchoRequest", None),
    9: ("RouterAdvertisement", None),
    10: ("RouterSolicitation", None),
    11: ("TimeExceeded", dict(enumerate(("TTLExceeded", "FragmentReassemblyTimeExceeded")))),
    12: ("ParameterProblem", dict(enumerate(("PointerIndicatesError", "MissingOption", "BadLength")))),
    13: ("TimestampRequest", None),
    14: ("TimestampReply", None),
    15: ("InfoRequest", None),
    16: ("InfoReply", None),
    17: ("AddressMaskRequest", None),
    18: ("AddressMaskReply", None),
}  # fmt: skip

# RFC 4443 and 4861.
_ICMP6: Final[Mapping[int, tuple[str, Mapping[int, str] | None]]] = {
    1: ("DestinationUnreachable", dict(enumerate((
        "NoRouteToDst", "AdminProhibited", "BeyondScopeOfSrc", "AddressUnreachable", "PortUnreachable",
        "SrcAddressFailedPolicy", "RejectRouteToDst",
    )))),
    2: ("PacketTooBig", None),
    3: ("TimeExceeded", dict(enumerate(("HopLimitExceeded", "FragmentReassemblyTimeExceeded")))),
    4: ("ParameterProblem", dict(enumerate((
        "ErroneousHeaderField", "UnrecognizedNextHeader", "UnrecognizedIPv6Option",
    )))),
    128: ("EchoRequest", None),
    129: ("EchoReply", None),
    133: ("RouterSolicitation", None),
    134: ("RouterAdvertisement", None),
    135: ("NeighborSolicitation", None),
    136: ("NeighborAdvertisement", None),
    137: ("Redirect", None),
}  # fmt: skip


def icmp_type(kind: int, code: int, *, ipv6: bool) -> str:
    """`EchoRequest`, `DestinationUnreachable(Port)`; `TYPE(CODE)` in numbers for what has no name."""
    name, codes = (_ICMP6 if ipv6 else _ICMP4).get(kind, ("", None))
    if not name:
        return f"{kind}({code})"
    if codes is None and code == 0:
        return name
    return f"{name}({(codes or {}).get(code, f'Code: {code}')})"


def l7_protocol(flow: Flow) -> str:
    """DNS, HTTP, Kafka, or an empty text."""
    return {"dns": "DNS", "http": "HTTP", "kafka": "Kafka"}.get(flow.l7.WhichOneof("record") or "", "")


def l4_protocol(flow: Flow) -> str:
    """TCP, UDP, SCTP, ICMPv4, ICMPv6, or an empty text."""
    return str(flow.l4.WhichOneof("protocol") or "")


def protocol(flow: Flow) -> str:
    """What `protocol` says: the application's protocol for layer 7, the transport's for what is about packets."""
    kind = flow.event_type.type
    if kind == L7:
        return l7_protocol(flow) or "Unknown L7"
    if kind in (DROP, CAPTURE, TRACE, POLICY_VERDICT):
        return l4_protocol(flow) or "Unknown L4"
    return "Unknown flow"


def event(flow: Flow) -> tuple[str, str]:
    """Type and subtype of an event."""
    kind, sub = flow.event_type.type, flow.event_type.sub_type
    if kind == L7:
        return "L7", l7_protocol(flow)
    if kind == DROP:
        return "Drop", ""
    if kind == CAPTURE:
        return "Capture", capture_point(sub)
    if kind == TRACE:
        return "Trace", TRACE_POINTS[sub] if 0 <= sub < len(TRACE_POINTS) else str(sub)
    if kind == POLICY_VERDICT:
        return "PolicyVerdict", ""
    return "Unknown", str(kind)


def capture_point(number: int) -> str:
    from axoneme.plugins.hubble.proto.flow_pb2 import DebugCapturePoint

    return enum_name(DebugCapturePoint, number)


def enum_name(enum: object, number: int) -> str:
    """The name of a protobuf enum's value, or the number if a newer sender knows more names."""
    try:
        return str(enum.Name(number))  # type: ignore[attr-defined]
    except ValueError:
        return str(number)


def reporter(flow: Flow) -> str:
    """Whose proxy or datapath saw it."""
    return {1: "server", 2: "client"}.get(flow.traffic_direction, "unknown")
