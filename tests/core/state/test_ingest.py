"""A watched folder: what people and editors do to files, and what the tables say then.

No test waits: events are in the kernel's queue when a file operation returns, and time is a number that the test sets.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from pathlib import Path
from typing import Any

import asyncinotify
import pytest
from ingest_bench import WIDGET, Bench, parse, widget

from axoneme.core.records import Level, ResourceKind
from axoneme.core.state import folder as folder_module
from axoneme.core.state.folder import GRACE
from axoneme.core.state.ingest import PATIENCE, RESCAN, SETTLE, FolderSource
from axoneme.core.state.resources import Status


async def test_first_scan_fills_and_initialises(bench: Bench) -> None:
    bench.put("a.yaml", widget("a") + "---\n# nothing\n---\n" + widget("b", 2))
    bench.put(
        "c.json",
        '{"apiVersion": "axoneme.io/v1", "kind": "Widget", "metadata": {"name": "c"}, "spec": {"size": 3}}',
    )
    bench.put("notes.txt", "no resource")
    bench.put(".hidden.yaml", "[")
    assert bench.source.health().level is Level.UNKNOWN
    assert not bench.resources.initialized
    await bench.step()
    assert bench.resources.initialized
    assert bench.sizes == {"a": 1, "b": 2, "c": 3}
    assert bench.state.revision == 1
    assert bench.source.health().level is Level.OK
    assert [row.where.line for row in bench.resources] == [1, 8, 1]


async def test_changes_moves_and_deletions_are_followed(bench: Bench) -> None:
    bench.put("a.yaml", widget("a"))
    await bench.step()
    bench.put("a.yaml", widget("a", 2))
    bench.put("b.yml", widget("b"))
    await bench.step()
    assert bench.sizes == {"a": 2, "b": 1}
    (bench.path / "b.yml").rename(bench.path / "c.yml")
    await bench.step()
    row = bench.resources.get(("Widget", "default", "b"))
    assert row is not None
    assert row.where.file.endswith("c.yml")
    (bench.path / "a.yaml").unlink()
    await bench.step(GRACE)
    assert bench.sizes == {"b": 1}
    assert [row.path for row in bench.state.table("resource_files")] == [str(bench.path / "c.yml")]


async def test_a_change_costs_only_its_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        bench.put(f"{number}.yaml", widget(f"n{number}"))
    await bench.step()
    looks: list[str] = []
    look = folder_module.Folder.look
    monkeypatch.setattr(
        folder_module.Folder, "look", lambda self, name: (looks.append(name), look(self, name))[1]
    )
    bench.put("7.yaml", widget("n7", 7))
    await bench.step()
    await bench.step(3 * RESCAN)
    assert looks == ["7.yaml"]


async def test_a_burst_is_one_commit(bench: Bench) -> None:
    await bench.step()
    before = bench.state.revision
    for number in range(50):
        bench.put(f"{number}.yaml", widget(f"n{number}"))
        bench.put(f"{number}.yaml", widget(f"n{number}", 2))
    await bench.step()
    assert bench.state.revision == before + 1
    assert len(bench.resources) == 50


BROKEN = {
    "malformed": (widget("a") + "\n]", "a.yaml:6: malformed YAML"),
    "half": (widget("a")[:50], "a.yaml:3: malformed YAML"),
    "empty": ("", "a.yaml: there is no object in it (to remove objects, delete the file)"),
    "comments": ("# a\n---\n# b\n", "a.yaml: there is no object in it"),
    "binary": (b"\xff\xfe", "a.yaml:1: not UTF-8"),
    "huge": ("# " + "x" * 5_000_000, "a.yaml: the file has 5,000,002 bytes, the limit is 4,194,304"),
    "nameless": (
        "apiVersion: v1\nkind: Widget\nmetadata: {}\n",
        "a.yaml:3 (metadata.name): the field 'name' is missing",
    ),
    "scalar": ("hello", "a.yaml:1: expected a mapping, found text 'hello'"),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_broken_file_keeps_its_last_good_objects(bench: Bench, how: str) -> None:
    content, message = BROKEN[how]
    bench.put("a.yaml", widget("a", 5) + "---\n" + widget("b", 6))
    await bench.step()
    bench.put("a.yaml", content)
    await bench.step(100)
    assert bench.sizes == {"a": 5, "b": 6}
    assert bench.status("a") is bench.status("b") is Status.STALE
    assert bench.problems("a.yaml")[0].startswith(message)
    assert bench.object_problems("b")[0].startswith(message)
    assert bench.source.health().level is Level.DEGRADED
    bench.put("a.yaml", widget("a", 7))
    await bench.step()
    assert bench.sizes == {"a": 7}
    assert bench.source.health().level is Level.OK


@pytest.mark.parametrize("how", BROKEN)
async def test_broken_new_file_says_so_and_harms_nobody(bench: Bench, how: str) -> None:
    content, message = BROKEN[how]
    bench.put("b.yaml", widget("b"))
    bench.put("a.yaml", content)
    await bench.step()
    assert bench.sizes == {"b": 1}
    assert bench.resources.initialized
    await bench.step(SETTLE)
    assert bench.problems("a.yaml")[0].startswith(message)


async def test_object_that_became_invalid_keeps_its_last_good_version(bench: Bench) -> None:
    bench.put("a.yaml", widget("a", 5) + "---\n" + widget("b", 6))
    await bench.step()
    bench.put("a.yaml", widget("a", "big") + "---\n" + widget("b", 7))
    await bench.step()
    assert bench.sizes == {"a": 5, "b": 7}
    assert (bench.status("a"), bench.status("b")) == (Status.STALE, Status.VALID)
    assert bench.object_problems("a")[0].startswith(
        "a.yaml:4 (spec.size): expected a whole number, found text 'big'"
    )
    bench.put("a.yaml", widget("b", 7))  # readable, and without it: now it goes
    await bench.step()
    assert bench.sizes == {"b": 7}


async def test_mistyped_kind_or_name_loses_nothing(bench: Bench) -> None:
    bench.put("a.yaml", widget("a", 5))
    await bench.step()
    bench.put("a.yaml", widget("a", 6).replace("Widget", "Wigdet"))
    await bench.step()
    assert bench.resources.get(("Widget", "default", "a")).parsed == 5  # type: ignore[union-attr]
    assert "unknown kind 'Wigdet' (did you mean Widget?)" in bench.object_problems("a")[0]
    wrong = bench.resources.get(("Wigdet", "", "a"))
    assert wrong is not None
    assert wrong.status is Status.INVALID
    bench.put("a.yaml", widget("A", 6))
    await bench.step()
    assert bench.resources.get(("Widget", "default", "a")).parsed == 5  # type: ignore[union-attr]
    assert bench.resources.get(("Wigdet", "", "a")) is None
    bench.put("a.yaml", widget("a", 6))
    await bench.step()
    assert bench.sizes == {"a": 6}


async def test_writing_in_place_never_loses_an_object(bench: Bench) -> None:
    text = widget("a", 5) + "---\n" + widget("b", 6)
    bench.put("a.yaml", text)
    await bench.step()
    with (bench.path / "a.yaml").open("w") as file:  # truncated
        await bench.step(1)
        for character in text.replace("6", "7"):
            file.write(character)
            file.flush()
            await bench.step(0.01)
            assert set(bench.sizes) == {"a", "b"}
            assert bench.status("b") is Status.VALID
    await bench.step()
    assert bench.sizes == {"a": 5, "b": 7}


async def test_half_file_that_looks_whole_is_not_believed(bench: Bench) -> None:
    bench.put("a.yaml", widget("a", 5) + "---\n" + widget("b", 6))
    await bench.step()
    (bench.path / "a.yaml").write_text(widget("a", 8))  # a complete version, and before it is read …
    with (bench.path / "a.yaml").open("w") as file:  # … somebody begins another one
        file.write(widget("a", 9))
        file.flush()
        await bench.step(PATIENCE - 1)
        assert bench.sizes == {"a": 5, "b": 6}
        await bench.step(
            RESCAN
        )  # the writer takes its time: what it wrote counts, what is not there yet stays
        assert bench.sizes == {"a": 9, "b": 6}
        assert "somebody is writing into the file" in bench.object_problems("b")[0]
        file.write("---\n" + widget("b", 9))
    await bench.step()
    assert bench.sizes == {"a": 9, "b": 9}


async def test_write_during_the_reading_is_noticed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("a.yaml", widget("a", 5) + "---\n" + widget("b", 6))
    await bench.step()
    read = folder_module._read

    def slow_read(path: Path) -> Any:
        monkeypatch.setattr(folder_module, "_read", read)
        path.write_text(widget("a", 7))  # the first part of what is being written
        result = read(path)
        path.write_text(widget("a", 7) + "---\n" + widget("b", 8))
        return result

    monkeypatch.setattr(folder_module, "_read", slow_read)
    bench.put("a.yaml", widget("a", 6) + "---\n" + widget("b", 6))
    await bench.source.step()
    assert bench.sizes == {"a": 5, "b": 6}
    await bench.step()
    assert bench.sizes == {"a": 7, "b": 8}


async def test_silent_writer_is_waited_for_only_so_long(bench: Bench) -> None:
    await bench.step()
    with (bench.path / "a.yaml").open("w") as file:
        file.write(widget("a"))
        file.flush()
        await bench.step(PATIENCE - 1)
        assert bench.sizes == {}
        await bench.step(2)
        assert bench.sizes == {"a": 1}


async def test_object_in_two_files(bench: Bench) -> None:
    bench.put("b.yaml", widget("x", 2))
    await bench.step()
    bench.put("c.yaml", widget("x", 3) + "---\n" + widget("y"))
    await bench.step()
    assert bench.sizes == {"x": 2, "y": 1}
    assert bench.problems("c.yaml") == [
        "c.yaml:1: Widget default/x is also in b.yaml:1, which counts (remove one of them)"
    ]
    assert bench.problems("b.yaml") == []
    bench.put("a.yaml", widget("x", 1))  # the first by name counts, so that a restart changes nothing
    await bench.step()
    assert bench.sizes["x"] == 1
    assert "a.yaml:1, which counts" in bench.problems("b.yaml")[0]
    bench.put("a.yaml", widget("x", "bad"))  # an invalid one does not push out a valid one
    await bench.step()
    assert bench.sizes["x"] == 2
    assert bench.status("x") is Status.VALID
    (bench.path / "a.yaml").unlink()
    (bench.path / "b.yaml").unlink()
    await bench.step(5)
    assert bench.sizes["x"] == 3
    assert bench.problems("c.yaml") == []


async def test_object_twice_in_one_file(bench: Bench) -> None:
    bench.put("a.yaml", widget("x", 1) + "---\n" + widget("x", 2))
    await bench.step()
    assert bench.sizes == {"x": 1}
    assert bench.problems("a.yaml") == [
        "a.yaml:6: Widget default/x is also in a.yaml:1, which counts (remove one of them)"
    ]


async def test_object_of_another_source_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.yaml").write_text(widget("x", 9))
    other = Bench(tmp_path / "other", bench.state)
    with other.source.open():
        await other.step()
    bench.put("a.yaml", widget("x", 1))
    await bench.step()
    assert bench.sizes == {"x": 9}
    assert "which counts" in bench.problems("a.yaml")[0]
    (bench.path / "a.yaml").unlink()
    await bench.step(5)
    assert bench.sizes == {"x": 9}


async def test_what_is_no_plain_file_says_so(bench: Bench, tmp_path: Path) -> None:
    (bench.path / "folder.yaml").mkdir()
    os.mkfifo(bench.path / "pipe.yaml")
    (bench.path / "dangling.yaml").symlink_to("nowhere")
    (bench.path / "loop.yaml").symlink_to("loop.yaml")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as server:
        server.bind(str(bench.path / "socket.yaml"))
    await bench.step()
    assert bench.resources.initialized
    assert bench.problems("folder.yaml") == ["folder.yaml: a folder, which is not looked into"]
    assert bench.problems("pipe.yaml") == ["pipe.yaml: not a regular file"]
    assert bench.problems("socket.yaml") == ["socket.yaml: not a regular file"]
    assert bench.problems("dangling.yaml") == ["dangling.yaml: a symbolic link to nothing"]
    assert bench.problems("loop.yaml") == ["loop.yaml: cannot be read: Too many levels of symbolic links"]
    (bench.path / "folder.yaml").rmdir()
    await bench.step(5)
    assert bench.problems("folder.yaml") == []


async def test_unreadable_file(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("a.yaml", widget("a"))
    await bench.step()

    def refuse(path: Path, *_: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:  # root may read everything, so the mode alone proves nothing
        patch.setattr(folder_module.os, "open", refuse)
        (bench.path / "a.yaml").chmod(0)
        await bench.step()
    assert bench.problems("a.yaml") == ["a.yaml: cannot be read: Permission denied"]
    assert bench.sizes == {"a": 1}
    (bench.path / "a.yaml").chmod(0o644)
    await bench.step()
    assert bench.problems("a.yaml") == []
    assert bench.status("a") is Status.VALID


async def test_file_that_vanishes_while_it_is_read(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    check = folder_module._check

    def vanish(*arguments: Any) -> None:
        check(*arguments)
        (bench.path / "a.yaml").unlink(missing_ok=True)

    monkeypatch.setattr(folder_module, "_check", vanish)
    bench.put("a.yaml", widget("a"))
    await bench.step(5)
    assert bench.sizes == {}
    assert bench.problems("a.yaml") == []


async def test_links_are_followed_and_their_targets_watched_by_scans(bench: Bench, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text(widget("a"))
    (bench.path / "a.yaml").symlink_to(target)
    await bench.step()
    target.write_text(widget("a", 2))
    await bench.step(RESCAN)
    assert bench.sizes == {"a": 2}


async def test_projected_volume_is_swapped_at_once(bench: Bench) -> None:
    """As Kubernetes mounts a ConfigMap: files are links through `..data`, which is renamed over."""
    for version in (1, 2):
        (bench.path / f"..{version}").mkdir()
        (bench.path / f"..{version}" / "a.yaml").write_text(widget("a", version))
    (bench.path / "..data").symlink_to("..1")
    (bench.path / "a.yaml").symlink_to("..data/a.yaml")
    await bench.step()
    assert bench.sizes == {"a": 1}
    (bench.path / "..new").symlink_to("..2")
    (bench.path / "..new").rename(bench.path / "..data")
    await bench.step()
    assert bench.sizes == {"a": 2}


async def test_overflow_of_the_queue_means_a_new_scan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.put("a.yaml", widget("a"))
    await bench.step()
    bench.put("a.yaml", widget("a", 2))
    bench.put("b.yaml", widget("b"))
    inotify = bench.source._inotify
    assert inotify is not None
    while inotify.sync_get() is not None:
        pass  # the kernel dropped them
    overflow = asyncinotify.Event(None, asyncinotify.Mask.Q_OVERFLOW, 0, None)
    inotify._events.append(overflow)
    await bench.step()
    assert bench.sizes == {"a": 2, "b": 1}


async def test_other_kinds_read_every_file_anew(bench: Bench) -> None:
    bench.put("a.yaml", widget("a", 5))
    bench.put("b.yaml", widget("b", 6))
    bench.put("c.yaml", widget("c", 7))
    await bench.step()
    bench.put("b.yaml", "[")
    bench.put("c.yaml", widget("c", "bad"))
    await bench.step()
    bench.source.use(
        [
            ResourceKind(
                api_version="axoneme.io/v1", kind="Widget", namespaced=True, parse=lambda e: str(parse(e))
            )
        ]
    )
    await bench.step()
    assert bench.sizes == {"a": "5", "b": "6", "c": "7"}
    assert [bench.status(name) for name in "abc"] == [Status.VALID, Status.STALE, Status.STALE]
    bench.source.use([])
    await bench.step()
    assert {row.parsed for row in bench.resources} == {None}
    bench.source.use([WIDGET])
    await bench.step()
    assert bench.sizes["a"] == 5


async def test_run_follows_the_folder(path: Path) -> None:
    bench = Bench(path)
    bench.source = FolderSource(path, bench.state, [WIDGET])
    bench.put("a.yaml", widget("a"))
    ready = asyncio.Event()
    watch = bench.resources.watch()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bench.source.run(ready.set))
        await ready.wait()
        assert bench.sizes == {"a": 1}
        for size in range(2, 50):
            bench.put("a.yaml", widget("a", size))
            while bench.sizes["a"] != size:
                await anext(watch)
        task.cancel()


async def test_thousand_files_are_read_fast_and_the_loop_gets_its_turns(path: Path) -> None:
    bench = Bench(path)
    bench.source = FolderSource(path, bench.state, [WIDGET])
    for number in range(1000):
        (path / f"{number}.yaml").write_text(widget(f"n{number}"))
    loop, turns = asyncio.get_running_loop(), 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    loop.call_soon(turn)
    begin = loop.time()
    with bench.source.open():
        await bench.source.step()
    assert len(bench.resources) == 1000
    assert loop.time() - begin < 3
    assert turns > 5
