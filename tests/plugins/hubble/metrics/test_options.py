"""What administrators write for handlers, and what they are told when it is wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.errors import ConfigError
from axoneme.plugins.hubble.metrics.names import icmp_type
from axoneme.plugins.hubble.metrics.options import HANDLERS, Contexts, parse


def test_everything_that_can_be_said() -> None:
    (dns, drop) = parse(
        [
            "dns:query;ignoreaaaa;SOURCECONTEXT=pod|ip drop:labelsContext=destination_ip,source_pod;destinationIngressContext=app"
        ]
    )
    assert dns.flags == {"query", "ignoreAAAA"}
    assert dns.contexts == Contexts(source=("pod", "ip"))
    assert drop.contexts == Contexts(destination_ingress=("app",), labels=("source_pod", "destination_ip"))
    assert [one.name for one in parse(HANDLERS.keys() - {"http"})] != []
    assert parse(["httpV2:exemplars=true"])[0].flags == {"exemplars"}
    assert parse(["httpV2:exemplars=false"])[0].flags == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drp", "there is no metrics handler 'drp'.*did you mean drop?"),
        ("sctp", "there is no metrics handler 'sctp'"),
        ("drop:query", "has no option 'query'"),
        ("drop:sourceContext=pods", "sourceContext=pods, which is unknown.*did you mean pod?"),
        ("drop:sourceContext", "which is unknown"),
        ("drop:labelsContext=source_port", "which is unknown"),
        ("drop drop", "given twice"),
        ("http httpV2", "http conflicts with httpV2"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse([text])


@given(st.text(alphabet="abdhpqrsty:;=|, DNSV2Cont\n", max_size=40))
def test_any_text_is_parsed_or_explained(text: str) -> None:
    try:
        names = [handler.name for handler in parse([text])]
    except ConfigError as error:
        assert error.message  # noqa: PT017 - either is fine
    else:
        assert set(names) <= set(HANDLERS)


@pytest.mark.parametrize(
    ("kind", "code", "ipv6", "text"),
    [
        (8, 0, False, "EchoRequest"), (3, 3, False, "DestinationUnreachable(Port)"), (8, 1, False, "EchoRequest(Code: 1)"),
        (3, 99, False, "DestinationUnreachable(Code: 99)"), (200, 1, False, "200(1)"), (135, 0, True, "NeighborSolicitation"),
        (1, 4, True, "DestinationUnreachable(PortUnreachable)"), (3, 0, True, "TimeExceeded(HopLimitExceeded)"),
    ],
)  # fmt: skip
def test_icmp(kind: int, code: int, ipv6: bool, text: str) -> None:
    assert icmp_type(kind, code, ipv6=ipv6) == text
