"""Benches that live as long as the test run, since compiling and loading take their time."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(
    0, str(Path(__file__).parent)
)  # the helpers beside these tests: test files are not packages here

from packet_world import World, make_bench, populate

from axoneme.core.testing.datapath import DatapathBench


@pytest.fixture(scope="session")
def benches() -> Iterator[Callable[[str], DatapathBench]]:
    """A populated bench per strategy, made when it is first asked for."""
    made: dict[str, DatapathBench] = {}
    with contextlib.ExitStack() as stack:

        def get(strategy: str) -> DatapathBench:
            if strategy not in made:
                made[strategy] = stack.enter_context(make_bench(strategy))
                populate(made[strategy])
            return made[strategy]

        yield get


@pytest.fixture
def strategy() -> str:
    """Modules that hold for every strategy replace this by one with parameters."""
    return "single"


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def world(request: pytest.FixtureRequest, benches: Callable[[str], DatapathBench], strategy: str) -> World:
    """Nothing is connected yet, everything is allowed, the revision is 1."""
    return World(benches(strategy), request.param).reset()
