"""Handlers from a file: filters, changes while it runs, and files that are wrong."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flow_world import World, record

from axoneme.core.datapath.abi import EventType
from axoneme.core.errors import ConfigError
from axoneme.core.records import Level
from axoneme.plugins.hubble.metrics import dynamic, service
from axoneme.plugins.hubble.metrics.config import MetricsSettings
from axoneme.plugins.hubble.observer import Batch

FILE = """\
metrics:
  - name: drop
    contextOptions:
      - {name: sourceContext, values: [pod, ip]}
    includeFilters:
      - {destination_pod: [shop/api]}
    excludeFilters:
      - {destination_port: ["53"]}
  - name: flow
"""


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A service over a world, whose file is at `file`."""
    world = World()
    monkeypatch.setattr(service.observer, "of", lambda context: world.observer)
    file = tmp_path / "metrics.yaml"
    file.write_text(FILE)
    context: Any = SimpleNamespace(
        config=SimpleNamespace(metrics=MetricsSettings(dynamic=file)), state=world.state
    )
    made = service.MetricsService(context)
    made.refresh()
    return SimpleNamespace(world=world, file=file, service=made, position=0)


def see(measured: Any, *records: Any) -> dict[str, float]:
    """Counts records; returns what each metric counted, over its labels."""
    ring = measured.world.observer.ring
    for one in records:
        measured.world.observer.take(one)
    measured.service.sections.add(
        Batch(ring.view(measured.position, ring.head), measured.world.observer.wire)
    )
    measured.position = ring.head
    totals: dict[str, float] = {}
    for family in measured.service.sections.collect():
        totals[family.name] = sum(sample.value for sample in family.samples)
    return totals


def drop(port: int, **fields: Any) -> Any:
    return record(EventType.DROP, reason=132, dport=port, **fields)


def write(measured: Any, text: str) -> None:
    """A changed file, which is another one for whoever looks at its time or number."""
    new = measured.file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, measured.file)
    measured.service.refresh()


def test_filters_choose_flows_per_handler(measured: Any) -> None:
    outside = {"destination_endpoint": 0, "destination_identity": 2}
    totals = see(measured, drop(80), drop(53), drop(443, **outside), record())
    assert totals == {"hubble_drop": 1, "hubble_flows_processed": 4}
    (family,) = (f for f in measured.service.sections.collect() if f.name == "hubble_drop")
    assert family.samples[0].labels["source"] == "shop/web"


def test_a_changed_file_keeps_what_did_not_change(measured: Any) -> None:
    see(measured, drop(80))
    write(measured, FILE.replace("shop/api", "other/") + "  - name: tcp\n")
    totals = see(measured, drop(80), record())
    assert totals == {"hubble_flows_processed": 3, "hubble_tcp_flags": 1}, (
        "the drops begin anew, the flows go on"
    )
    assert measured.service.health().level is Level.OK


def test_a_wrong_file_changes_nothing_and_is_told(measured: Any) -> None:
    see(measured, drop(80))
    write(measured, "metrics: [{name: drp}]")
    assert measured.service.health().level is Level.DEGRADED
    assert "did you mean drop?" in measured.service.health().reason
    assert see(measured, drop(80))["hubble_drop"] == 2
    measured.file.unlink()
    measured.service.refresh()
    assert "cannot be read" in measured.service.health().reason
    write(measured, FILE)
    assert measured.service.health().level is Level.OK


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "a list `metrics` is expected"),
        ("metrics: [{nam: drop}]", "has no name"),
        ("metrics: [{name: drop, filters: []}]", "has a key 'filters'"),
        ("metrics: [{name: drop}, {name: drop}]", "given twice"),
        ("metrics: [{name: http}, {name: httpV2}]", "conflicts with"),
        (
            "metrics: [{name: drop, contextOptions: [{name: sourceContext, values: [pood]}]}]",
            "did you mean pod?",
        ),
        ("metrics: [{name: drop, includeFilters: [{source_pods: [a]}]}]", "no field named"),
        ("metrics: [{name: drop, includeFilters: [{dns_query: ['(']}]}]", "invalid"),
        ("metrics: [{name: drop, includeFilters: 5}]", "is no list"),
        ("metrics: [\n", "metrics.yaml"),
    ],
)
def test_mistakes_are_explained(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "metrics.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=None) as caught:
        dynamic.read(file)
    assert message in str(caught.value)
