"""The conformance corpus, through parser, engine and the three lookups."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from axoneme.plugins.policy.corpus import read, run

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


def test_the_corpus_is_here() -> None:
    assert len(_files()) >= 2
