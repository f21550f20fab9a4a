"""Parsing of what a rule opens: toPorts, icmps, and the layer 7 rules that a proxy has to enforce there."""

from __future__ import annotations

import json
import re
from typing import Any

from axoneme.plugins.policy.fields import Field
from axoneme.plugins.policy.model import L7, TRANSPORTS, Direction, PortRule, Ports, Protocol
from axoneme.plugins.policy.peers import Scope

MAX_PORTS = 40
#: Redirect priorities of the parsers (a lower number takes the redirect), as in Cilium's `pkg/policy/l4.go`.
PRIORITIES = {"http": 101, "kafka": 106, "tls": 116, "dns": 121, "crd": 126}
OTHER_PRIORITY = 111

_PROTOCOLS = {"tcp": (Protocol.TCP,), "udp": (Protocol.UDP,), "sctp": (Protocol.SCTP,), "any": TRANSPORTS}
_SERVICE = re.compile(r"(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
_RULE_FIELDS = ("ports", "rules", "terminatingTLS", "originatingTLS", "serverNames", "listener")

_ICMP4 = {
    "EchoReply": 0,
    "DestinationUnreachable": 3,
    "Redirect": 5,
    "Echo": 8,
    "EchoRequest": 8,
    "RouterAdvertisement": 9,
    "RouterSelection": 10,
    "TimeExceeded": 11,
    "ParameterProblem": 12,
    "Timestamp": 13,
    "TimestampReply": 14,
    "Photuris": 40,
    "ExtendedEchoRequest": 42,
    "ExtendedEchoReply": 43,
}
_ICMP6 = {
    "DestinationUnreachable": 1,
    "PacketTooBig": 2,
    "TimeExceeded": 3,
    "ParameterProblem": 4,
    "EchoRequest": 128,
    "EchoReply": 129,
    "MulticastListenerQuery": 130,
    "MulticastListenerReport": 131,
    "MulticastListenerDone": 132,
    "RouterSolicitation": 133,
    "RouterAdvertisement": 134,
    "NeighborSolicitation": 135,
    "NeighborAdvertisement": 136,
    "RedirectMessage": 137,
    "RouterRenumbering": 138,
    "ICMPNodeInformationQuery": 139,
    "ICMPNodeInformationResponse": 140,
    "InverseNeighborDiscoverySolicitation": 141,
    "InverseNeighborDiscoveryAdvertisement": 142,
    "HomeAgentAddressDiscoveryRequest": 144,
    "HomeAgentAddressDiscoveryReply": 145,
    "MobilePrefixSolicitation": 146,
    "MobilePrefixAdvertisement": 147,
    "DuplicateAddressRequestCodeSuffix": 157,
    "DuplicateAddressConfirmationCodeSuffix": 158,
    "ExtendedEchoRequest": 160,
    "ExtendedEchoReply": 161,
}


def port_rule(item: Field, direction: Direction, scope: Scope) -> PortRule:
    """An element of an allow rule's toPorts."""
    parts = item.mapping(_RULE_FIELDS)
    ports = _port_list(parts)
    l7 = _l7(item, parts, direction, scope)
    if l7 is not None:
        _check_l7_ports(parts, l7, direction)
    return PortRule(ports, l7)


def deny_port_rule(item: Field, scope: Scope) -> PortRule:
    """An element of a deny rule's toPorts: it can only have ports, and denies them whatever they carry."""
    return PortRule(_port_list(item.mapping(("ports",) if scope.schema else _RULE_FIELDS)))


def _port_list(parts: dict[str, Field]) -> tuple[Ports, ...]:
    if "ports" not in parts:
        return ()
    return tuple(one for item in parts["ports"].sequence(MAX_PORTS) for one in port_protocol(item))


def port_protocol(item: Field) -> tuple[Ports, ...]:
    """A `{port, endPort, protocol}` of the Cilium kinds; `ANY` and no protocol give one range per transport."""
    parts = item.mapping(("port", "endPort", "protocol"))
    text = parts["port"].string() if "port" in parts else ""
    if not text:
        item.fail("port must be given", 'port "0" stands for all ports')
    end = parts["endPort"].integer(0, 65535) if "endPort" in parts else 0
    protocols: tuple[Protocol, ...] = TRANSPORTS
    if "protocol" in parts:
        name = parts["protocol"].string().lower()
        if name not in _PROTOCOLS:
            parts["protocol"].fail(f"must be one of TCP, UDP, SCTP and ANY, but is {name.upper()!r}")
        protocols = _PROTOCOLS[name]
    return tuple(_ports(parts["port"], text, end, protocol) for protocol in protocols)


def _ports(item: Field, text: str, end: int, protocol: Protocol) -> Ports:
    if text.isascii() and text.isdigit():
        first = int(text) if len(text) <= 8 else 1 << 20
        if first > 65535:
            item.fail(f"must lie in 0 to 65535, but is {text}")
        return Ports(protocol, first, end if end > first else first)
    return Ports(protocol, name=service_name(item))


def service_name(item: Field) -> str:
    """A port's name, in lower case (RFC 6335 section 5.1)."""
    text = item.string()
    if not _SERVICE.fullmatch(text.lower()):
        item.fail(f"{text!r} is neither a port number nor a port name")
    return text.lower()


def icmps(item: Field) -> tuple[PortRule, ...]:
    """The icmps of a rule: types stand where ports stand, and type 0 (the wildcard of the tables) covers all."""
    rules = []
    for one in item.sequence():
        parts = one.mapping(("fields",))
        fields = parts["fields"].sequence(MAX_PORTS) if "fields" in parts else []
        rules.append(PortRule(tuple(_icmp_field(field) for field in fields)))
    return tuple(rules)


def _icmp_field(item: Field) -> Ports:
    parts = item.mapping(("family", "type"))
    if "type" not in parts:
        item.fail("needs 'type'")
    family = parts["family"].one_of(("IPv4", "IPv6")) if "family" in parts else "IPv4"
    names = _ICMP4 if family == "IPv4" else _ICMP6
    value = parts["type"].value
    if isinstance(value, str) and not value.isdigit():
        number = names[parts["type"].one_of(names)]
    else:
        number = int(value[:8]) if isinstance(value, str) else parts["type"].integer(0, 255)
    if number > 255:
        parts["type"].fail(f"must lie in 0 to 255, but is {value}")
    return Ports(Protocol.ICMP if family == "IPv4" else Protocol.ICMPV6, number, number)


def _l7(item: Field, parts: dict[str, Field], direction: Direction, scope: Scope) -> L7 | None:
    kind, rules = _l7_rules(parts["rules"]) if "rules" in parts else ("", ())
    context = _context(parts)
    if "serverNames" in parts and parts["serverNames"].value and kind and "terminatingTLS" not in parts:
        item.fail("serverNames together with layer 7 rules need terminatingTLS")
    if "listener" in parts:
        return _listener(parts["listener"], kind, context, direction, scope)
    if not kind and not context:
        return None
    kind = kind or "tls"
    return L7(kind, rules, priority=PRIORITIES.get(kind, OTHER_PRIORITY), context=context)


def _context(parts: dict[str, Field]) -> tuple[str, ...]:
    context = []
    for name in ("terminatingTLS", "originatingTLS"):
        if name in parts:
            parts[name].mapping(("secret", "trustedCA", "certificate", "privateKey"))
            context.append(_canonical({name: parts[name].value}))
    if "serverNames" in parts and (names := [one.string() for one in parts["serverNames"].sequence()]):
        context.append(_canonical({"serverNames": sorted(names)}))
    return tuple(context)


def _listener(item: Field, kind: str, context: tuple[str, ...], direction: Direction, scope: Scope) -> L7:
    parts = item.mapping(("envoyConfig", "name", "priority"))
    if "envoyConfig" not in parts or "name" not in parts:
        item.fail("needs 'envoyConfig' and 'name'")
    if direction is Direction.INGRESS:
        item.fail("a listener can only stand in egress rules")
    if kind:
        item.fail("a listener excludes layer 7 rules")
    config = parts["envoyConfig"].mapping(("kind", "name"))
    config_kind = "CiliumEnvoyConfig"
    if "kind" in config:
        config_kind = config["kind"].one_of(("CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig"))
    if "name" not in config:
        parts["envoyConfig"].fail("needs 'name'")
    owner = scope.namespace if config_kind == "CiliumEnvoyConfig" else ""
    name = f"{owner}/{config['name'].string()}/{parts['name'].string()}"
    priority = parts["priority"].integer(0, 100) if "priority" in parts else 0
    return L7("crd", listener=name, priority=priority or PRIORITIES["crd"], context=context)


def _l7_rules(item: Field) -> tuple[str, tuple[str, ...]]:
    """Kind and canonical rules; the kind is empty when there is no rule."""
    parts = item.mapping(("http", "kafka", "dns", "l7proto", "l7"))
    kinds: list[str] = [name for name in ("http", "kafka", "dns") if name in parts and parts[name].sequence()]
    if "l7proto" in parts and (protocol := parts["l7proto"].string()):
        kinds.append(protocol)
    elif "l7" in parts and parts["l7"].sequence():
        item.fail("'l7' needs 'l7proto'")
    if len(kinds) > 1:
        item.fail("can only hold one kind of layer 7 rules", "use one element of toPorts per kind")
    if not kinds:
        return "", ()
    kind = kinds[0]
    source = parts.get(kind, parts.get("l7"))
    checks = {"http": _http, "dns": _dns, "kafka": _kafka}
    elements = source.sequence() if source else []
    return kind, tuple(sorted({_canonical(checks.get(kind, _plain)(one)) for one in elements}))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)


def _http(item: Field) -> Any:
    parts = item.mapping(("method", "path", "host", "headers", "headerMatches"))
    for name in ("method", "path", "host"):
        if name in parts:
            _regex(parts[name])
    if "headers" in parts:
        for one in parts["headers"].sequence():
            one.string()
    for one in parts["headerMatches"].sequence() if "headerMatches" in parts else ():
        fields = one.mapping(("name", "value", "secret", "mismatch"))
        if "name" not in fields:
            one.fail("needs 'name'")
    return item.value


#: What RE2, the proxy's engine, does not have; and what it has that Python writes differently or not at all.
_NOT_RE2 = re.compile(r"(?<!\\)(\\\\)*(\(\?<?[=!]|\(\?P=|\\[1-9])")
_ONLY_RE2 = re.compile(r"\\[pP](\{\^?\w+\}|\w)|\[\[:\^?\w+:\]\]|\\z")


def _regex(item: Field) -> None:
    """A regular expression as RE2 reads it (https://github.com/google/re2/wiki/Syntax), as far as can be told here."""
    text = item.string()
    if _NOT_RE2.search(text):
        item.fail(f"invalid regular expression {text!r}: it looks around or back, which the proxy cannot")
    try:
        re.compile(_ONLY_RE2.sub("x", text))
    except (re.error, OverflowError, RecursionError) as error:
        item.fail(f"invalid regular expression {text!r}: {error}")


def _dns(item: Field) -> Any:
    parts = item.mapping(("matchName", "matchPattern"))
    if len(parts) != 1:
        item.fail("needs exactly one of matchName and matchPattern")
    ((_, value),) = parts.items()
    if not re.fullmatch(r"[-a-zA-Z0-9_.*]+", value.string()):
        value.fail(f"{value.value!r} is not a DNS name or pattern")
    return item.value


def _kafka(item: Field) -> Any:
    item.mapping(("role", "apiKey", "apiVersion", "clientID", "topic"))
    return item.value


def _plain(item: Field) -> Any:
    for value in item.mapping().values():
        value.string()
    return item.value


def _check_l7_ports(parts: dict[str, Field], l7: L7, direction: Direction) -> None:
    if l7.kind == "dns" and direction is Direction.INGRESS:
        parts["rules"].fail("dns rules can only stand in egress rules")
    if "rules" not in parts or l7.kind in ("tls", "crd"):
        return
    for item in parts["ports"].sequence() if "ports" in parts else ():
        for ports in port_protocol(item):
            if ports.first == 0 and not ports.name:
                item.fail("layer 7 rules need a port other than 0")
            if l7.kind != "dns" and ports.protocol is not Protocol.TCP:
                item.fail("layer 7 rules other than dns need protocol TCP", "write 'protocol: TCP'")
            if l7.kind == "dns" and ports.last > ports.first:
                item.fail("dns rules cannot have a port range")
