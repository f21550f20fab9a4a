"""Makes the helpers here and beside importable: test files are not packages here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

for folder in (Path(__file__).parent, Path(__file__).parent.parent):
    sys.path.insert(0, str(folder))

if TYPE_CHECKING:
    from lb_agents import World


@pytest.fixture
def _alive(world: World) -> Iterator[None]:
    """A test that fails while no agent runs leaves one to the others."""
    yield
    assert world.node.process is not None
    if world.node.process.poll() is not None:
        world.node.start()
