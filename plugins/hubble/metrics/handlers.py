"""What each handler counts: from a flow to the series that it raises.

A handler is a function of the flow alone. So a flow can stand for all flows like it: `plan` is asked once for each distinct
one, and what it answers is applied as many times as there were.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from axoneme.plugins.hubble.metrics import contexts, names
from axoneme.plugins.hubble.metrics.options import HandlerOptions
from axoneme.plugins.hubble.metrics.series import Cell, Counter, Distribution, Family, Labels

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import Flow

#: `Verdict` and others of the enums, which are not worth an import where only numbers are compared.
FORWARDED, DROPPED, REDIRECTED = 1, 2, 5
POLICY_DENIED = 133
REQUEST, RESPONSE = 1, 2
HOST_IDENTITY = 1


class Handler(ABC):
    """One configured handler.

    :ivar families: its metrics.
    """

    name: ClassVar[str]

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        self.options = options
        self._limit = limit
        self._context_labels = contexts.names(options.contexts)
        self.families: list[Family] = []

    def counter(self, name: str, text: str, *labels: str) -> Family:
        return self._family(Family(name, text, (*labels, *self._context_labels), Counter, self._limit))

    def histogram(self, name: str, text: str, *labels: str) -> Family:
        return self._family(Family(name, text, (*labels, *self._context_labels), Distribution, self._limit))

    def _family(self, family: Family) -> Family:
        self.families.append(family)
        return family

    def plan(self, flow: Flow) -> Iterator[Cell]:
        """The series that a flow raises by one each; of histograms, by its latency."""
        for family, values in self.updates(flow):
            yield family.cell(values)

    @property
    def open_ended(self) -> bool:
        """Whether strangers can make ever new label values: by their addresses, names, or ports."""
        contexts = self.options.contexts
        named = contexts.identifiers("source") | contexts.identifiers("destination")
        ips = named & {"ip", "dns"} or {"source_ip", "destination_ip"} & set(contexts.labels)
        return bool(ips) or "port" in self.options.flags or self.name == "port-distribution"

    @abstractmethod
    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        """The metrics that a flow raises, with all label values."""

    def context(self, flow: Flow, *, swapped: bool = False) -> Labels:
        return contexts.values(self.options.contexts, flow, swapped=swapped)


class FlowHandler(Handler):
    name = "flow"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        self._flows = self.counter(
            "hubble_flows_processed_total", "Flows seen", "protocol", "type", "subtype", "verdict"
        )

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        from axoneme.plugins.hubble.proto.flow_pb2 import Verdict

        verdict = names.enum_name(Verdict, flow.verdict)
        yield self._flows, (names.protocol(flow), *names.event(flow), verdict, *self.context(flow))


class DropHandler(Handler):
    name = "drop"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        self._drops = self.counter("hubble_drop_total", "Flows dropped, by reason", "reason", "protocol")

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        from axoneme.plugins.hubble.proto.flow_pb2 import DropReason

        if flow.verdict == DROPPED:
            reason = names.enum_name(DropReason, flow.drop_reason_desc)
            yield self._drops, (reason, names.protocol(flow), *self.context(flow))


class TcpHandler(Handler):
    name = "tcp"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        self._flags = self.counter("hubble_tcp_flags_total", "TCP flags seen", "flag", "family")

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        if flow.verdict not in (FORWARDED, REDIRECTED) or not flow.l4.TCP.HasField("flags"):
            return
        flags, rest = flow.l4.TCP.flags, (family(flow), *self.context(flow))
        if flags.FIN:
            yield self._flags, ("FIN", *rest)
        if flags.SYN:
            yield self._flags, ("SYN-ACK" if flags.ACK else "SYN", *rest)
        if flags.RST:
            yield self._flags, ("RST", *rest)


class PortDistributionHandler(Handler):
    name = "port-distribution"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        self._ports = self.counter(
            "hubble_port_distribution_total", "Flows by destination port", "protocol", "port"
        )

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        if (
            flow.verdict not in (FORWARDED, REDIRECTED)
            or not flow.HasField("is_reply")
            or flow.is_reply.value
        ):
            return
        if protocol := names.l4_protocol(flow):
            yield self._ports, (protocol, port(flow) or "0", *self.context(flow))


class IcmpHandler(Handler):
    name = "icmp"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        self._icmp = self.counter("hubble_icmp_total", "ICMP messages", "family", "type")

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        protocol = names.l4_protocol(flow)
        if protocol in ("ICMPv4", "ICMPv6"):
            ipv6 = protocol == "ICMPv6"
            message = flow.l4.ICMPv6 if ipv6 else flow.l4.ICMPv4
            kind = names.icmp_type(message.type, message.code, ipv6=ipv6)
            yield self._icmp, ("IPv6" if ipv6 else "IPv4", kind, *self.context(flow))


class PolicyHandler(Handler):
    name = "policy"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        self._verdicts = self.counter(
            "hubble_policy_verdicts_total", "Policy verdicts", "direction", "match", "action"
        )

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        from axoneme.plugins.hubble.proto.flow_pb2 import TrafficDirection, Verdict

        if match := self._match(flow):
            direction = names.enum_name(TrafficDirection, flow.traffic_direction).lower()
            action = names.enum_name(Verdict, flow.verdict).lower()
            yield self._verdicts, (direction, match, action, *self.context(flow))

    def _match(self, flow: Flow) -> str:
        """What of the rule matched; empty for a flow that is no verdict of a policy."""
        kind = flow.event_type.type
        if kind == names.L7:
            protocol = names.l7_protocol(flow).lower()
            return f"l7/{protocol}" if protocol else ""
        if kind != names.POLICY_VERDICT or flow.source.identity == HOST_IDENTITY:
            return ""
        number = flow.policy_match_type
        return names.MATCHES[number] if number < len(names.MATCHES) else str(number)


class WorldHandler(Handler):
    name = "flows-to-world"

    def __init__(self, options: HandlerOptions, limit: int) -> None:
        super().__init__(options, limit)
        ports = ("port",) if "port" in options.flags else ()
        self._flows = self.counter(
            "hubble_flows_to_world_total", "Flows to the world", "protocol", "verdict", *ports
        )

    def updates(self, flow: Flow) -> Iterator[tuple[Family, Labels]]:
        from axoneme.plugins.hubble.proto.flow_pb2 import Verdict

        if self._wanted(flow):
            labels = [names.protocol(flow), names.enum_name(Verdict, flow.verdict)]
            if "port" in self.options.flags:
                labels.append(port(flow))
            yield self._flows, (*labels, *self.context(flow))

    def _wanted(self, flow: Flow) -> bool:
        world = any(label in _WORLD for label in flow.destination.labels)
        if not (world and flow.HasField("l4") and flow.HasField("event_type")):
            return False
        flags = self.options.flags
        dropped, reply = flow.verdict == DROPPED, flow.is_reply.value
        if dropped and "any-drop" not in flags and flow.drop_reason_desc != POLICY_DENIED:
            return False
        if not dropped and reply:
            return False
        return "syn-only" not in flags or (flow.l4.TCP.flags.SYN and not reply)


_WORLD = frozenset({"reserved:world", "reserved:world-ipv4", "reserved:world-ipv6"})


def family(flow: Flow) -> str:
    return {1: "IPv4", 2: "IPv6"}.get(flow.IP.ipVersion, "IP_NOT_USED")


def port(flow: Flow) -> str:
    """The destination port; empty for what has none."""
    protocol = names.l4_protocol(flow)
    if protocol not in ("TCP", "UDP", "SCTP"):
        return ""
    return str(getattr(flow.l4, protocol).destination_port)
