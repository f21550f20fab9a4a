"""What becomes of the folder itself: gone, renamed, replaced, not there yet, not to be watched."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import asyncinotify
import pytest
from ingest_bench import Bench, widget

from axoneme.core.errors import AxonemeError
from axoneme.core.records import Level
from axoneme.core.state.folder import GRACE
from axoneme.core.state.ingest import POLL, RESCAN


async def test_folder_that_vanishes_takes_nothing_with_it(bench: Bench) -> None:
    bench.put("a.yaml", widget("a"))
    bench.put("b.yaml", widget("b"))
    await bench.step()
    shutil.rmtree(bench.path)
    await bench.step(100)
    assert bench.sizes == {"a": 1, "b": 1}
    assert bench.problems("") == [
        f"{bench.path}: cannot list the folder: No such file or directory (what was in it stays in effect)"
    ]
    assert bench.source.health().level is Level.DEGRADED
    bench.path.mkdir()
    bench.put("b.yaml", widget("b", 2))
    while bench.sizes["b"] != 2:
        await bench.step(POLL / 10)
    assert bench.sizes == {"a": 1, "b": 2}
    await bench.step(GRACE)
    assert bench.sizes == {"b": 2}
    bench.put("c.yaml", widget("c"))  # and it is watched again
    await bench.step()
    assert bench.sizes == {"b": 2, "c": 1}
    assert bench.source.health().level is Level.OK


async def test_another_folder_in_its_place(bench: Bench, tmp_path: Path) -> None:
    bench.put("a.yaml", widget("a"))
    await bench.step()
    (tmp_path / "next").mkdir()
    (tmp_path / "next" / "a.yaml").write_text(widget("a", 2))
    bench.path.rename(tmp_path / "old")
    (tmp_path / "next").rename(bench.path)
    await bench.step(POLL)
    assert bench.sizes == {"a": 2}
    (tmp_path / "old" / "z.yaml").write_text(widget("z"))
    bench.put("b.yaml", widget("b"))
    await bench.step()
    assert bench.sizes == {"a": 2, "b": 1}


async def test_parent_renamed_is_found_by_the_scan(tmp_path: Path) -> None:
    path = tmp_path / "parent" / "resources"
    path.mkdir(parents=True)
    bench = Bench(path)
    with bench.source.open():
        await bench.step()
        (tmp_path / "parent").rename(tmp_path / "old")
        path.mkdir(parents=True)
        bench.put("a.yaml", widget("a"))
        await bench.step(RESCAN)
        bench.put("b.yaml", widget("b"))
        await bench.step()
    assert bench.sizes == {"a": 1, "b": 1}


async def test_missing_folder_is_waited_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "later")
    with bench.source.open():
        await bench.step(10)
        assert not bench.resources.initialized
        assert "cannot list the folder" in bench.source.health().reason
        bench.path.mkdir()
        bench.put("a.yaml", widget("a"))
        await bench.step(POLL)
        assert bench.resources.initialized
        assert bench.sizes == {"a": 1}


async def test_folder_that_cannot_be_watched_is_looked_at(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(asyncinotify.Inotify, "add_watch", refuse)
    bench.put("a.yaml", widget("a"))
    await bench.step()
    bench.put("a.yaml", widget("a", 2))
    await bench.step(POLL)
    assert bench.sizes == {"a": 2}
    assert "looked at every 1 s" in bench.source.health().reason


def test_no_inotify_instance_is_a_clear_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr("axoneme.core.state.ingest.Inotify", refuse)
    with pytest.raises(AxonemeError, match="max_user_instances"), Bench(path).source.open():
        pass
