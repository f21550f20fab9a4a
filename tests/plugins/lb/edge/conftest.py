"""A node with one device to the outside, its stages composed in, without any interface that carries something."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

#: The made-up world of the datapath's own tests: test files are not packages here.
sys.path.insert(0, str(Path(__file__).parents[3] / "bpf"))
sys.path.insert(0, str(Path(__file__).parent))

from edge_world import Edge, make_bench

from axoneme.core.testing.datapath import DatapathBench


@pytest.fixture(scope="session")
def edge_bench() -> Iterator[DatapathBench]:
    with make_bench() as bench:
        yield bench


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def edge(request: pytest.FixtureRequest, edge_bench: DatapathBench) -> Edge:
    """Nothing is connected and no service is there."""
    return Edge(edge_bench, request.param).reset()
