"""CEL expressions: what they may cost, and what they do with what is not there."""

from __future__ import annotations

import pytest

from axoneme.plugins.hubble.filters.cel import expression
from axoneme.plugins.hubble.filters.compiler import compiled
from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter

FLOW = Flow(
    verdict=2,
    source={"labels": ["k8s:app=web", "reserved:host"], "namespace": "shop"},
    l4={"TCP": {"source_port": 80}},
)
NUMBERS = "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]"


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("_flow.verdict == Verdict.DROPPED", True),
        ("_flow.verdict == Verdict.FORWARDED", False),
        ("_flow.source.labels.exists(l, l.startsWith('k8s:'))", True),
        ("_flow.source.labels.all(l, l.startsWith('k8s:'))", False),
        ("_flow.source.labels.exists(l, _flow.source.labels.exists(m, m != l))", True),
        ("_flow.source.labels[7] == 'x'", False),
        ("1 / 0 == 1", False),
        ("_flow.l4.TCP.source_port in [uint(80), uint(443)]", True),
        ("_flow.source.namespace.matches('^sh.p$')", True),
        ("has(_flow.is_reply)", False),
        ("{'a': [1].exists(x, x == 1)}['a']", True),
    ],
)
def test_matches(text: str, matches: bool) -> None:
    assert expression(text)(FLOW) is matches


@pytest.mark.parametrize(
    "text",
    [
        "", "_flow.nothing == 1", "_flow.verdict", "x == 1", "_flow.verdict ==", "true" + " || true" * 2000,
        f"{NUMBERS}.all(a, {NUMBERS}.all(b, {NUMBERS}.all(c, a + b + c > 0)))",
        f"{{'x': {NUMBERS}.all(a, {NUMBERS}.all(b, {NUMBERS}.all(c, a + b + c > 0)))}}['x']",
        f"(true ? [{NUMBERS}.map(a, {NUMBERS}.map(b, {NUMBERS}.filter(c, c > b).size() > a))] : []).size() > 0",
        f"{NUMBERS}.all(a, {NUMBERS}.all(b, a + b > 0))" + " && true" * 150,
    ],
)  # fmt: skip
def test_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="error compiling CEL expression"):
        expression(text)


def test_what_takes_too_long_ends_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    costly = f"{NUMBERS}.all(a, {NUMBERS}.all(b, a + b > 0))"
    monkeypatch.setattr("axoneme.plugins.hubble.filters.cel._SLOW", 0.0)
    test = expression(costly)
    assert all(test(FLOW) for _ in range(16))
    with pytest.raises(RequestError, match="takes too long"):
        test(FLOW)
    monkeypatch.setattr("axoneme.plugins.hubble.filters.cel._SLOWEST", 0.0)
    with pytest.raises(RequestError, match="takes too long"):
        expression(costly)(FLOW)
    with pytest.raises(RequestError, match="at most 16"):
        compiled([FlowFilter(experimental={"cel_expression": ["true"] * 17})])
    with pytest.raises(RequestError, match="at most 32"):
        compiled([FlowFilter(experimental={"cel_expression": ["true"] * 11})] * 3)
