from __future__ import annotations

import sys
from pathlib import Path

import pytest

from axoneme.core import discovery


def distribution(folder: Path, name: str, entry: str) -> None:
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[axoneme.plugins]\n{entry}\n")


def test_finding_says_who_provides_what_and_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "first", "count = count_plugin_of_first")
    distribution(tmp_path, "second", "count = absent_module_of_second")
    (tmp_path / "count_plugin_of_first.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    found = discovery.discover()["count"]
    assert sorted(str(f.provenance) for f in found) == [
        "first 1.2 (count_plugin_of_first)",
        "second 1.2 (absent_module_of_second)",
    ]
    files = {f.provenance.distribution: f.provenance.file() for f in found}
    assert files == {"first": str(tmp_path / "count_plugin_of_first.py"), "second": ""}
    assert "count_plugin_of_first" not in sys.modules


def test_our_own_plugins_are_found_like_all_others() -> None:
    assert "policy" in discovery.discover()
