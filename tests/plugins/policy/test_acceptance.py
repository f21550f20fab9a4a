"""Whether policies that people publish are accepted or refused as the reference's parser does it: ACCEPTANCE.tsv."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from axoneme.core.errors import ResourceError
from axoneme.plugins.policy.kinds import PARSERS
from axoneme.plugins.policy.language import parse_rules
from axoneme.plugins.policy.peers import Scope

_OWN = Path(__file__).parents[2] / "conformance" / "examples"


def _folders() -> list[Path]:
    """Ours, and that of a further folder of the same shape that `AXONEME_CONFORMANCE` names."""
    more = os.environ.get("AXONEME_CONFORMANCE")
    return [_OWN, *([Path(more) / "examples"] if more and (Path(more) / "examples").is_dir() else [])]


def _document(file: Path, index: int, kind: str, name: str) -> Any:
    """Documents are counted between the lines `---`, so that a file which begins with one has an empty first one. Where
    somebody counts otherwise, kind and name tell."""
    text = file.read_text()
    if file.suffix == ".json":
        return json.loads(text)
    found = [yaml.safe_load(one) for one in re.split(r"(?m)^---[ \t]*$", text)]
    if kind == "rules" or (index < len(found) and (found[index] or {}).get("kind") == kind):
        return found[index]
    return next(one for one in found if one and (one["kind"], one["metadata"]["name"]) == (kind, name))


def _rows(folder: Path) -> Iterator[dict[str, str]]:
    with (folder / "ACCEPTANCE.tsv").open() as lines:
        yield from csv.DictReader(lines, delimiter="\t")


@pytest.mark.parametrize("folder", _folders(), ids=str)
@pytest.mark.parametrize("schema", [True, False], ids=["as in files", "as in the corpus"])
def test_every_document_is_taken_as_the_reference_takes_it(folder: Path, schema: bool) -> None:
    wrong, unplaced, seen = [], [], set()
    for row in _rows(folder):
        parse: Any = parse_rules if row["kind"] == "rules" else PARSERS[row["kind"]]
        try:
            parse(
                _document(folder / row["file"], int(row["doc"]), row["kind"], row["name"]),
                scope=Scope(schema=schema),
            )
            result, error = "accept", ""
        except ResourceError as refused:
            result, error = "reject", str(refused)
            unplaced += [] if refused.where and refused.where.field else [row["file"]]
        seen.add(result)
        if result != row["result"]:
            wrong.append(
                f"{row['file']} {row['doc']}: {row['result']} ({row['error']}), but {result} ({error})"
            )
    assert not wrong, "\n".join(wrong)
    assert not unplaced, "every refusal names the field"
    assert seen == {"accept", "reject"}
