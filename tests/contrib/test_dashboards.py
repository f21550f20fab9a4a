"""The dashboards: up to date, valid PromQL, and made of metrics that exist."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from axoneme.core.records import MetricType
from axoneme.core.testing.agent import AgentKit
from axoneme.plugins.hubble.metrics.options import HANDLERS, parse
from axoneme.plugins.hubble.metrics.registry import Metrics

FOLDER = Path(__file__).parents[2] / "contrib" / "dashboards"
FILES = sorted(FOLDER.glob("*.json"))

#: What is served beside the handlers' and plugins' own metrics.
ALWAYS = {"hubble_lost_events_total", *(
    f"cilium_process_{name}" for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds")
)}  # fmt: skip


def made() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards_make", FOLDER / "make.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # attrs looks there for the types of its fields
    spec.loader.exec_module(module)
    return module


def queries(dashboard: dict[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def test_they_are_what_make_writes() -> None:
    module = made()
    assert {f"{one.uid}.json" for one in module.DASHBOARDS} == {path.name for path in FILES}
    for one in module.DASHBOARDS:
        assert (FOLDER / f"{one.uid}.json").read_text() == module.text(one), "run contrib/dashboards/make.py"


async def existing() -> set[str]:
    plugins = {
        "enabled": ["policy", "hubble", "prometheus", "lb", "dns"],
        "prometheus": {"listen": "127.0.0.1:0"},
    }
    async with AgentKit(values={"plugins": plugins}) as kit:
        metrics = kit.agent.metrics()
    names = set(ALWAYS)
    for metric in metrics:
        suffixes = ("_bucket", "_sum", "_count") if metric.type is MetricType.HISTOGRAM else ("",)
        names |= {metric.name + suffix for suffix in suffixes}
    for handler in sorted(set(HANDLERS) - {"http"}):
        for family in Metrics(parse([handler]), 10).families:
            suffixes = ("_bucket", "_sum", "_count") if family.histogram else ("",)
            names |= {family.name + suffix for suffix in suffixes}
    return names


async def test_every_metric_exists() -> None:
    known = await existing()
    for path in FILES:
        for query in queries(json.loads(path.read_text())):
            asked = set(re.findall(r"\b(?:cilium|hubble|axoneme)_\w+", query))
            assert asked, query
            assert asked <= known, f"{path.name}: {query}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_query_is_promql(path: Path, tmp_path: Path) -> None:
    rules = [
        {
            "record": f"query:{number}",
            "expr": query.replace("$__rate_interval", "5m").replace("$instance", ".*"),
        }
        for number, query in enumerate(queries(json.loads(path.read_text())))
    ]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": path.stem, "rules": rules}]}))
    checked = subprocess.run(
        ["promtool", "check", "rules", file], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_panels_have_places_of_their_own(path: Path) -> None:
    taken: set[tuple[int, int]] = set()
    dashboard = json.loads(path.read_text())
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
