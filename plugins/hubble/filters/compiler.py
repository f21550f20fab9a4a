"""From the filters of a request to one object that masks views."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from attrs import frozen

from axoneme.plugins.hubble.columns import Array, View
from axoneme.plugins.hubble.filters import messages, predicates
from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.filters.labels import labels, selector
from axoneme.plugins.hubble.filters.messages import Test
from axoneme.plugins.hubble.filters.patterns import glob, namespaced, node
from axoneme.plugins.hubble.filters.predicates import Addresses, ByName, Decode, Predicate
from axoneme.plugins.hubble.ring import CHUNK

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import FlowFilter
    from axoneme.plugins.hubble.uuids import Uuids

#: Filters in a request, and values in a field: more are a mistake, or an attack.
MOST_FILTERS, MOST_VALUES = 256, 4096

#: CEL expressions in a filter.
MOST_EXPRESSIONS: Final = 16

_SLOW_CHUNK: Final = 128


@frozen
class _Term:
    """One FlowFilter."""

    predicates: Sequence[Predicate]
    tests: Sequence[Test]
    decode: Decode

    def mask(self, view: View) -> Array:
        mask = np.ones(len(view), bool)
        for predicate in self.predicates:
            mask = mask & predicate(view)
        for possible, _ in self.tests:
            mask = mask & possible(view)
        if self.tests:
            places = np.flatnonzero(mask)
            flows = self.decode(view, places)
            mask[places] = [all(test(flow) for _, test in self.tests) for flow in flows]
        return mask


@frozen
class Filter:
    """What a request wants to see."""

    allowed: Sequence[_Term]
    denied: Sequence[_Term]

    @property
    def chunk(self) -> int:
        """How many flows may be looked at before others get their turn: fewer where messages have to be made for it."""
        slow = any(term.tests for term in (*self.allowed, *self.denied))
        return _SLOW_CHUNK if slow else CHUNK

    def places(self, view: View) -> Array:
        """The places of a view whose flows pass."""
        if not self.allowed and not self.denied:
            return np.arange(len(view))
        return np.flatnonzero(self.mask(view))

    def mask(self, view: View) -> Array:
        """Whether each flow of a view passes."""
        mask = np.ones(len(view), bool)
        if self.allowed:
            mask = predicates.any_of([term.mask(view) for term in self.allowed], len(view))
        for term in self.denied:
            mask = mask & ~term.mask(view)
        return mask


def compiled(
    allowed: Iterable[FlowFilter] = (),
    denied: Iterable[FlowFilter] = (),
    *,
    decode: Decode = messages.messages,
    uuids: Uuids | None = None,
) -> Filter:
    """The filter of a request.

    :param decode: makes the messages of flows; by default they all came as messages.
    :param uuids: of the flows that did not.
    :raises RequestError: naming the first field that is wrong.
    """
    allowed, denied = list(allowed), list(denied)
    if len(allowed) + len(denied) > MOST_FILTERS:
        raise RequestError(f"{len(allowed) + len(denied)} filters in one request; at most {MOST_FILTERS}")
    expressions = sum(len(each.experimental.cel_expression) for each in (*allowed, *denied))
    if expressions > 2 * MOST_EXPRESSIONS:  # either side of a connection has its filter
        raise RequestError(f"{expressions} CEL expressions in one request; at most {2 * MOST_EXPRESSIONS}")
    return Filter(
        [_term(each, decode, uuids) for each in allowed], [_term(each, decode, uuids) for each in denied]
    )


def _term(each: FlowFilter, decode: Decode, uuids: Uuids | None) -> _Term:
    found: list[Predicate] = []
    tests: list[Test] = []
    for field, value in each.ListFields():
        if field.name == "experimental":
            tests += _expressions(value.cel_expression)
            continue
        if len(value) > MOST_VALUES:
            raise RequestError(f"{len(value)} values of {field.name} in one filter; at most {MOST_VALUES}")
        if field.name.startswith("http_"):
            continue
        made = _field(field.name, value, decode, uuids)
        if isinstance(made, tuple):
            tests.append(made)
        else:
            found.append(made)
    return _Term(found, [*tests, *messages.http(each)], decode)


def _expressions(texts: Sequence[str]) -> list[Test]:
    if not texts:
        return []
    from axoneme.plugins.hubble.filters.cel import expression

    if len(texts) > MOST_EXPRESSIONS:
        raise RequestError(f"{len(texts)} CEL expressions in one filter; at most {MOST_EXPRESSIONS}")
    expressions = [expression(text) for text in texts]
    return [(_everything, lambda flow: any(each(flow) for each in expressions))]


def _everything(view: View) -> Array:
    return np.ones(len(view), bool)


def _field(name: str, values: Any, decode: Decode, uuids: Uuids | None) -> Predicate | Test:
    end, _, rest = name.partition("_")
    if end in ("source", "destination") and rest in _OF_ENDS:
        return _OF_ENDS[rest](end, values)
    if name in ("source_ip", "destination_ip"):
        return Addresses(end, values, decode)
    if name == "uuid":
        return messages.uuid(values, uuids)
    if name in _TESTS:
        return _TESTS[name](values)
    if name in _FIELDS:
        return _FIELDS[name](values)
    raise RequestError(f"filtering by {name} is not supported")


def _either(tests: list[Callable[..., bool]]) -> Callable[..., bool]:
    return tests[0] if len(tests) == 1 else lambda *given: any(test(*given) for test in tests)


def _pod(end: str, values: Sequence[str]) -> Predicate:
    test = _either([namespaced(value) for value in values])
    return ByName("endpoints", end, lambda endpoint: test(endpoint.namespace, endpoint.pod_name))


def _service(end: str, values: Sequence[str]) -> Predicate:
    test = _either([namespaced(value) for value in values])
    return ByName("services", f"{end}_service", lambda service: test(service.namespace, service.name))


def _fqdn(end: str, values: Sequence[str]) -> Predicate:
    test = _either([glob(value, f"{end} fqdn") for value in values])
    return ByName("dns", f"{end}_names", lambda names: any(test(name) for name in names))


def _label(end: str, values: Sequence[str]) -> Predicate:
    test = _either([selector(value, f"{end} label") for value in values])
    return ByName("endpoints", end, lambda endpoint: test(labels(endpoint.labels)))


def _workload(end: str, values: Sequence[Any]) -> Predicate:
    wanted = [(value.name, value.kind) for value in values]

    def test(endpoint: Any) -> bool:
        return any(
            (not name or its.name == name) and (not kind or its.kind == kind)
            for its in endpoint.workloads
            for name, kind in wanted
        )

    return ByName("endpoints", end, test)


def _cluster(end: str, values: Sequence[str]) -> Predicate:
    wanted = set(values)
    if "" in wanted:
        raise RequestError("invalid filter, name must not be empty")
    return ByName("endpoints", end, lambda endpoint: endpoint.cluster_name in wanted)


def _identity(end: str, values: Sequence[int]) -> Predicate:
    wanted = set(values)
    return ByName("endpoints", end, lambda endpoint: endpoint.identity in wanted)


def _node_name(values: Sequence[str]) -> Predicate:
    test = _either([node(value) for value in values])
    return ByName("nodes", "node", lambda its: test(its.name))


def _node_labels(values: Sequence[str]) -> Predicate:
    """Of a node they have no source, so that a `:` in a selector asks for what no node has."""
    test = _either([selector(value, "node label") for value in values])
    return ByName("nodes", "node", lambda its: test([("", *text.partition("=")[::2]) for text in its.labels]))


def _interface(values: Sequence[Any]) -> Predicate:
    wanted = [(value.index, value.name) for value in values]

    def test(its: Any) -> bool:
        return any(
            (not index or its.index == index) and (not name or its.name == name) for index, name in wanted
        )

    return ByName("interfaces", "interface", test)


_OF_ENDS: Final[dict[str, Callable[[str, Any], Predicate]]] = {
    "pod": _pod, "service": _service, "fqdn": _fqdn, "label": _label, "workload": _workload,
    "cluster_name": _cluster, "identity": _identity, "port": predicates.port,
}  # fmt: skip
_TESTS: Final[dict[str, Callable[[Any], Test]]] = {
    "dns_query": messages.dns_query, "trace_id": messages.trace_id, "ip_trace_id": messages.ip_trace_id, "encrypted": messages.encrypted,
    "source_ip_xlated": messages.source_ip_xlated,
}  # fmt: skip
_FIELDS: Final[dict[str, Callable[[Any], Predicate]]] = {
    "verdict": lambda values: predicates.equal("verdict", values),
    "event_type": predicates.event_type,
    "protocol": predicates.protocol,
    "reply": predicates.reply,
    "tcp_flags": predicates.tcp_flags,
    "ip_version": predicates.ip_version,
    "traffic_direction": lambda values: predicates.equal("direction", values),
    "drop_reason_desc": predicates.drop_reason,
    "node_name": _node_name,
    "node_labels": _node_labels,
    "interface": _interface,
}
