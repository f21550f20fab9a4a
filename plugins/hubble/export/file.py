"""JSON lines in a file that is replaced when it has grown: `NAME`, and older ones as `NAME.1`, `NAME.2.gz`, …"""

from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from axoneme.core.errors import AxonemeError, Where
from axoneme.plugins.hubble import jsonpb
from axoneme.plugins.hubble.export.config import FileExport
from axoneme.plugins.hubble.proto import observer_pb2

#: Flows tell who talks to whom: not everybody's business.
_MODE: Final = 0o640


class JsonFile:
    """The sink. Raises `AxonemeError` when the file cannot be written."""

    def __init__(self, settings: FileExport) -> None:
        self._settings = settings
        self._path = settings.path
        self._file: IO[bytes] | None = None

    def open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab", opener=lambda path, flags: os.open(path, flags, _MODE))  # noqa: SIM115
            self._end_line()
        except OSError as error:
            raise self._error(error) from None

    def _end_line(self) -> None:
        """A line that an earlier agent was killed in the middle of is ended, so that only that one is spoilt."""
        assert self._file is not None
        if self._file.tell():
            with open(self._path, "rb") as before:
                before.seek(-1, os.SEEK_END)
                if before.read(1) != b"\n":
                    self._file.write(b"\n")

    def write(self, messages: Sequence[bytes]) -> None:
        assert self._file is not None
        try:
            self._file.write("".join(map(line, messages)).encode())
            self._file.flush()
            if self._file.tell() >= self._settings.max_size_mb << 20:
                self._rotate()
        except OSError as error:
            raise self._error(error) from None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _rotate(self) -> None:
        """The oldest go, each other one gets the next number, and a new file is begun."""
        self.close()
        kept = self._settings.max_backups
        for number in range(kept, 0, -1):
            for old in (self._numbered(number), self._numbered(number, ".gz")):
                if not old.exists():
                    continue
                if number == kept:
                    old.unlink()
                else:
                    old.rename(self._numbered(number + 1, ".gz" if old.suffix == ".gz" else ""))
        if kept:
            self._path.rename(self._numbered(1))
            if self._settings.compress:
                _compress(self._numbered(1), self._numbered(1, ".gz"))
        else:
            self._path.unlink()
        self.open()

    def _numbered(self, number: int, suffix: str = "") -> Path:
        return self._path.with_name(f"{self._path.name}.{number}{suffix}")

    def _error(self, error: OSError) -> AxonemeError:
        return AxonemeError(f"flows cannot be exported: {error.strerror}", where=Where(str(self._path)))


def line(message: bytes) -> str:
    """A `GetFlowsResponse` as an `ExportEvent`: on the wire they are the same."""
    return jsonpb.text(observer_pb2.ExportEvent.FromString(message)) + "\n"


def _compress(source: Path, target: Path) -> None:
    with (
        open(source, "rb") as plain,
        open(target, "wb", opener=lambda path, flags: os.open(path, flags, _MODE)) as out,
        gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=6) as packed,
    ):
        shutil.copyfileobj(plain, packed, 1 << 16)
    source.unlink()
