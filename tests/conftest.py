"""What holds for all tests: no deadlines, and none of them leaves the process's logging other than it found it."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long an example takes says something about the machine, not about the code; `make bench` measures.
settings.register_profile("axoneme", deadline=None)
settings.load_profile("axoneme")


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Commands that are run in this process set logging up; without this, later tests would capture nothing."""
    root, ours = logging.getLogger(), logging.getLogger("axoneme")
    before = list(root.handlers), root.level, ours.level, ours.propagate, ours.disabled
    yield
    root.handlers[:], root.level, ours.level, ours.propagate, ours.disabled = before
    logging.disable(logging.NOTSET)
    ours.manager._clear_cache()  # type: ignore[attr-defined]
