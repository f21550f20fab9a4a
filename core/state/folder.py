"""A folder of resource files: what is in it, and what the tables `resources` and `resource_files` say of it.

Synchronous and without a clock of its own; `axoneme.core.state.ingest` feeds it with the events of a real folder.

What counts is that nothing is lost by accident:

- A file that cannot be read, is malformed, or has no object in it (empty, only comments, only `---`, also when somebody
  emptied it on purpose) keeps its last good objects in effect, and says what is wrong. **Objects are removed by deleting
  the file, or by a readable version of it without them.**
- While a file has a document of which it is not sure what object it means (no name, an unknown kind), the objects that
  are gone from the file stay too: one of them may be the one that was mistyped.
- A file that vanishes is missed for `GRACE` seconds before its objects go: editors move a file away, then write it anew.
- A folder that vanishes as a whole is a fault, not the deletion of everything.

An object that is in two files is taken from the one where it is in effect; if from both, the first by name, whichever
came first: so a restart changes nothing. The other file says so.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from attrs import Factory, define, evolve, frozen

from axoneme.core.errors import ResourceError, Where
from axoneme.core.state.document import MAX_BYTES, Document, DoubtError, Known, Written
from axoneme.core.state.parsing import flatten
from axoneme.core.state.parts import parts
from axoneme.core.state.resources import (
    Kinds,
    Problem,
    Resource,
    ResourceFile,
    ResourceKey,
    expand,
    read_resource,
    reread,
)
from axoneme.core.state.table import State, Transaction
from axoneme.core.state.yamlio import load

#: Files with other names, and those whose name begins with a dot, are not looked at.
SUFFIXES: Final = (".yaml", ".yml", ".json")
#: Seconds for which a vanished file is missed before its objects are removed.
GRACE: Final = 1.0

#: What tells that a file was changed: device, inode, size, times of change of content and inode, in ns.
Signature = tuple[int, int, int, int, int]


def is_resource_file(name: str) -> bool:
    return name.endswith(SUFFIXES) and not name.startswith(".")


@frozen(kw_only=True)
class Reading:
    """What one look at a file gave.

    :param gone: it is not there.
    :param same: its content is the one that was read last.
    :param objects: the objects that it has now.
    :param problems: of the file as a whole.
    :param doubts: why it is not sure that objects that it does not have now are meant to be gone; empty if it is.
    """

    signature: Signature | None = None
    digest: bytes | None = None
    gone: bool = False
    same: bool = False
    objects: dict[ResourceKey, Resource] = Factory(dict)
    problems: tuple[Problem, ...] = ()
    doubts: tuple[Problem, ...] = ()


@define
class _File:
    """What is known of one file.

    :param objects: by key, as they were read last, and those that are held.
    :param held: keys that the file does not have any more as it is now, and why they stay.
    :param gone: since when it is missed, in seconds.
    """

    signature: Signature | None = None
    digest: bytes | None = None
    objects: dict[ResourceKey, Resource] = Factory(dict)
    held: dict[ResourceKey, tuple[Problem, ...]] = Factory(dict)
    problems: tuple[Problem, ...] = ()
    gone: float | None = None


class Folder:
    """The engine: `scan` or events say which names to look at, `look` reads, `take` adopts, `commit` publishes.

    :param source: the name under which its rows stand in the tables; rows of other sources are left alone.
    """

    def __init__(self, path: Path, state: State, kinds: Kinds, source: str) -> None:
        self.path, self.source = path, source
        #: What is wrong with the folder as a whole.
        self.problem: Problem | None = None
        self._kinds = kinds
        self._state = state
        self._resources = state.writer("resources", Resource)
        self._rows = state.writer("resource_files", ResourceFile)
        self._files: dict[str, _File] = {}
        #: Which files have an object; of nearly all it is one, and all objects of a file share that tuple.
        self._offers: dict[ResourceKey, tuple[str, ...]] = {}
        self._fallback: dict[ResourceKey, Resource] = {}
        self._touched: dict[ResourceKey, None] = {}  # in order, so that a fresh scan fills the table in order
        self._changed: set[str] = set()

    def scan(self, now: float) -> list[str]:
        """The names to look at: those of new, changed, unreadable and missing files.

        When the folder itself cannot be listed this is noted, and nothing counts as missing.
        """
        try:
            with os.scandir(self.path) as entries:
                present = sorted(entry.name for entry in entries if is_resource_file(entry.name))
        except OSError as error:
            message = f"cannot list the folder: {error.strerror}"
            self.problem = Problem(message, Where(str(self.path)), "what was in it stays in effect")
            return []
        if self.problem is not None:  # it is back: what is missing now gets its time of grace anew
            self.problem = None
            for file in self._files.values():
                file.gone = None if file.gone is None else now
        missed = {name for name, file in self._files.items() if file.gone is None}.difference(present)
        return [name for name in present if self._is_new(name)] + sorted(missed)

    def look(self, name: str) -> Reading:
        """Reads and parses a file. It changes nothing."""
        where = Where(str(self.path / name))
        try:
            signature, content = _read(self.path / name)
        except FileNotFoundError:
            return Reading(gone=True)
        except ResourceError as error:
            return _unreadable(error)
        except OSError as error:
            return _unreadable(ResourceError(f"cannot be read: {error.strerror}", where=where))
        digest = hashlib.blake2b(content, digest_size=16).digest()
        file = self._files.get(name)
        if file is not None and file.digest == digest:
            return Reading(signature=signature, digest=digest, same=True)
        known = {} if file is None or file.digest is None else self._known(file)
        return evolve(self._parse(content, where, known), signature=signature, digest=digest)

    def take(self, name: str, reading: Reading, now: float) -> None:
        """Adopts what a look at a file gave; `now` in seconds."""
        file = self._files.get(name)
        if reading.gone:
            if file is not None and file.gone is None:
                file.gone = now
                self._touch(name, file)
            return
        if file is None:
            file = self._files[name] = _File()
        if file.gone is not None:
            file.gone = None
            self._touch(name, file)
        file.signature, file.digest = reading.signature, reading.digest
        if not reading.same:
            self._adopt(name, file, reading)

    def expire(self, now: float) -> float | None:
        """Drops the files that were missed for `GRACE`; returns when the next one is due, None if none is missed."""
        missed = {name: file.gone for name, file in self._files.items() if file.gone is not None}
        if not missed or self.problem is not None or not self.path.is_dir():
            return None
        for name, since in list(missed.items()):
            if now - since >= GRACE:
                del missed[name]
                file = self._files.pop(name)
                self._offer(name, file, {})
                self._changed.add(name)
        return min(missed.values()) + GRACE if missed else None

    def rekind(self, kinds: Kinds) -> None:
        """From now on these kinds are understood. The next `scan` names every file.

        Last good versions that stay in effect without being in a file any more are parsed anew from what they were.
        """
        before, self._kinds = self._kinds, kinds
        for row in self._resources.by("source", self.source):
            if row.in_effect and (row.problems or kinds.differ(before, row)):
                self._fallback[row.key] = reread(row, kinds)
        for name, file in self._files.items():
            file.signature = file.digest = None
            for key, old in file.objects.items():
                if old.in_effect and (key in file.held or kinds.differ(before, old)):
                    file.objects[key] = reread(old, kinds)
            self._touch(name, file)

    def commit(self) -> None:
        """Writes what changed since the last commit into the tables, in one transaction."""
        with self._state.transaction() as txn:
            for key in self._touched:
                self._publish(key, txn)
            for name in self._changed:
                self._publish_file(name, txn)
            if self.problem is None:
                txn.delete(self._rows, str(self.path))
            else:
                row = ResourceFile(path=str(self.path), source=self.source, problems=(self.problem,))
                txn.upsert(self._rows, row)
        self._touched.clear()
        self._changed.clear()
        self._fallback.clear()

    def _is_new(self, name: str) -> bool:
        file = self._files.get(name)
        if file is None or file.gone is not None or file.signature is None:
            return True
        try:
            return _signature(os.stat(self.path / name)) != file.signature
        except OSError:
            return True

    def _parse(self, content: bytes, where: Where, known: Known) -> Reading:
        try:
            reading = self._read_all(parts(content, where.file, known))
        except DoubtError:
            try:
                reading = self._read_all(
                    part for document in load(content, where.file) for part in expand(document)
                )
            except ResourceError as error:
                return _unreadable(error)
        if not reading.objects and not reading.problems:
            hint = "to remove objects, delete the file"
            return _unreadable(ResourceError("there is no object in it", where=where, hint=hint))
        return reading

    def _read_all(self, documents: Iterable[Document | Resource]) -> Reading:
        """What is in the documents; those that were read before are given as what they were."""
        objects: dict[ResourceKey, Resource] = {}
        problems: list[Problem] = []
        doubts: list[Problem] = []
        for document in documents:
            if isinstance(document, Resource):
                resource = document
            else:
                try:
                    read = read_resource(document, self._kinds, self.source)
                except ResourceError as error:
                    found = [Problem.of(each) for each in flatten(error)]
                    problems.extend(found)
                    doubts.extend(found)
                    continue
                resource = read.resource
                if not read.certain:
                    doubts.extend(resource.problems)
            first = objects.setdefault(resource.key, resource)
            if first is not resource:
                problems.append(_duplicate(resource, first))
        return Reading(objects=objects, problems=tuple(problems), doubts=tuple(doubts))

    def _known(self, file: _File) -> Known:
        """Objects that need not be read again where they stand as they stood: those with which all is well."""
        return {
            one.raw.place: (one.raw.text, one)
            for one in file.objects.values()
            if not one.problems and one.in_effect and isinstance(one.raw, Written)
        }

    def _adopt(self, name: str, file: _File, reading: Reading) -> None:
        objects = dict(reading.objects)
        self._touched.update(dict.fromkeys(file.held))
        file.held = {}
        if reading.doubts:
            for key, old in file.objects.items():
                if key not in objects and (old.in_effect or self._is_in_effect(key)):
                    objects[key] = old
                    file.held[key] = reading.doubts
                    self._touched[key] = None
        file.problems = reading.problems
        self._offer(name, file, objects)

    def _is_in_effect(self, key: ResourceKey) -> bool:
        row = self._fallback.get(key) or self._resources.get(key)
        return row is not None and row.in_effect

    def _offer(self, name: str, file: _File, objects: dict[ResourceKey, Resource]) -> None:
        """From now on these are the file's objects."""
        before, file.objects, alone = file.objects, objects, (name,)
        for key in before.keys() - objects.keys():
            self._offers[key] = tuple(other for other in self._offers[key] if other != name)
            self._touched[key] = None
        for key, new in objects.items():
            if (old := before.get(key)) is None:
                others = self._offers.get(key)
                self._offers[key] = (*others, name) if others else alone
            if old is not new:
                self._touched[key] = None
        self._changed.add(name)

    def _touch(self, name: str, file: _File) -> None:
        self._touched.update(dict.fromkeys(file.objects))
        self._changed.add(name)

    def _winner(self, key: ResourceKey) -> str:
        """The file from which an object is taken."""
        offers = self._offers[key]
        if len(offers) == 1:
            return offers[0]

        def rank(name: str) -> tuple[bool, bool, bool, str]:
            file = self._files[name]
            return file.gone is not None, not file.objects[key].in_effect, key in file.held, name

        return min(offers, key=rank)

    def _publish(self, key: ResourceKey, txn: Transaction) -> None:
        row, offers = self._resources.get(key), self._offers.get(key, ())
        self._changed.update(offers)
        if row is not None and row.source != self.source:
            return
        if not offers:
            self._offers.pop(key, None)
            txn.delete(self._resources, key)
            return
        file = self._files[self._winner(key)]
        new = file.objects[key]
        if key in file.held:
            new = evolve(new, problems=file.held[key])
        last = self._fallback.get(key, row)
        if not new.in_effect and last is not None and last.in_effect:
            new = evolve(last, problems=new.problems)
        txn.upsert(self._resources, new)

    def _publish_file(self, name: str, txn: Transaction) -> None:
        path, file = str(self.path / name), self._files.get(name)
        if file is None:
            txn.delete(self._rows, path)
            return
        doubled = tuple(self._doubled(name, file, txn))
        row = ResourceFile(
            path=path, source=self.source, objects=len(file.objects), problems=(*file.problems, *doubled)
        )
        txn.upsert(self._rows, row)

    def _doubled(self, name: str, file: _File, txn: Transaction) -> Iterator[Problem]:
        """The file's objects that are taken from elsewhere."""
        for key, mine in file.objects.items():
            row = txn.get(self._resources, key)
            if row is not None and row.source != self.source:
                yield _duplicate(mine, row)
            elif key not in file.held and (winner := self._winner(key)) != name:
                other = self._files[winner]
                if other.gone is None:
                    yield _duplicate(mine, other.objects[key])


def _unreadable(error: ResourceError) -> Reading:
    problems = tuple(Problem.of(each) for each in flatten(error))
    return Reading(problems=problems, doubts=problems)


def _duplicate(mine: Resource, other: Resource) -> Problem:
    return Problem(f"{mine} is also in {other.where}, which counts", mine.where, "remove one of them")


def _signature(status: os.stat_result) -> Signature:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read(path: Path) -> tuple[Signature, bytes]:
    """A file's signature and content. Raises `FileNotFoundError` when it is not there, `ResourceError` for no plain file."""
    where = Where(str(path))
    try:
        _check(os.stat(path), where)
    except FileNotFoundError:
        if path.is_symlink():
            raise ResourceError("a symbolic link to nothing", where=where) from None
        raise
    # What was a plain file a moment ago may be a pipe now, which must not block.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        _check(status, where)
        return _signature(status), file.read(MAX_BYTES + 1)


def _check(status: os.stat_result, where: Where) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise ResourceError("a folder, which is not looked into", where=where)
    if not stat.S_ISREG(status.st_mode):
        raise ResourceError("not a regular file", where=where)
    if status.st_size > MAX_BYTES:
        raise ResourceError(
            f"the file has {status.st_size:,} bytes, the limit is {MAX_BYTES:,}",
            where=where,
            hint="split it into several files",
        )
