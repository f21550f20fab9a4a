from __future__ import annotations

import sys
from pathlib import Path

import pytest

from axoneme.core import discovery
from axoneme.core.errors import PluginError


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


def test_a_module_that_is_not_there_says_what_may_be_the_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distribution(tmp_path, "third", "gone = absent_module_of_third")
    distribution(tmp_path, "fourth", "lacking = lacking_plugin_of_fourth")
    (tmp_path / "lacking_plugin_of_fourth.py").write_text("import a_dependency_that_is_absent")
    monkeypatch.syspath_prepend(tmp_path)
    found = discovery.discover()
    with pytest.raises(PluginError, match="no module absent_module_of_third") as caught:
        found["gone"][0].load()
    assert "only a new start finds it" in str(caught.value.hint)
    with pytest.raises(ModuleNotFoundError, match="a_dependency_that_is_absent"):
        found["lacking"][0].load()
