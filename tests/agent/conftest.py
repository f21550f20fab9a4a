"""Hosts with agents. Also makes the helpers beside these tests importable: test files are not packages here."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from scenes import ENFORCED, OPEN, Scene, policy, scene_of

from axoneme.core.testing.node import Node


@pytest.fixture(scope="module")
def scene() -> Iterator[Scene]:
    """One for all tests of a module, which leave it as they found it: an agent that runs, with its policy."""
    with scene_of(ENFORCED, text=policy(OPEN)) as made:
        yield made


@pytest.fixture
def make() -> Iterator[Callable[..., Node]]:
    """Makes nodes that are not started yet."""
    with contextlib.ExitStack() as owned:
        yield lambda *given, **options: owned.enter_context(Node(*given, **options))
