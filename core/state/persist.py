"""State that outlives the agent: files replaced atomically, and numbers that names keep.

A file is written beside its target, flushed to the disk and renamed over it, so that after a crash, a power cut or a
full disk there is either the old content or the new one, never a piece.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from axoneme.core.errors import AxonemeError, Where

#: The format of the file that `Numbers` keeps.
VERSION = 1

#: So many of the numbers freed last are not given out again while there are others.
QUARANTINE = 1024


class PersistError(AxonemeError):
    """State that cannot be written or read back. What was there before is untouched."""


def write_atomic(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Replaces a file's content, durably and all at once.

    Raises `PersistError` when the disk is full, read-only or gone; the old file is then still there, unchanged. One
    process writes one path (the agent's lock sees to it): a temporary file left by a crash is overwritten.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        _write_durably(temporary, data, mode)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise PersistError(
            f"cannot write: {error.strerror or error}",
            where=Where(str(path)),
            hint="nothing was lost; make room or fix the permissions and try again",
        ) from error


def _write_durably(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Makes the rename itself durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Numbers:
    """Numbers from `first` to `last` that names keep, also over restarts.

    Numbers rise until the range is used up, and only then start over; those freed last wait until nothing else is left,
    so that what still refers to a freed number (a packet under way, a connection's entry) does not meet a new owner.

    :param path: the file that holds the allocations; its folder exists.
    :param what: what the numbers are, for messages (`identity`).
    """

    def __init__(self, path: Path, first: int, last: int, *, what: str = "number") -> None:
        if not 0 <= first <= last:
            raise ValueError(f"empty range {first}..{last}")
        self._path, self._first, self._last, self._what = path, first, last, what
        self._numbers: dict[str, int] = {}
        self._names: dict[int, str] = {}
        self._next = first
        self._freed: deque[int] = deque(maxlen=QUARANTINE)
        self._load()

    def get(self, name: str) -> int | None:
        """The number of a name, None if it has none."""
        return self._numbers.get(name)

    def name(self, number: int) -> str | None:
        """The name that has a number."""
        return self._names.get(number)

    def items(self) -> dict[str, int]:
        """All names with their numbers."""
        return dict(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    def allocate(self, name: str) -> int:
        """The number of a name; a new one if it has none yet, on the disk before it is returned.

        Raises `PersistError` when the range is used up or the disk refuses; then nothing has changed.
        """
        return self.allocate_many((name,))[name]

    def allocate_many(self, names: Iterable[str]) -> dict[str, int]:
        """As `allocate`, with one write for all: either every name has its number, or nothing has changed."""
        wanted = dict.fromkeys(names)
        new = [name for name in wanted if name not in self._numbers]
        if new:
            before = self._next
            try:
                for name in new:
                    self._give(name, self._free())
                self._save()
            except PersistError:
                self._take_back(new, before)
                raise
        return {name: self._numbers[name] for name in wanted}

    def release(self, *names: str) -> None:
        """Frees the numbers of names (those that have one). Raises `PersistError`; then they are still taken."""
        freed = {name: self._numbers[name] for name in names if name in self._numbers}
        if not freed:
            return
        quarantine = tuple(self._freed)
        for name, number in freed.items():
            del self._numbers[name], self._names[number]
            self._freed.append(number)
        try:
            self._save()
        except PersistError:
            self._freed.clear()
            self._freed.extend(quarantine)
            for name, number in freed.items():
                self._give(name, number)
            raise

    def _give(self, name: str, number: int) -> None:
        self._numbers[name] = number
        self._names[number] = name

    def _take_back(self, names: Iterable[str], following: int) -> None:
        for name in names:
            if (number := self._numbers.pop(name, None)) is not None:
                del self._names[number]
        self._next = following

    def _free(self) -> int:
        """A number that nobody has, preferably none of those freed last; the oldest of them if need be."""
        size = self._last - self._first + 1
        if len(self._names) >= size:
            raise PersistError(
                f"no {self._what} left: all of {self._first} to {self._last} are taken",
                where=Where(str(self._path)),
            )
        resting = set(self._freed).difference(self._names)
        if len(self._names) + len(resting) >= size:
            return next(number for number in self._freed if number not in self._names)
        while self._next in self._names or self._next in resting:
            self._next = self._after(self._next)
        number, self._next = self._next, self._after(self._next)
        return number

    def _after(self, number: int) -> int:
        return number + 1 if number < self._last else self._first

    def _save(self) -> None:
        content = {
            "version": VERSION,
            "next": self._next,
            "freed": list(self._freed),
            "numbers": self._numbers,
        }
        write_atomic(self._path, json.dumps(content, separators=(",", ":")).encode())

    def _load(self) -> None:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error
        try:
            data = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise self._unreadable(str(error)) from error
        self._adopt(data)

    def _adopt(self, data: Any) -> None:
        if not isinstance(data, Mapping) or data.get("version") != VERSION:
            raise self._unreadable(f"not a file of version {VERSION}")
        numbers, freed, following = data.get("numbers"), data.get("freed"), data.get("next", self._first)
        if not isinstance(numbers, dict) or not isinstance(freed, list):
            raise self._unreadable("its numbers are missing")
        for number in (*numbers.values(), *freed, following):
            if type(number) is not int or not self._first <= number <= self._last:
                raise self._unreadable(f"{number!r} is not between {self._first} and {self._last}")
        if len(set(numbers.values())) != len(numbers):
            raise self._unreadable("two names have the same number")
        self._numbers, self._next = numbers, following
        self._names = {number: name for name, number in numbers.items()}
        self._freed.extend(freed)

    def _unreadable(self, reason: str) -> PersistError:
        return PersistError(
            f"cannot be used: {reason}",
            where=Where(str(self._path)),
            hint=f"restore it, or remove it and let every {self._what} be given anew",
        )
