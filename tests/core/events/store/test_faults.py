"""Killed, torn, flipped, full: what was written before can be read, and what cannot is counted."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stored import SECOND, names, records

from axoneme.core.events.store import segment, writer
from axoneme.core.events.store.frames import HEADER_SIZE, MAX_PAYLOAD, Frame, FrameKind, frames
from axoneme.core.events.store.reader import Damage, scan
from axoneme.core.events.store.writer import EventStore, Limits, StoreError

NOW = 1_000_000_000 * SECOND

#: Appends batches, numbered in `service`, as fast as it can, and tells each after it is written.
_CHILD = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from stored import names, records
from axoneme.core.events.store.writer import EventStore, Limits
store = EventStore(Path(sys.argv[1]), Limits(size=1 << 20))
number = 0
while True:
    store.append(records([time.time_ns()] * 50, service=number), names(), offset=0)
    print(number, flush=True)
    number += 1
"""


def numbers(folder: Path, damage: Damage | None = None) -> list[int]:
    """The batches that can be read, each of which has 50 records."""
    found = [int(n) for stretch in scan(folder, damage=damage) for n in stretch.records["service"]]
    assert all(found.count(n) == 50 for n in set(found))
    return sorted(set(found))


def test_killed_while_it_writes_nothing_is_lost_that_was_written(tmp_path: Path) -> None:
    """A real process and a real kill, again and again in the same folder."""
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) >= 40:
                    break
            child.send_signal(signal.SIGKILL)
            told = [int(rest) for rest in child.stdout.read().split()]
        damage = Damage()
        last = max([40, *told])
        assert numbers(tmp_path, damage)[: last + 1] == list(range(last + 1))
        assert damage == Damage()
        EventStore(tmp_path, Limits(size=1 << 20)).close()
        assert all(segment.look(path) for path in segment.paths(tmp_path)), "the next start completes it"
        assert numbers(tmp_path)[: last + 1] == list(range(last + 1))
        for path in segment.paths(tmp_path):
            path.unlink()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A segment with four batches, without its foot."""
    folder = tmp_path_factory.mktemp("written")
    store = EventStore(folder, Limits(), clock=lambda: NOW)
    for number in range(4):
        store.append(records([NOW + number] * 50, service=number), names(), offset=0)
    (path,) = segment.paths(folder)
    data = path.read_bytes()
    store.close()
    return data


def test_cut_off_anywhere(written: bytes, tmp_path: Path) -> None:
    """What is whole stays, the rest is cut, and the segment is complete afterwards: at every single length."""
    ends = [end for end, frame in frames(written) if frame.kind is FrameKind.RECORDS]
    path = segment.path_of(tmp_path, 1)
    for length in range(0, len(written), 7):
        path.write_bytes(written[:length])
        whole = list(range(sum(end <= length for end in ends)))
        assert numbers(tmp_path) == whole
        EventStore(tmp_path, Limits(), clock=lambda: NOW).close()
        assert numbers(tmp_path) == whole
        assert path.exists() == bool(whole)
        if whole:
            assert path.stat().st_size == ends[len(whole) - 1] + HEADER_SIZE


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_flipped_bit_costs_one_frame(
    written: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    bit = data.draw(st.integers(0, len(written) * 8 - 1))
    flipped = bytearray(written)
    flipped[bit // 8] ^= 1 << bit % 8
    folder = tmp_path_factory.mktemp("flipped")
    segment.path_of(folder, 1).write_bytes(flipped)
    head = next(end for end, frame in frames(written) if frame.kind is FrameKind.HEAD)
    damage = Damage()
    found = numbers(folder, damage)
    if bit // 8 < head:
        assert (found, damage.segments) == ([], 1)  # without knowing how records are laid out there are none
    else:
        assert len(found) >= 3
    EventStore(folder, Limits(), clock=lambda: NOW).close()
    assert numbers(folder) == found


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
def test_rubbish_is_no_segment(tmp_path_factory: pytest.TempPathFactory, rubbish: bytes) -> None:
    folder = tmp_path_factory.mktemp("rubbish")
    segment.path_of(folder, 1).write_bytes(rubbish)
    assert list(scan(folder)) == []
    EventStore(folder, Limits(), clock=lambda: NOW).close()
    assert segment.paths(folder) == []


def test_a_bomb_does_not_go_off(written: bytes, tmp_path: Path) -> None:
    """A frame with right checksums that unpacks to more than it may."""
    import zstandard

    bomb = zstandard.ZstdCompressor().compress(bytes(4 * MAX_PAYLOAD))
    claims = [Frame(FrameKind.JOURNAL, bomb, 100), Frame(FrameKind.RECORDS, bomb, 152, 1, 4, NOW, NOW)]
    segment.path_of(tmp_path, 1).write_bytes(b"".join([written, *(claim.pack() for claim in claims)]))
    damage = Damage()
    assert numbers(tmp_path, damage) == [0, 1, 2, 3]
    assert damage.frames == 2


@pytest.mark.parametrize(
    "head",
    [
        b"{}",
        b"[]",
        b'{"version":1,"node":"n","layout":[["time","O",[]]]}',
        b'{"version":2,"node":"","layout":[]}',
    ],
)
def test_a_head_that_makes_no_sense(head: bytes, tmp_path: Path) -> None:
    from axoneme.core.events.store.codec import packed

    segment.path_of(tmp_path, 1).write_bytes(packed(FrameKind.HEAD, head).pack())
    damage = Damage()
    assert list(scan(tmp_path, damage=damage)) == []
    assert (damage.frames, damage.segments) == (1, 1)


# The disk


def test_a_write_that_fails_half_way_is_taken_back(tmp_path: Path) -> None:
    store = EventStore(tmp_path, Limits(), clock=lambda: NOW)
    store.append(records([NOW] * 50, service=0), names(), offset=0)
    (path,) = segment.paths(tmp_path)
    size = path.stat().st_size

    def half(file: int, data: bytes, offset: int) -> None:
        os.pwrite(file, data[: len(data) // 2], offset)
        raise OSError(errno.ENOSPC, "No space left on device")

    with mock.patch.object(writer, "_write_all", half), pytest.raises(StoreError, match="No space left"):
        store.append(records([NOW] * 50, service=1), names("api"), offset=0)
    assert path.stat().st_size == size
    store.append(records([NOW] * 50, service=2), names("api"), offset=0)
    store.close()
    assert numbers(tmp_path) == [0, 2]
    assert [s.names.endpoints[7].name for s in scan(tmp_path)] == ["web", "api"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.kernel
def test_a_full_disk_stops_the_recording_and_room_lets_it_go_on(small_disk: Path) -> None:
    import numpy as np

    noise, number = np.random.default_rng(1), 0

    def append() -> None:
        made = records([NOW] * 50, service=number)
        made["bytes"] = noise.integers(0, 1 << 62, 50)
        store.append(made, names(), offset=0)

    filler = small_disk / "filler"
    filler.write_bytes(bytes(100_000))
    store = EventStore(small_disk / "events", Limits(), clock=lambda: NOW)
    with contextlib.suppress(StoreError):
        while True:
            append()
            number += 1
    with pytest.raises(StoreError, match="would be left for others"):
        append()
    disk = os.statvfs(small_disk)
    assert disk.f_bavail * disk.f_frsize >= 256 * 1024 // 10, "others have a tenth"
    filler.write_bytes(b"x" * (100_000 + disk.f_bavail * disk.f_frsize))  # and now they take it
    with pytest.raises(StoreError):
        append()
    assert numbers(small_disk / "events") == list(range(number))
    filler.unlink()
    append()
    store.close()
    assert numbers(small_disk / "events") == list(range(number + 1))
