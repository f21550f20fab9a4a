"""Makes the helpers beside importable: test files are not packages here. And the watched folder of the tests of ingest."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ingest_bench import Bench


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "resources").mkdir()
    return tmp_path / "resources"


@pytest.fixture
async def bench(path: Path) -> AsyncIterator[Bench]:
    bench = Bench(path)
    with bench.source.open():
        yield bench
