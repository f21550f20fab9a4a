from __future__ import annotations

import logging
from pathlib import Path

import pytest

from axoneme.core.manager import PluginManager
from axoneme.core.memory import FILE, read_required, write_required

from .sample import Sample


def test_who_is_required_is_remembered_until_it_says_otherwise(tmp_path: Path) -> None:
    assert read_required(tmp_path) == frozenset()
    write_required(tmp_path, PluginManager(extra=[Sample("one", required=True), Sample("two")], found={}))
    assert read_required(tmp_path) == {"one"}
    write_required(tmp_path, PluginManager(extra=[Sample("two", required=True)], found={}))
    assert read_required(tmp_path) == {"one", "two"}
    write_required(tmp_path, PluginManager(extra=[Sample("one")], found={}))
    assert read_required(tmp_path) == {"two"}


@pytest.mark.parametrize("content", ["{", "[]", '{"required": 5}', "\x00"])
def test_an_unreadable_memory_is_no_memory_and_said_so(
    tmp_path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / FILE).write_text(content)
    caplog.set_level(logging.WARNING, logger="axoneme")
    assert read_required(tmp_path) == frozenset()
    assert "memory of plugins is unreadable" in caplog.messages
