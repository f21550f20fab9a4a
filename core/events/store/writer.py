"""Writes a store: one process, one thread at a time."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

from attrs import frozen

from axoneme.core import logs
from axoneme.core.datapath.abi import EVENT
from axoneme.core.errors import AxonemeError, LockedError, Where
from axoneme.core.events.store import segment
from axoneme.core.events.store.codec import MAX_RECORDS, Records, records_frame, to_wall_clock
from axoneme.core.events.store.journal import Names, journal_frames, mentioned
from axoneme.core.events.store.segment import EMPTY_FOOT, Head, Segment, grown, path_of

log = logs.get(__name__)

LOCK: Final = "lock"
#: Seconds between two writes that are pressed on to the disk: what a power cut may cost. A killed process costs nothing.
SYNC: Final = 10.0
#: The store leaves so much of the file system to others: a tenth, at most this many bytes.
RESERVE: Final = 256 << 20


class StoreError(AxonemeError):
    """Records that cannot be written: the disk is full, read-only or gone. What was written before is untouched."""


@frozen
class Limits:
    """When old records give way to new ones.

    :param size: bytes of the disk, all segments together.
    :param age: seconds.
    """

    size: int = 256 << 20
    age: float = 7 * 86400.0

    @property
    def segment_size(self) -> int:
        """A sixteenth: so much is given up at once."""
        return min(max(self.size // 16, 64 << 10), 16 << 20)

    @property
    def segment_age(self) -> float:
        return self.age / 16


class EventStore:
    """The only writer of a folder. Not to be used by several threads at once.

    :param folder: is made if it is not there.
    :param limits: may be replaced at any time.
    :param node: the name that goes with the records.
    :param clock: ns since 1970.
    :raises LockedError: when another process, or another object of this one, writes there.
    :raises StoreError: when the folder cannot be used.
    """

    def __init__(
        self, folder: Path, limits: Limits, *, node: str = "", clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.folder, self.limits = folder, limits
        #: Records that were written.
        self.written = 0
        self._head, self._clock = Head(EVENT.dtype, node), clock
        self._segments: list[Segment] = []
        self._file = -1
        self._began = self._synced = 0.0
        #: What the open segment's journal says.
        self._noted: dict[tuple[str, int], Any] = {}
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = _locked(folder)
        except OSError as error:
            raise _store_error(error, folder) from error
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return sum(one.disk for one in self._segments)

    @property
    def segments(self) -> int:
        return len(self._segments)

    @property
    def oldest(self) -> int:
        """Time of the oldest record, ns since 1970; 0 when there is none."""
        return min((one.foot.first for one in self._segments if one.foot.records), default=0)

    # Writing

    def append(self, records: Records, names: Names, *, offset: int | None = None) -> None:
        """Writes records as the ring has them, in the order of their times, and what is new of `names`.

        When it returns, a killed process does not lose them. When it raises, none of the batch's last part is there.

        :param offset: what to add to the records' times to get ns since 1970; None: as the clocks are now.
        :raises StoreError: when they cannot be written; the next call tries again.
        """
        if (
            records.dtype != EVENT.dtype
        ):  # numpy turns numbers in network order round when it concatenates records
            records = records.astype(EVENT.dtype)
        if offset is None or offset:
            records = to_wall_clock(records, offset)
        times = records["time"]
        if (times[1:] < times[:-1]).any():
            records = records[times.argsort(kind="stable")]
        self.expire()
        for start in range(0, len(records), MAX_RECORDS):
            try:
                self._write(records[start : start + MAX_RECORDS], names)
            except OSError as error:
                self._take_back()
                raise _store_error(error, self.folder) from error

    def _write(self, records: Records, names: Names) -> None:
        if self._file >= 0 and self._is_full():
            self._complete()
        fresh = self._file < 0
        noted = {} if fresh else self._noted
        rows = [
            (kind, number, row)
            for kind, number, row in mentioned(records, names).rows()
            if noted.get((kind, number)) != row
        ]
        frame = records_frame(records)
        data = b"".join(one.pack() for one in [*journal_frames(rows), frame])
        if fresh:
            data = self._head.frame().pack() + data
        self._make_room(len(data))
        if fresh:
            self._begin()
        current = self._segments[-1]
        _write_all(self._file, data, current.size)
        current.size += len(data)
        current.foot = grown(current.foot, frame)
        self._noted.update({(kind, number): row for kind, number, row in rows})
        self.written += len(records)
        self._sync()

    def _begin(self) -> None:
        number = max((one.number for one in self._segments), default=0) + 1
        path = path_of(self.folder, number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(path, flags, 0o600)
        self._segments.append(Segment(path, 0, EMPTY_FOOT, complete=False))
        self._noted = {}
        self._began = self._synced = time.monotonic()

    def _is_full(self) -> bool:
        return (
            self._segments[-1].size >= self.limits.segment_size
            or time.monotonic() - self._began >= self.limits.segment_age
        )

    def _sync(self) -> None:
        if time.monotonic() - self._synced >= SYNC:
            os.fdatasync(self._file)
            self._synced = time.monotonic()

    def _complete(self) -> None:
        """Ends the open segment. Where that does not work it stays without its foot, and the next start gives it one."""
        current, file = self._segments[-1], self._file
        self._file = -1
        try:
            foot = current.foot.pack()
            _write_all(file, foot, current.size)
            os.fdatasync(file)
            current.size += len(foot)
        finally:
            os.close(file)
            current.complete = True

    def _take_back(self) -> None:
        """After a failed write: cuts off what may stand there of it, or begins a new segment next time."""
        if self._file < 0:
            return
        current = self._segments[-1]
        try:
            os.ftruncate(self._file, current.size)
        except OSError:
            os.close(self._file)
            self._file, current.complete = -1, True
        if not current.foot.records:
            self._abandon(current)

    def _abandon(self, current: Segment) -> None:
        """A segment without records takes no room."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        self._remove(current)

    # Giving way

    def expire(self) -> None:
        """Removes what is too old, and what is too much."""
        oldest = self._clock() - int(self.limits.age * 1e9)
        for one in [one for one in self._segments if one.complete and one.foot.last < oldest]:
            self._remove(one)

    def _make_room(self, size: int) -> None:
        """Raises `OSError` when the disk has too little left for others."""
        while self.size + size > self.limits.size:
            oldest = next((one for one in self._segments if one.complete), None)
            if oldest is None:
                break
            self._remove(oldest)
        disk = os.statvfs(self.folder)
        reserve = min(disk.f_blocks * disk.f_frsize // 10, RESERVE)
        if disk.f_bavail * disk.f_frsize < segment.blocks(size) + reserve:
            raise OSError(errno.ENOSPC, f"less than {reserve >> 10} KiB would be left for others")

    def _remove(self, one: Segment) -> None:
        with contextlib.suppress(FileNotFoundError):
            one.path.unlink()
        self._segments.remove(one)

    # Opening and closing

    def _open(self) -> None:
        try:
            paths = segment.paths(self.folder)
        except OSError as error:
            raise _store_error(error, self.folder) from error
        for path in paths:
            try:
                if (found := segment.repair(path)) is not None:
                    self._segments.append(found)
            except OSError as error:  # its records can still be read; it goes when its number is up
                log.warning("event segment not repaired", file=str(path), error=str(error))
                with contextlib.suppress(OSError):
                    self._segments.append(Segment(path, path.stat().st_size, EMPTY_FOOT, complete=True))

    def close(self) -> None:
        """Completes the open segment and lets others write. Raises nothing: what is written can be read in any case."""
        try:
            if self._file >= 0:
                self._complete()
        except OSError as error:
            log.warning("event segment not completed", error=str(error))
        finally:
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def _locked(folder: Path) -> int:
    """The lock of a folder, until it is closed or the process ends, however it ends."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LockedError(
            "another process writes this event store",
            where=Where(str(folder)),
            hint="one agent writes, any number may read",
        ) from None
    return descriptor


def _write_all(file: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count


def _store_error(error: OSError, folder: Path) -> StoreError:
    return StoreError(
        f"events are not recorded: {error.strerror or error}",
        where=Where(str(folder)),
        hint="make room or repair the disk; recording goes on by itself",
    )
