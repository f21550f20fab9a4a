"""The text of a flow's `Summary`, which clients print as the last column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from axoneme.plugins.hubble.columns import Protocol

#: The flags of `flow.TCPFlags` by bit, and the order in which they are told.
FLAGS: Final = ("FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR", "NS")
_TOLD: Final = ("SYN", "ACK", "RST", "FIN", "PSH", "URG", "ECE", "CWR", "NS")

#: RFC 792, and the names that gopacket gives to them, as Cilium prints them.
_ICMP4: Final = {
    0: "EchoReply", 3: "DestinationUnreachable", 4: "SourceQuench", 5: "Redirect", 8: "EchoRequest",
    9: "RouterAdvertisement", 10: "RouterSolicitation", 11: "TimeExceeded", 12: "ParameterProblem",
    13: "TimestampRequest", 14: "TimestampReply", 15: "InfoRequest", 16: "InfoReply", 17: "AddressMaskRequest",
    18: "AddressMaskReply",
}  # fmt: skip
_ICMP4_CODES: Final = {
    3: ("Net", "Host", "Protocol", "Port", "FragmentationNeeded", "SourceRoutingFailed", "NetUnknown", "HostUnknown",
        "SourceIsolated", "NetAdminProhibited", "HostAdminProhibited", "NetTOS", "HostTOS", "CommAdminProhibited",
        "HostPrecedence", "PrecedenceCutoff"),
    5: ("Net", "Host", "TOS+Net", "TOS+Host"),
    11: ("TTLExceeded", "FragmentReassemblyTimeExceeded"),
    12: ("PointerIndicatesError", "MissingOption", "BadLength"),
}  # fmt: skip
#: RFC 4443 and 4861.
_ICMP6: Final = {
    1: "DestinationUnreachable", 2: "PacketTooBig", 3: "TimeExceeded", 4: "ParameterProblem", 128: "EchoRequest",
    129: "EchoReply", 130: "MLDv1MulticastListenerQueryMessage", 131: "MLDv1MulticastListenerReportMessage",
    132: "MLDv1MulticastListenerDoneMessage", 133: "RouterSolicitation", 134: "RouterAdvertisement",
    135: "NeighborSolicitation", 136: "NeighborAdvertisement", 137: "Redirect",
    143: "MLDv2MulticastListenerReportMessageV2",
}  # fmt: skip
_ICMP6_CODES: Final = {
    1: ("NoRouteToDst", "AdminProhibited", "BeyondScopeOfSrc", "AddressUnreachable", "PortUnreachable",
        "SrcAddressFailedPolicy", "RejectRouteToDst"),
    3: ("HopLimitExceeded", "FragmentReassemblyTimeExceeded"),
    4: ("ErroneousHeader", "UnrecognizedNextHeader", "UnrecognizedIPv6Option"),
}  # fmt: skip


def summary(protocol: int, flags: Iterable[str] | None, icmp: tuple[int, int], ip_version: int) -> str:
    """:param flags: names of TCP flags; None where only the protocol is known.
    :param icmp: type and code."""
    if protocol == Protocol.TCP:
        return "TCP" if flags is None else tcp_flags(flags)
    if protocol in (Protocol.ICMPV4, Protocol.ICMPV6):
        names, codes = (_ICMP4, _ICMP4_CODES) if protocol == Protocol.ICMPV4 else (_ICMP6, _ICMP6_CODES)
        return f"ICMPv{4 if protocol == Protocol.ICMPV4 else 6} {_icmp(*icmp, names, codes)}"
    if protocol == Protocol.NONE:
        return {1: "IPv4", 2: "IPv6"}.get(ip_version, "")
    return Protocol(protocol).name


def tcp_flags(flags: Iterable[str]) -> str:
    present = set(flags)
    return f"TCP Flags: {', '.join(name for name in _TOLD if name in present)}"


def _icmp(kind: int, code: int, names: dict[int, str], codes: dict[int, tuple[str, ...]]) -> str:
    if kind not in names:
        return f"{kind}({code})"
    known = codes.get(kind, ())
    if not known:
        return names[kind] if not code else f"{names[kind]}(Code: {code})"
    return f"{names[kind]}({known[code] if code < len(known) else f'Code: {code}'})"


def flag_names(bits: int) -> list[str]:
    return [name for place, name in enumerate(FLAGS) if bits >> place & 1]
