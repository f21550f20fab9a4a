"""The cache of compiled programs: a file per content hash, so that a warm start needs no compiler.

An entry is a line of JSON (names, sizes, checksum) and the instructions. It is written under another name and renamed,
so that a reader never sees half of one; what is damaged all the same is a miss.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from axoneme.core.errors import AxonemeError

_SUFFIX = ".bpf"
_COST = ".verified"


class CacheError(AxonemeError):
    """The cache cannot be written. Nothing is lost but time at the next start."""


class Cache:
    """Bytecode by key.

    :param folder: where entries are written.
    :param shipped: folders that are only read, such as one in a package that brings its bytecode.
    :param keep: how many entries stay; the least recently used go.
    """

    def __init__(self, folder: Path, *, shipped: Iterable[Path] = (), keep: int = 256) -> None:
        self.folder = folder
        self.shipped = tuple(shipped)
        self.keep = keep

    def get(self, key: str) -> dict[str, bytes] | None:
        """The programs of that key by name, or None."""
        for folder in (self.folder, *self.shipped):
            path = folder / (key + _SUFFIX)
            try:
                programs = _decode(path.read_bytes())
            except OSError:
                continue
            if programs is not None:
                _touch(path)
                return programs
        return None

    def put(self, key: str, programs: Mapping[str, bytes]) -> None:
        """Raises `CacheError` when the folder cannot be written, for example because the disk is full."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o755)
            self._write(self.folder / (key + _SUFFIX), _encode(programs))
            self._trim()
        except OSError as error:
            raise CacheError(
                f"the compile cache {self.folder} cannot be written: {error.strerror}",
                hint="programs are compiled again at the next start",
            ) from error

    def cost(self, key: str) -> int | None:
        """How many instructions this kernel's verifier walked for that key, if it was worth a note."""
        try:
            kernel, _, number = (self.folder / (key + _COST)).read_text().partition(" ")
            return int(number) if kernel == os.uname().release else None
        except (OSError, ValueError):
            return None

    def note_cost(self, key: str, verified: int) -> None:
        """Remembers it, so that what is too large for one program is not tried as one at every start."""
        try:
            self._write(self.folder / (key + _COST), f"{os.uname().release} {verified}".encode())
        except OSError:
            return  # the next start tries again, which costs it some seconds

    def _write(self, path: Path, content: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=".new-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except OSError:
            Path(name).unlink(missing_ok=True)
            raise

    def _trim(self) -> None:
        entries = sorted(self.folder.glob("*" + _SUFFIX), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in entries[self.keep :]:
            path.unlink(missing_ok=True)
            path.with_suffix(_COST).unlink(missing_ok=True)


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        return  # a read-only folder: its entries are not ours to trim either


def _encode(programs: Mapping[str, bytes]) -> bytes:
    body = b"".join(programs.values())
    sizes = [(name, len(code)) for name, code in programs.items()]
    head = {"programs": sizes, "sha256": _checksum(sizes, body)}
    return json.dumps(head).encode() + b"\n" + body


def _checksum(sizes: list[tuple[str, int]], body: bytes) -> str:
    """Of the names as well: a program under a damaged name would not be missed, but missing."""
    return hashlib.sha256(json.dumps(sizes).encode() + b"\n" + body).hexdigest()


def _decode(content: bytes) -> dict[str, bytes] | None:
    head, _, body = content.partition(b"\n")
    try:
        fields = json.loads(head)
        sizes = [(str(name), int(size)) for name, size in fields["programs"]]
    except (ValueError, KeyError, TypeError):
        return None
    if _checksum(sizes, body) != fields.get("sha256") or sum(size for _, size in sizes) != len(body):
        return None
    programs, start = {}, 0
    for name, size in sizes:
        programs[name] = body[start : start + size]
        start += size
    return programs
