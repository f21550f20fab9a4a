"""The compile cache: what was put comes back, and whatever happens to the files costs time at most."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.datapath.cache import Cache, CacheError

PROGRAMS = {"main": b"\x95" + bytes(7), "main_1_4": bytes(range(64))}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "programs")


def entry(cache: Cache, key: str = "key") -> Path:
    return cache.folder / f"{key}.bpf"


@given(st.dictionaries(st.text(min_size=1, max_size=20), st.binary(max_size=100), max_size=4))
def test_what_was_put_comes_back(
    tmp_path_factory: pytest.TempPathFactory, programs: dict[str, bytes]
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    cache.put("key", programs)
    assert cache.get("key") == programs
    assert list(cache.get("key") or {}) == list(programs), "in the same order"


def test_unknown_keys_are_misses(cache: Cache) -> None:
    assert cache.get("key") is None
    cache.put("key", PROGRAMS)
    assert cache.get("other") is None


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"{}\n", b"[]\n", b"null\n", b"not json", b'{"programs": 5}\n', b'{"programs": [["a", "x"]], "sha256": ""}\n',
     b'{"programs": [["a", -8]], "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}\n',
     b"\xff\xfe\n", b'{"programs": []}\n'],
)  # fmt: skip
def test_foreign_content_is_a_miss(cache: Cache, content: bytes) -> None:
    cache.put("key", PROGRAMS)
    entry(cache).write_bytes(content)
    assert cache.get("key") is None


def test_damage_at_any_byte_is_a_miss(cache: Cache) -> None:
    cache.put("key", PROGRAMS)
    whole = entry(cache).read_bytes()
    for at in range(len(whole)):
        changed = bytearray(whole)
        changed[at] ^= 0x01
        entry(cache).write_bytes(changed)
        assert cache.get("key") is None, f"byte {at}"


def test_truncation_at_any_length_is_a_miss(cache: Cache) -> None:
    cache.put("key", PROGRAMS)
    whole = entry(cache).read_bytes()
    for length in range(len(whole)):
        entry(cache).write_bytes(whole[:length])
        assert cache.get("key") is None


def test_a_damaged_entry_is_replaced(cache: Cache) -> None:
    cache.put("key", PROGRAMS)
    entry(cache).write_bytes(b"damaged")
    cache.put("key", PROGRAMS)
    assert cache.get("key") == PROGRAMS


def test_a_folder_in_the_place_of_an_entry_is_a_miss(cache: Cache) -> None:
    entry(cache).mkdir(parents=True)
    assert cache.get("key") is None
    with pytest.raises(CacheError):
        cache.put("key", PROGRAMS)


def test_shipped_entries_are_read_and_never_written(cache: Cache, tmp_path: Path) -> None:
    shipped = Cache(tmp_path / "shipped")
    shipped.put("key", PROGRAMS)
    reader = Cache(cache.folder, shipped=[shipped.folder])
    assert reader.get("key") == PROGRAMS
    reader.put("other", PROGRAMS)
    assert sorted(path.name for path in shipped.folder.iterdir()) == ["key.bpf"]
    entry(cache).write_bytes(b"damaged")
    assert reader.get("key") == PROGRAMS, "a damaged entry of our own does not hide it"


def test_the_least_recently_used_go(tmp_path: Path) -> None:
    cache = Cache(tmp_path, keep=3)
    for number in range(3):
        cache.put(f"key{number}", PROGRAMS)
        os.utime(entry(cache, f"key{number}"), (1000 + number, 1000 + number))
    cache.get("key0")
    cache.put("key3", PROGRAMS)
    assert {path.stem for path in tmp_path.glob("*.bpf")} == {"key0", "key2", "key3"}


def test_nothing_else_is_left_in_the_folder(cache: Cache) -> None:
    cache.put("key", PROGRAMS)
    cache.put("key", PROGRAMS)
    assert [path.name for path in cache.folder.iterdir()] == ["key.bpf"]


# Disks.


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "axoneme-test", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.kernel
def test_a_full_disk_is_told_and_keeps_what_is_there(mount: Path) -> None:
    cache = Cache(mount)
    cache.put("small", PROGRAMS)
    with pytest.raises(CacheError, match="cannot be written: No space left on device") as told:
        cache.put("large", {"main": os.urandom(1 << 17)})
    assert told.value.hint
    assert cache.get("small") == PROGRAMS
    assert cache.get("large") is None
    assert [path.name for path in mount.iterdir()] == ["small.bpf"], "no half-written file is left"


@pytest.mark.kernel
def test_a_read_only_disk_is_read(mount: Path) -> None:
    cache = Cache(mount)
    cache.put("key", PROGRAMS)
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    assert cache.get("key") == PROGRAMS
    with pytest.raises(CacheError, match="Read-only file system"):
        cache.put("other", PROGRAMS)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be written: Not a directory"):
        Cache(tmp_path / "file" / "cache").put("key", PROGRAMS)


def test_costs_are_noted_per_kernel(cache: Cache) -> None:
    cache.put("key", PROGRAMS)
    assert cache.cost("key") is None
    cache.note_cost("key", 600_000)
    assert cache.cost("key") == 600_000
    note = cache.folder / "key.verified"
    for other in ("0.0.1-other 600000", "garbage", ""):
        note.write_text(other)
        assert cache.cost("key") is None


def test_a_cost_that_cannot_be_noted_is_no_failure(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "absent")
    cache.note_cost("key", 5)
    assert cache.cost("key") is None
