"""The golden flows give the golden exposition: names, types, labels, values and buckets of the original handlers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from attrs import frozen
from google.protobuf import json_format
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from axoneme.core.errors import ConfigError
from axoneme.plugins.hubble.metrics.options import parse
from axoneme.plugins.hubble.metrics.registry import Metrics
from axoneme.plugins.hubble.proto.flow_pb2 import Flow

GOLDEN = Path(__file__).parents[3] / "conformance" / "hubble"
HEADER = "##### hubble-metrics: "


@frozen
class Case:
    handlers: str
    text: str


def cases() -> Iterator[Case]:
    text = (GOLDEN / "metrics-golden.txt").read_text()
    for part in text.split(HEADER)[1:]:
        handlers, _, exposition = part.partition("\n")
        yield Case(handlers, exposition)


def flows() -> list[Flow]:
    lines = (GOLDEN / "metrics-golden-flows.jsonl").read_text().splitlines()
    return [json_format.ParseDict(json.loads(line), Flow()) for line in lines]


Series = dict[tuple[str, str, frozenset[tuple[str, str]]], float]


def series(text: str) -> Series:
    return {
        (family.type, sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def without_known_bugs(golden: Series) -> Series:
    """What the original would say if it did not call ICMPv6 IPv4: one of its two echo requests is IPv6."""
    fixed = dict(golden)
    for (kind, name, labels), value in golden.items():
        if name == "hubble_icmp_total":
            assert value == 2
            rest = labels - {("family", "IPv4")}
            fixed[(kind, name, labels)] = 1
            fixed[(kind, name, rest | {("family", "IPv6")})] = 1
    return fixed


@pytest.mark.parametrize("case", list(cases()), ids=lambda case: case.handlers[:40])
def test_golden(case: Case) -> None:
    if case.text.startswith("ERROR"):
        with pytest.raises(ConfigError, match="conflicts with"):
            parse([case.handlers])
        return
    metrics = Metrics(parse([case.handlers]), limit=1000)
    for flow in flows():
        metrics.add(flow)
    assert series(generate_latest(metrics).decode()) == without_known_bugs(series(case.text))


def test_a_plan_stands_for_all_flows_like_it() -> None:
    case = next(cases())
    one_by_one, in_bulk = (Metrics(parse([case.handlers]), limit=1000) for _ in range(2))
    for flow in flows():
        for _ in range(7):
            one_by_one.add(flow)
        in_bulk.plan(flow).apply(7, flow.l7.latency_ns / 1e9)
    counted, planned = (series(generate_latest(metrics).decode()) for metrics in (one_by_one, in_bulk))
    assert planned.keys() == counted.keys()
    assert planned == pytest.approx(counted)
