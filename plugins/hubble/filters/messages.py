"""Filter fields that need the message itself: layer 7, traces, UUIDs. Only flows that columns let through are looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import numpy as np

from axoneme.plugins.hubble.columns import Array, Has, View
from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.filters.patterns import regular, status_code
from axoneme.plugins.hubble.filters.predicates import L7, Predicate, address_test, any_of, equal
from axoneme.plugins.hubble.uuids import Uuids, parse

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter, HTTPHeader

#: A test of one flow.
FlowTest = Callable[["Flow"], bool]
#: What can match at all, as a mask, and the test of those.
Test = tuple[Predicate, FlowTest]

_L7_EVENT: Final = 129
_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")

_http: Predicate = equal("l7", [L7["http"]])
_dns: Predicate = equal("l7", [L7["dns"]])


def _message(view: View) -> Array:
    mask: Array = (view["has"] & np.uint8(Has.MESSAGE)) != 0
    return mask


def dns_query(patterns: Iterable[str]) -> Test:
    tests = [regular(pattern, "DNS query") for pattern in patterns]
    return _dns, lambda flow: any(test(flow.l7.dns.query) for test in tests)


def http(each: FlowFilter) -> list[Test]:
    """The fields that speak of HTTP, which have to be about `l7` events, if about any in particular.

    :raises RequestError: when they are not, or one is wrong.
    """
    tests: list[FlowTest] = []
    if each.http_status_code:
        tests.append(_status(each.http_status_code))
    if each.http_method:
        methods = {method.lower() for method in each.http_method}
        tests.append(lambda flow: flow.l7.http.method.lower() in methods)
    if each.http_path:
        paths = [regular(pattern, "http path") for pattern in each.http_path]
        tests.append(
            lambda flow: (
                any(test(path) for test in paths)
                if (path := url_path(flow.l7.http.url)) is not None
                else False
            )
        )
    if each.http_url:
        urls = [regular(pattern, "http url") for pattern in each.http_url]
        tests.append(lambda flow: any(test(flow.l7.http.url) for test in urls))
    if each.http_header:
        tests.append(_headers(each.http_header))
    if tests and each.event_type and all(kind.type != _L7_EVENT for kind in each.event_type):
        raise RequestError("filtering by http requires the event type filter to only match 'l7' events")
    return [(_http, test) for test in tests]


def _status(patterns: Iterable[str]) -> FlowTest:
    codes = [status_code(pattern) for pattern in patterns]
    return lambda flow: any(code(flow.l7.http.code) for code in codes)


def _headers(headers: Sequence[HTTPHeader]) -> FlowTest:
    wanted = {(header.key, header.value) for header in headers}
    return lambda flow: any((header.key, header.value) in wanted for header in flow.l7.http.headers)


def url_path(url: str) -> str | None:
    """The path of a URL, unescaped; None when it is none."""
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    if (
        any(ord(char) < 0x20 or char == "\x7f" for char in url)
        or url.startswith(":")
        or _ESCAPE.search(parts.path)
    ):
        return None
    return unquote(parts.path)


def trace_id(values: Iterable[str]) -> Test:
    wanted = set(values)
    return _message, lambda flow: flow.trace_context.parent.trace_id in wanted


def ip_trace_id(values: Iterable[int]) -> Test:
    wanted = set(values)
    return _message, lambda flow: flow.HasField("ip_trace_id") and flow.ip_trace_id.trace_id in wanted


def encrypted(values: Iterable[bool]) -> Test:
    """A flow without addresses is not encrypted, nor is one of this node's datapath."""
    wanted = set(values)
    return (lambda view: np.ones(len(view), bool)) if False in wanted else _message, (
        lambda flow: flow.IP.encrypted in wanted
    )


def source_ip_xlated(values: Iterable[str]) -> Test:
    test = address_test("source ip xlated", values)
    return _message, lambda flow: test(flow.IP.source_xlated)


def uuid(values: Iterable[str], uuids: Uuids | None) -> Predicate:
    """:param uuids: of the flows that did not come as messages."""
    texts = set(values)
    wanted = [halves for text in texts if (halves := parse(text)) is not None] if uuids else []

    def mask(view: View) -> Array:
        own = _message(view)
        found = np.zeros(len(view), bool)
        if wanted and uuids:
            high, low = uuids.halves(view.seeds())
            found = any_of([(high == one) & (low == other) for one, other in wanted], len(view)) & ~own
        places = np.flatnonzero(own)
        wire = [text.encode() for text in texts]
        kept = [view.messages[view.start + place] for place in places.tolist()]
        # A message without these bytes has no such UUID; it needs not be read.
        places = places[[any(text in each for text in wire) for each in kept]] if kept else places
        if len(places):
            found[places] = [flow.uuid in texts for flow in messages(view, places)]
        return found

    return mask


def messages(view: View, places: Array) -> list[Flow]:
    """The flows at these places, which came as messages."""
    from axoneme.plugins.hubble.proto.flow_pb2 import Flow

    return [Flow.FromString(view.messages[view.start + place]) for place in places.tolist()]
