"""The bpf file system is found or mounted, and nothing is mounted over anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from axoneme.core.datapath import bpffs
from axoneme.core.errors import KernelError


@pytest.mark.kernel
def test_folders_are_made_where_it_is_mounted() -> None:
    folder = bpffs.STANDARD / f"axoneme-test-{os.getpid()}" / "maps"
    bpffs.ensure_folder(folder)
    bpffs.ensure_folder(folder)
    assert bpffs.is_bpffs(folder)
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    assert mounts.count(str(bpffs.STANDARD)) == 1
    folder.rmdir()
    folder.parent.rmdir()


def test_other_file_systems_are_refused(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="is not in a bpf file system"):
        bpffs.ensure_folder(tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("mounted", [True, False])
def test_it_is_mounted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mounted: bool) -> None:
    standard = tmp_path / "bpf"
    standard.mkdir()
    state = {"mounted": mounted, "times": 0}
    monkeypatch.setattr(bpffs, "is_bpffs", lambda path: state["mounted"])

    def mount(path: Path) -> None:
        assert path == standard
        state["mounted"], state["times"] = True, state["times"] + 1

    monkeypatch.setattr(bpffs, "mount_bpffs", mount)
    bpffs.ensure_folder(standard / "a", standard)
    bpffs.ensure_folder(standard / "b", standard)
    assert state["times"] == (0 if mounted else 1)


def test_a_refused_mount_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(bpffs, "mount_bpffs", refuse)
    with pytest.raises(KernelError, match="Operation not permitted") as raised:
        bpffs.ensure_folder(tmp_path / "a", tmp_path)
    assert raised.value.hint == "it needs root"
