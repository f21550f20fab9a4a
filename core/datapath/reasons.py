"""Why packets are dropped: the numbers that the programs return and the words that people read.

Numbers, names and words are those of Cilium's `flow.DropReason` wherever it has the same reason, so that tools which
know those show the same. Ours begin at 300; plugins bring theirs by the hook `axoneme_drop_reasons`.
"""

from __future__ import annotations

from axoneme.core.records import DropReason


def _reason(number: int, name: str, text: str) -> DropReason:
    return DropReason(number=number, name=name, text=text)


#: Counter slots that are no drops: events lost because the ring was full, packets delivered, entries of the
#: connection table that programs took back, and connections that pass only because a policy is rehearsed.
LOST_EVENTS = 0
FORWARDED = 1
FORGOTTEN = 3
AUDITED = 4
SLOTS = {
    LOST_EVENTS: "LOST_EVENTS",
    FORWARDED: "FORWARDED",
    FORGOTTEN: "FORGOTTEN",
    AUDITED: "POLICY_AUDITED",
}

#: Reasons are below this; the counters have a slot for each, per direction.
LIMIT = 512

REASONS: tuple[DropReason, ...] = (
    _reason(132, "INVALID_SOURCE_IP", "Invalid source ip"),
    _reason(133, "POLICY_DENIED", "Policy denied"),
    _reason(134, "INVALID_PACKET_DROPPED", "Invalid packet"),
    _reason(140, "MISSED_TAIL_CALL", "Missed tail call"),
    _reason(142, "UNKNOWN_L4_PROTOCOL", "Unknown L4 protocol"),
    _reason(143, "UNKNOWN_ICMPV4_CODE", "Unknown ICMPv4 code"),
    _reason(145, "UNKNOWN_ICMPV6_CODE", "Unknown ICMPv6 code"),
    _reason(151, "STALE_OR_UNROUTABLE_IP", "Stale or unroutable IP"),
    _reason(154, "ERROR_WHILE_CORRECTING_L4_CHECKSUM", "Error while correcting L4 checksum"),
    _reason(155, "CT_MAP_INSERTION_FAILED", "CT: Map insertion failed"),
    _reason(156, "INVALID_IPV6_EXTENSION_HEADER", "Invalid IPv6 extension header"),
    _reason(166, "UNSUPPORTED_L2_PROTOCOL", "Unsupported L2 protocol"),
    _reason(167, "NO_MAPPING_FOR_NAT_MASQUERADE", "No mapping for NAT masquerade"),
    _reason(168, "UNSUPPORTED_PROTOCOL_FOR_NAT_MASQUERADE", "Unsupported protocol for NAT masquerade"),
    _reason(169, "FIB_LOOKUP_FAILED", "FIB lookup failed"),
    _reason(175, "FIRST_LOGICAL_DATAGRAM_FRAGMENT_NOT_FOUND", "First logical datagram fragment not found"),
    _reason(176, "FORBIDDEN_ICMPV6_MESSAGE", "Forbidden ICMPv6 message"),
    _reason(181, "POLICY_DENY", "Policy denied by denylist"),
    _reason(189, "AUTH_REQUIRED", "Authentication required"),
    _reason(195, "UNENCRYPTED_TRAFFIC", "Traffic is unencrypted"),
    _reason(196, "TTL_EXCEEDED", "TTL exceeded"),
    _reason(201, "MULTICAST_HANDLED", "Multicast handled"),
    _reason(203, "DROP_EP_NOT_READY", "Endpoint policy program not available"),
    _reason(300, "PROXY_ABSENT", "L7 proxy needed but absent"),
    _reason(301, "INVALID_NEIGHBOR", "Neighbor message with a foreign address"),
    _reason(302, "SOURCE_ROUTED", "Source route"),
)

BY_NUMBER = {reason.number: reason for reason in REASONS}
