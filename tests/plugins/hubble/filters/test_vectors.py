"""What Cilium's own filter engine answers, for each vector of the conformance files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict

from axoneme.plugins.hubble.filters.compiler import compiled
from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.load import load
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter

OURS = Path(__file__).parents[3] / "conformance"


def folders() -> Iterator[Path]:
    yield OURS
    if more := os.environ.get("AXONEME_CONFORMANCE"):
        yield Path(more)


def vectors() -> Iterator[Any]:
    for folder in folders():
        path = folder / "hubble" / "filter-vectors.json"
        if not path.exists():
            continue
        read = json.loads(path.read_text())
        for number, vector in enumerate(read["vectors"]):
            yield pytest.param(read["flows"][vector["flow"]], vector, id=f"{folder.name}-{number}")


@pytest.mark.parametrize(("flow", "vector"), list(vectors()))
def test_answer(flow: dict[str, Any], vector: dict[str, Any]) -> None:
    view = load([Flow(), ParseDict(flow, Flow()), Flow()])
    chosen = ParseDict(vector["filter"], FlowFilter())
    if vector["result"] == "error":
        with pytest.raises(RequestError):
            compiled([chosen])
        return
    matches = vector["result"] == "match"
    assert compiled([chosen]).mask(view)[1] == matches
    assert compiled(denied=[chosen]).mask(view)[1] != matches
