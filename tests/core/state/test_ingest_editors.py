"""How editors and other programs write a file of a watched folder: an object in it is never absent meanwhile."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from ingest_bench import Bench, widget


def vim(bench: Bench, name: str, text: str) -> Iterator[None]:
    (bench.path / name).rename(bench.path / f"{name}~")
    yield
    (bench.path / name).write_text(text)
    yield
    (bench.path / f"{name}~").unlink()


def emacs(bench: Bench, name: str, text: str) -> Iterator[None]:
    (bench.path / f".#{name}").symlink_to("somebody@here")
    shutil.copy(bench.path / name, bench.path / f"{name}~")
    yield
    (bench.path / name).write_text(text)
    (bench.path / f".#{name}").unlink()
    yield


def nano(bench: Bench, name: str, text: str) -> Iterator[None]:
    (bench.path / name).write_text("")
    yield
    (bench.path / name).write_text(text)
    yield


def remove_and_write(bench: Bench, name: str, text: str) -> Iterator[None]:
    (bench.path / name).unlink()
    yield
    with (bench.path / name).open("w") as file:
        yield
        file.write(text)
        yield


def sed(bench: Bench, name: str, text: str) -> Iterator[None]:
    bench.put(name, text)
    yield


def link(bench: Bench, name: str, text: str) -> Iterator[None]:
    (bench.path / "new.tmp").write_text(text)
    (bench.path / name).unlink()
    yield
    os.link(bench.path / "new.tmp", bench.path / name)
    (bench.path / "new.tmp").unlink()
    yield


@pytest.mark.parametrize("editor", [vim, emacs, nano, remove_and_write, sed, link])
async def test_no_editor_makes_an_object_absent(bench: Bench, editor: Any) -> None:
    bench.put("a.yaml", widget("a", 0))
    await bench.step()
    watch = bench.resources.watch()
    watch.take()
    for size in range(1, 20):
        for _ in editor(bench, "a.yaml", widget("a", size)):
            await bench.step(0.05)
            assert bench.sizes["a"] in (size - 1, size)
        await bench.step(0.05)
        assert bench.sizes == {"a": size}
    await bench.step(5)
    batch = watch.take()
    assert batch is not None
    assert [change.kind for change in batch.changes] == ["update"]
    assert bench.problems("a.yaml") == []


async def test_rename_is_never_an_absence(bench: Bench) -> None:
    bench.put("a.yaml", widget("a"))
    await bench.step()
    watch = bench.resources.watch()
    watch.take()
    for old, new in (("a", "b"), ("b", "a"), ("a", "z")):
        (bench.path / f"{old}.yaml").rename(bench.path / f"{new}.yaml")
        await bench.step(5)
        batch = watch.take()
        assert batch is not None
        assert [change.kind for change in batch.changes] == ["update"]
