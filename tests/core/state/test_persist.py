"""Numbers stay with their names over restarts and full disks, and freed ones rest before they come again."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.state import persist
from axoneme.core.state.persist import Numbers, PersistError, write_atomic


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "identities.json"


def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(persist.os, "write", write)


def test_names_keep_their_numbers_over_a_restart(path: Path) -> None:
    numbers = Numbers(path, 256, 300)
    assert [numbers.allocate(name) for name in ("a", "b", "a")] == [256, 257, 256]
    again = Numbers(path, 256, 300)
    assert again.items() == {"a": 256, "b": 257}
    assert again.allocate("c") == 258
    assert (again.get("b"), again.name(257), again.get("x"), again.name(9), len(again)) == (
        257,
        "b",
        None,
        None,
        3,
    )


def test_freed_numbers_are_not_reused_soon(path: Path) -> None:
    numbers = Numbers(path, 1, 5)
    for name in "abc":
        numbers.allocate(name)
    numbers.release("a", "nobody")
    numbers.release("b")
    numbers = Numbers(path, 1, 5)
    assert [numbers.allocate(name) for name in "de"] == [4, 5]
    assert [numbers.allocate(name) for name in "fg"] == [1, 2]  # the one freed first comes first


def test_numbers_start_over_at_the_end_of_the_range(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(persist, "QUARANTINE", 1)
    numbers = Numbers(path, 1, 4)
    for name in "abcd":
        numbers.allocate(name)
    numbers.release("b")
    numbers.release("c")
    assert numbers.allocate("e") == 2


def test_used_up_range_is_a_clear_error_and_changes_nothing(path: Path) -> None:
    numbers = Numbers(path, 1, 2, what="endpoint id")
    numbers.allocate("a")
    with pytest.raises(PersistError, match="no endpoint id left: all of 1 to 2 are taken"):
        numbers.allocate_many(["b", "c"])
    assert numbers.items() == Numbers(path, 1, 2).items() == {"a": 1}
    assert numbers.allocate("d") == 2


def test_full_disk_keeps_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = Numbers(path, 1, 9)
    numbers.allocate("a")
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(PersistError, match="No space left"):
            numbers.allocate("b")
        with pytest.raises(PersistError, match="No space left"):
            numbers.release("a")
    assert path.read_bytes() == before
    assert numbers.items() == {"a": 1}
    assert sorted(os.listdir(path.parent)) == [path.name]
    assert numbers.allocate("b") == 2


def test_failed_release_puts_the_quarantine_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = Numbers(path, 1, 3)
    numbers.allocate_many("abc")
    numbers.release("b")
    with monkeypatch.context() as patch:
        full_disk(patch)
        with pytest.raises(PersistError):
            numbers.release("a")
    assert numbers.allocate("d") == 2


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b'{"version":2}',
        b'{"version":1,"numbers":[],"freed":[],"next":1}',
        b'{"version":1,"numbers":{"a":1,"b":1},"freed":[],"next":1}',
        b'{"version":1,"numbers":{"a":77},"freed":[],"next":1}',
        b'{"version":1,"numbers":{"a":true},"freed":[],"next":1}',
        b'{"version":1,"numbers":{},"freed":["x"],"next":1}',
        b'{"version":1,"numbers":{},"freed":[],"next":null}',
        b"[" * 100_000,
    ],
)
def test_damaged_file_is_an_error_and_stays(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(PersistError, match="cannot be used") as caught:
        Numbers(path, 1, 9)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == content


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PersistError, match="cannot be used: Is a directory"):
        Numbers(tmp_path, 1, 9)


def test_empty_range_is_a_mistake(path: Path) -> None:
    with pytest.raises(ValueError, match="empty range"):
        Numbers(path, 2, 1)


def test_write_atomic_replaces_and_sets_the_mode(path: Path) -> None:
    path.write_text("old")
    write_atomic(path, b"new", mode=0o640)
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o640


def test_write_atomic_into_no_folder(tmp_path: Path) -> None:
    with pytest.raises(PersistError, match="No such file"):
        write_atomic(tmp_path / "missing" / "file", b"x")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.sampled_from("abcdef")), max_size=30))
def test_names_and_numbers_stay_one_to_one(tmp_path_factory: pytest.TempPathFactory, history: list) -> None:
    path = tmp_path_factory.mktemp("numbers") / "numbers.json"
    numbers, held = Numbers(path, 10, 16), {}
    for give, name in history:
        if give:
            held.setdefault(name, numbers.allocate(name))
        else:
            numbers.release(name)
            held.pop(name, None)
    assert (
        numbers.items()
        == held
        == Numbers(path, 10, 16).items()
        == json.loads(path.read_text() if history and path.exists() else '{"numbers":{}}')["numbers"]
    )
    assert len(set(held.values())) == len(held)
