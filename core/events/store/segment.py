"""Segments: the files of a store, what stands at their beginning and their end, and their repair."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

import numpy as np
from attrs import define, evolve, frozen

from axoneme.core.events.store.codec import DamagedError, describe_layout, layout_of, packed, unpacked
from axoneme.core.events.store.frames import HEADER_SIZE, Frame, FrameKind, foot_of, frames

VERSION: Final = 1
_NAME = re.compile(r"(\d{12})\.events")
#: The largest file that is read; the largest that is written is a quarter of it.
MAX_BYTES: Final = 64 << 20
#: A file takes at least so much of the disk.
_BLOCK: Final = 4096


@frozen
class Head:
    """What a segment's first frame says: how its records are laid out, and on which node it was written."""

    layout: np.dtype[Any]
    node: str = ""

    def frame(self) -> Frame:
        content = {"version": VERSION, "node": self.node, "layout": describe_layout(self.layout)}
        return packed(FrameKind.HEAD, json.dumps(content).encode())

    @classmethod
    def of(cls, frame: Frame) -> Head:
        """Raises `DamagedError`, also for a segment of a version that is not known."""
        try:
            content = json.loads(unpacked(frame))
            if content["version"] != VERSION:
                raise DamagedError(f"a segment of version {content['version']}")
            return cls(layout_of(content["layout"]), str(content["node"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DamagedError(f"a segment's head cannot be read: {error}") from error


def blocks(size: int) -> int:
    """The bytes that so many take on the disk."""
    return -(-size // _BLOCK) * _BLOCK


@define
class Segment:
    """A segment's file and what is known of it.

    :param foot: counts and times of all its records.
    :param complete: it has its foot, nothing will be added.
    """

    path: Path
    size: int
    foot: Frame
    complete: bool

    @property
    def number(self) -> int:
        return number_of(self.path)

    @property
    def disk(self) -> int:
        """Bytes of the disk, in whole blocks, so that many small files are not free."""
        return blocks(self.size)


EMPTY_FOOT: Final = Frame(FrameKind.FOOT)


def grown(foot: Frame, frame: Frame) -> Frame:
    """A foot that counts one more frame of records."""
    first = min(foot.first, frame.first) if foot.records else frame.first
    return evolve(
        foot,
        records=min(foot.records + frame.records, 0xFFFFFFFF),
        types=foot.types | frame.types,
        first=first,
        last=max(foot.last, frame.last),
    )


def path_of(folder: Path, number: int) -> Path:
    return folder / f"{number:012d}.events"


def number_of(path: Path) -> int:
    found = _NAME.fullmatch(path.name)
    return int(found[1]) if found else -1


def paths(folder: Path) -> list[Path]:
    """The segments of a folder, oldest first; none when there is no folder. Raises `OSError`."""
    try:
        found = [entry.name for entry in os.scandir(folder)]
    except FileNotFoundError:
        return []
    return [folder / name for name in sorted(found) if _NAME.fullmatch(name)]


def read(path: Path) -> bytes:
    """A segment's bytes, at most `MAX_BYTES`. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(MAX_BYTES)


def look(path: Path) -> Segment | None:
    """What a segment's end says of it, without reading the rest; None when it has no foot. Raises `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        foot = foot_of(os.pread(descriptor, HEADER_SIZE, size - HEADER_SIZE)) if size > HEADER_SIZE else None
    finally:
        os.close(descriptor)
    return None if foot is None else Segment(path, size, foot, complete=True)


def repair(path: Path) -> Segment | None:
    """Cuts off what a crash left half written and completes the segment; removes it when no record is left: None.

    Raises `OSError`.
    """
    if (complete := look(path)) is not None:
        return complete
    foot, end = EMPTY_FOOT, 0
    for offset, frame in frames(read(path)):
        if frame.kind is FrameKind.RECORDS:
            foot, end = grown(foot, frame), offset
    if not foot.records:
        path.unlink()
        return None
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.ftruncate(descriptor, end)
        os.pwrite(descriptor, foot.pack(), end)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    return Segment(path, end + HEADER_SIZE, foot, complete=True)
