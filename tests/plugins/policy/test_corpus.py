"""The conformance corpus, through parser, engine and the three lookups."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import naive
import pytest

from axoneme.plugins.policy.corpus import CaseWorld, read, run

_OWN = Path(__file__).parents[2] / "conformance" / "policy"

#: Features of the language that are not supported yet: tag in the corpus → why. Empty, and meant to stay so.
UNSUPPORTED: dict[str, str] = {}


def _files() -> list[Path]:
    """Ours, and those of a further folder of the same shape that `AXONEME_CONFORMANCE` names."""
    folders = [_OWN]
    if more := os.environ.get("AXONEME_CONFORMANCE"):
        folders.append(Path(more) / "policy")
    return sorted(file for folder in folders for file in folder.glob("*.jsonl.gz"))


@pytest.mark.parametrize("file", _files(), ids=lambda file: file.name)
def test_every_side_agrees(file: Path, record_property: Any) -> None:
    cases = [case for case in read(file) if not UNSUPPORTED.keys() & set(case.get("tags", ()))]
    summary = run(cases)
    record_property("sides", summary.sides)
    record_property("mismatches", len(summary.mismatches))
    assert summary.sides > 0
    assert not summary.mismatches, "\n".join(str(one) for one in summary.mismatches[:10])


#: What the naive evaluator does not know: such cases are left to the engine alone.
_BEYOND_NAIVE = (
    '"NetworkPolicy"', "CIDRGroup", "cidrGroup", "toFQDNs", "TLS", "serverNames", "listener", "kafka", "l7proto", "nodeSelector",
    '"type": "',
)  # fmt: skip


def _naive_knows(case: dict[str, Any]) -> bool:
    text, config = json.dumps(case["policies"]), case.get("config", {})
    named_port = re.search(r'"port": "[^"]*[A-Za-z]', text)
    rejected = case["expected"].get("rejected")
    return not (
        named_port or rejected or config.get("hostFirewall") or "nonDefaultDeny" in config
    ) and not any(word in text for word in _BEYOND_NAIVE)


def test_the_naive_evaluator_is_no_worse_than_its_task() -> None:
    """What the engine is compared with agrees with the corpus itself, wherever it knows the language of a case."""
    sides = 0
    for case in (case for file in _files() for case in read(file) if _naive_knows(case)):
        world, config = CaseWorld(case), case.get("config", {})
        evaluator = naive.Evaluator(
            case["policies"],
            naive.Config(
                config.get("enforcement", "default"), config.get("allowLocalhost", "always") == "always"
            ),
        )
        for flow, result in zip(case["flows"], case["expected"]["results"], strict=True):
            for side, own, peer in (("egress", "src", "dst"), ("ingress", "dst", "src")):
                want = result[side]
                if want is None or flow[own] == "host":
                    continue
                labels, others = (list(world.labels(flow[name])) for name in (own, peer))
                got = evaluator.side(labels, others, side, flow["protocol"], flow["port"])
                kinds = ["verdict"] if want["verdict"] == "error" else ["verdict", "enforced", "auth", "l7"]
                assert [got[k] for k in kinds] == [want.get(k, "none") for k in kinds], (case["name"], flow)
                sides += 1
    assert sides > 10_000


def test_the_corpus_is_here() -> None:
    assert len(_files()) >= 2
