"""The source of resources that needs nothing but a folder: files are read when they change, and the tables follow.

The rules for what is in effect are in `axoneme.core.state.folder`. Here is the watching (inotify(7)):

- A file is read when its writer closed it, or when it was moved into place. While somebody writes into it in place,
  it is left alone: half a file may look whole. After `PATIENCE` seconds without a write it is read nevertheless.
- An empty file may be one that somebody begins to write, who is seen only a moment later: it gets `SETTLE` seconds.
- When the kernel's queue overflowed, the folder is scanned anew; it also is every `RESCAN` seconds, for what no event
  tells (the targets of symbolic links).
- A folder that is not there, or that cannot be watched, is looked at every `POLL` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from asyncinotify import Inotify, Mask, Watch
from attrs import evolve

from axoneme.core import logs
from axoneme.core.errors import AxonemeError, Where
from axoneme.core.garbage import uncollected
from axoneme.core.records import Health, Level, ResourceKind
from axoneme.core.state.folder import Folder, Reading, is_resource_file
from axoneme.core.state.resources import (
    RESOURCE_FILES,
    RESOURCES,
    Kinds,
    Problem,
    Resource,
    ResourceFile,
    Status,
)
from axoneme.core.state.table import State

log = logs.get(__name__)

PATIENCE: Final = 10.0
SETTLE: Final = 0.5
RESCAN: Final = 30.0
POLL: Final = 1.0
#: From so many files at once on, garbage is collected afterwards.
MANY: Final = 8
#: The loop gets its turn at least so often (in seconds) while many files are read.
SLICE: Final = 0.005

_NEVER: Final = float("inf")
_MASK: Final = (
    Mask.CREATE
    | Mask.MODIFY
    | Mask.CLOSE_WRITE
    | Mask.ATTRIB
    | Mask.MOVED_FROM
    | Mask.MOVED_TO
    | Mask.DELETE
    | Mask.DELETE_SELF
    | Mask.MOVE_SELF
    | Mask.ONLYDIR
    | Mask.EXCL_UNLINK
)
_LOST: Final = Mask.DELETE_SELF | Mask.MOVE_SELF | Mask.UNMOUNT | Mask.IGNORED


class FolderSource:
    """Feeds the tables `resources` and `resource_files` from a folder.

    `resources` waits for its first full scan (`Table.initialized`). A folder that does not exist is waited for, and
    the table with it: an empty set of policies is never assumed.

    :param path: the folder; `*.yaml`, `*.yml` and `*.json` in it are read, folders inside are not.
    :param clock: seconds, rising.
    """

    def __init__(
        self,
        path: Path,
        state: State,
        kinds: Iterable[ResourceKind],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        state.declare(RESOURCES)
        state.declare(RESOURCE_FILES)
        self.path, self.name = path, f"folder:{path}"
        self._clock = clock
        self._folder = Folder(path, state, Kinds(kinds), self.name)
        self._resources = state.writer("resources", Resource)
        self._files = state.table("resource_files", ResourceFile)
        self._resources.expect(self.name)
        self._kinds: Kinds | None = None
        self._applied = asyncio.Event()
        self._applied.set()
        self._inotify: Inotify | None = None
        self._watch: Watch | None = None
        self._inode: tuple[int, int] | None = None
        self._unwatched = ""
        self._wake = asyncio.Event()
        self._next_scan = -_NEVER
        self._dirty: set[str] = set()
        #: Files that somebody writes into → when the last write was seen.
        self._writing: dict[str, float] = {}
        #: Empty files → since when they are.
        self._empty: dict[str, float] = {}
        #: Files that are read though somebody has them open for writing.
        self._unfinished: set[str] = set()
        #: Files written into since they were last looked at: what was seen of them may be half a file.
        self._torn: set[str] = set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Keeps the tables in step with the folder until cancelled; calls `ready` after the first full scan."""
        loop, told = asyncio.get_running_loop(), False
        with self.open() as inotify:
            loop.add_reader(inotify.fd, self._wake.set)
            try:
                while True:
                    self._wake.clear()
                    due = await self.step()
                    if not told and self.name not in self._resources.awaited:
                        told = True
                        ready()
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(max(0.0, due - self._clock())):
                            await self._wake.wait()
            finally:
                loop.remove_reader(inotify.fd)

    @contextlib.contextmanager
    def open(self) -> Iterator[Inotify]:
        """Holds the inotify instance that `step` needs. Raises `AxonemeError` when the kernel gives none."""
        try:
            inotify = Inotify(cache_size=256, sync_timeout=0)
        except OSError as error:
            raise AxonemeError(
                f"no inotify instance: {error.strerror}", hint="raise fs.inotify.max_user_instances"
            ) from error
        with inotify:
            self._inotify, self._next_scan = inotify, -_NEVER
            try:
                yield inotify
            finally:
                self._inotify = self._watch = None

    async def step(self) -> float:
        """Does all that is due; returns when (on the source's clock) there will be more, unless an event comes earlier."""
        now = self._clock()
        rekinded, self._kinds = self._kinds, None
        if rekinded is not None:
            self._folder.rekind(rekinded)
            self._next_scan = now
        self._attach(now)
        self._drain(now)
        scanning = now >= self._next_scan
        names = self._due(now, scanning)
        with uncollected(len(names) > MANY):
            readings = await self._look(names, now)
            self._drain(now)
            for name, reading in readings.items():
                if name not in self._torn and not self._is_settling(name, reading, now):
                    self._folder.take(name, self._doubted(name, reading), now)
            expiry = self._folder.expire(now)
            self._folder.commit()
        if rekinded is not None and self._kinds is None:
            self._applied.set()
        if scanning and self._folder.problem is None:
            self._through()
        writing = min(self._writing.values(), default=_NEVER) + PATIENCE
        empty = min(self._empty.values(), default=_NEVER) + SETTLE
        more = now if self._dirty else _NEVER
        return min(self._next_scan, writing, empty, more, _NEVER if expiry is None else expiry)

    def use(self, kinds: Iterable[ResourceKind]) -> None:
        """From now on these kinds are understood: every file is read anew with them, soon."""
        self._kinds = Kinds(kinds)
        self._applied.clear()
        self._wake.set()

    async def applied(self) -> None:
        """Returns once everything was read with the kinds that `use` was given last."""
        await self._applied.wait()

    def health(self) -> Health:
        """Degraded while the folder, a file or an object has a problem; unknown before the first full scan."""
        if self._folder.problem is not None:
            return Health(level=Level.DEGRADED, reason=str(self._folder.problem))
        if self.name in self._resources.awaited:
            return Health(level=Level.UNKNOWN, reason=f"reading {self.path}")
        if self._unwatched:
            return Health(level=Level.DEGRADED, reason=self._unwatched)
        objects = [
            row for status in (Status.STALE, Status.INVALID) for row in self._resources.by("status", status)
        ]
        problems = [
            row.problems[0] for row in (*self._files, *objects) if row.problems and row.source == self.name
        ]
        if not problems:
            return Health(level=Level.OK)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Health(level=Level.DEGRADED, reason=f"{problems[0]}{more}")

    # Reading

    def _due(self, now: float, scanning: bool) -> list[str]:
        """The names to look at now."""
        for name in [name for name, since in self._writing.items() if now - since >= PATIENCE]:
            del self._writing[name]
            self._dirty.add(name)
            self._unfinished.add(name)
        self._dirty.update(name for name, since in self._empty.items() if now - since >= SETTLE)
        names = self._dirty.difference(self._writing)
        self._dirty = set()
        if scanning:
            names.update(name for name in self._folder.scan(now) if name not in self._writing)
            self._next_scan = now + (RESCAN if self._watch is not None else POLL)
        return sorted(names)

    async def _look(self, names: list[str], now: float) -> dict[str, Reading]:
        """What is in these files. When one is gone it may have a new name: that is looked up before anything is lost."""
        readings: dict[str, Reading] = {}
        turn = self._clock()
        while names:
            for name in names:
                self._torn.discard(name)
                readings[name] = self._folder.look(name)
                if self._clock() - turn > SLICE:
                    await asyncio.sleep(0)
                    turn = self._clock()
            if not any(readings[name].gone for name in names):
                break
            names = [
                name for name in self._folder.scan(now) if name not in readings and name not in self._writing
            ]
        return readings

    def _is_settling(self, name: str, reading: Reading, now: float) -> bool:
        """Whether a file is empty, and that is too new to be believed."""
        is_empty = reading.signature is not None and reading.signature[2] == 0 and not reading.same
        if is_empty and now - self._empty.setdefault(name, now) < SETTLE:
            return True
        self._empty.pop(name, None)
        return False

    def _doubted(self, name: str, reading: Reading) -> Reading:
        """A file that was not closed yet may have more objects than it shows; it is read again when it is closed."""
        if name not in self._unfinished or reading.gone or reading.same:
            return reading
        doubt = Problem("somebody is writing into the file", Where(str(self.path / name)))
        # Without signature and digest, the next look reads it anew.
        return evolve(reading, signature=None, digest=None, doubts=(*reading.doubts, doubt))

    def _through(self) -> None:
        if self.name in self._resources.awaited:
            self._resources.mark_initialized(self.name)
            log.info("resources_read", folder=str(self.path), objects=len(self._resources))

    # Watching

    def _attach(self, now: float) -> None:
        """Sees to it that the folder that is there is the one that is watched."""
        if self._watch is not None and now >= self._next_scan and self._identity() != self._inode:
            self._detach()
        if self._watch is not None:
            return
        assert self._inotify is not None, "step needs an open source"
        try:
            self._watch = self._inotify.add_watch(self.path, _MASK)
            self._inode, self._unwatched = self._identity(), ""
            self._next_scan = now
        except OSError as error:
            self._unwatched = f"cannot watch {self.path}: {error.strerror}; it is looked at every {POLL:g} s"

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self.path)
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _detach(self) -> None:
        assert self._inotify is not None
        if self._watch is not None:
            with contextlib.suppress(OSError):  # the kernel may have removed it already
                self._inotify.rm_watch(self._watch)
        self._watch = None
        self._writing.clear()
        self._unfinished.clear()
        self._next_scan = -_NEVER

    def _drain(self, now: float) -> None:
        """Takes note of all events that the kernel has queued."""
        assert self._inotify is not None
        while (event := self._inotify.sync_get()) is not None:
            if Mask.Q_OVERFLOW in event.mask:
                log.warning("inotify_overflow", folder=str(self.path))
                self._writing.clear()
                self._unfinished.clear()
                self._next_scan = -_NEVER
            elif event.watch is self._watch and self._watch is not None:
                self._note(event.mask, None if event.name is None else str(event.name), now)

    def _note(self, mask: Mask, name: str | None, now: float) -> None:
        if mask & _LOST:
            self._detach()
        elif name is None or name.startswith(".."):
            # The folder's own mode changed, or the link that is swapped in a volume projected by Kubernetes.
            self._next_scan = -_NEVER
        elif is_resource_file(name):
            self._empty.pop(name, None)
            if mask & Mask.MODIFY:
                self._writing[name] = now
                self._unfinished.discard(name)
                self._torn.add(name)
            elif mask & Mask.CREATE and self._is_begun(name):
                self._writing[name] = now
            elif not (mask & Mask.ATTRIB and name in self._writing):
                self._writing.pop(name, None)
                self._unfinished.discard(name)
                self._dirty.add(name)

    def _is_begun(self, name: str) -> bool:
        """Whether a new name is an empty file, which its maker has open to write into it."""
        try:
            status = os.lstat(self.path / name)
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == 0 and status.st_nlink == 1
