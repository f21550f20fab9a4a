"""A kernel in memory: maps really work, programs are accepted or refused by a rule, links are recorded, calls can fail.

Each behaviour that it shows has been seen on a real kernel (`tests/core/datapath/test_parity.py` runs the same tests on
both). It is extended only when something depends on a behaviour that it lacks.

    kernel = FakeKernel()
    kernel.fail("link_update", errno.ENOMEM, nth=2)
    kernel.refuse = lambda program: "invalid mem access" if program.name == "broken" else None
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from attrs import evolve

from axoneme.core.datapath import relocate
from axoneme.core.datapath.kernel import (
    BpfError,
    Buffer,
    Filter,
    HookState,
    LinkInfo,
    MapAttributes,
    MapFull,
    MapInfo,
    ObjectType,
    Order,
    ProgramAttributes,
    ProgramInfo,
    RingMemory,
    TestRun,
    VerifierRejection,
)
from axoneme.core.datapath.uapi import AttachType, LinkType, ProgramType
from axoneme.core.testing.fake_hooks import (
    LINK_TYPES,
    FakeFilters,
    FakeLink,
    FakeProgram,
    link_type,
    position,
)
from axoneme.core.testing.fake_map import FakeMap


class FakeKernel:
    """The same protocol as `SyscallKernel`.

    Pins are small files, so whoever lists, renames or removes them does so with real files, below a temporary folder.

    :param cpus: possible CPUs.
    :param refuse: decides over each program that is loaded: a text is the verifier's log of its refusal.
    """

    def __init__(
        self, *, cpus: int = 2, refuse: Callable[[ProgramAttributes], str | None] | None = None
    ) -> None:
        self.possible_cpus = cpus
        self.refuse = refuse
        #: How often each method was called.
        self.calls: Counter[str] = Counter()
        self.maps: dict[int, FakeMap] = {}
        self.programs: dict[int, FakeProgram] = {}
        self.links: dict[int, FakeLink] = {}
        self.classifiers = FakeFilters()
        #: Interfaces that exist; None means all.
        self.interfaces: set[int] | None = None
        self._hooks: dict[tuple[int, AttachType], list[int]] = {}
        self._fds: dict[int, Any] = {}
        self._faults: dict[str, list[tuple[int, int]]] = {}
        self._last_id = 0
        self._lock = threading.RLock()

    # What tests do.

    def fail(self, method: str, number: int, *, nth: int = 1) -> None:
        """Makes the nth call from now of that method raise `BpfError` with that errno."""
        if not callable(getattr(self, method, None)):
            raise ValueError(f"the kernel has no method {method!r}")
        self._faults.setdefault(method, []).append((self.calls[method] + nth, number))

    @property
    def open_fds(self) -> int:
        """How many file descriptors nobody has closed."""
        return len(self._fds)

    def map_named(self, name: str) -> FakeMap:
        """The newest map of that name (as far as the kernel keeps names)."""
        return max(
            (each for each in self.maps.values() if each.attributes.name == name[:15]), key=lambda m: m.id
        )

    def emit(self, name: str, record: bytes, *, discard: bool = False) -> bool:
        """Puts a record into a ring buffer, as a program would. False when there is no room."""
        ring = self.map_named(name).ring
        if ring is None:
            raise ValueError(f"{name} is no ring buffer")
        return ring.emit(record, discard=discard)

    def vanish(self, ifindex: int) -> None:
        """The interface goes, and what is attached to it."""
        for link in self.links.values():
            if link.target == ifindex and link.attach in LINK_TYPES:
                self._unhook(link)
        self.classifiers.vanish(ifindex)
        if self.interfaces is not None:
            self.interfaces.discard(ifindex)

    # Plumbing.

    def _enter(self, method: str) -> None:
        self.calls[method] += 1
        for nth, number in self._faults.get(method, []):
            if nth == self.calls[method]:
                raise BpfError(f"{method} (made to fail)", number)

    def _open(self, what: Any) -> int:
        with self._lock:
            fd = (
                what.ring.poll_fd()
                if isinstance(what, FakeMap) and what.ring
                else os.open("/dev/null", os.O_CLOEXEC)
            )
            self._fds[fd] = what
            return fd

    def _next_id(self) -> int:
        self._last_id += 1
        return self._last_id

    def _get(self, fd: int, kind: type[Any]) -> Any:
        what = self._fds.get(fd)
        if not isinstance(what, kind):
            raise BpfError(f"use fd {fd}", errno.EBADF)
        return what

    def close(self, fd: int) -> None:
        with self._lock:
            if self._fds.pop(fd, None) is None:
                raise BpfError(f"close fd {fd}", errno.EBADF)
            os.close(fd)
            self._reap()

    def _reap(self) -> None:
        """Links that neither a descriptor nor a pin holds are gone."""
        held = {id(what) for what in self._fds.values()}
        for link in list(self.links.values()):
            if id(link) not in held and not link.pinned:
                self._unhook(link)
                del self.links[link.id]

    # Maps.

    def _map(self, fd: int) -> FakeMap:
        found: FakeMap = self._get(fd, FakeMap)
        return found

    def map_create(self, attributes: MapAttributes) -> int:
        self._enter("map_create")
        new = FakeMap.new(self._next_id(), attributes, self.possible_cpus)
        self.maps[new.id] = new
        return self._open(new)

    def map_lookup(self, fd: int, key: bytes, value_size: int) -> bytes | None:
        self._enter("map_lookup")
        with self._lock:
            return self._map(fd).lookup(key)

    def map_lookup_each(self, fd: int, keys: Buffer, values: Buffer) -> Buffer:
        self._enter("map_lookup_each")
        with self._lock:
            entries = [self._map(fd).lookup(key.tobytes()) for key in keys]
        for index, entry in enumerate(entries):
            if entry is not None:
                values[index] = np.frombuffer(entry, values.dtype)[0]
        return np.array([entry is not None for entry in entries], np.bool_)

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        self._enter("map_update")
        with self._lock:
            self._map(fd).update(key, value, flags)

    def map_delete(self, fd: int, key: bytes) -> bool:
        self._enter("map_delete")
        with self._lock:
            return self._map(fd).delete(key)

    def map_next_key(self, fd: int, key: bytes | None, key_size: int) -> bytes | None:
        self._enter("map_next_key")
        keys = list(self._map(fd).entries)
        index = keys.index(key) + 1 if key in keys else 0
        return keys[index] if index < len(keys) else None

    def map_lookup_batch(
        self, fd: int, cursor: bytes | None, keys: Buffer, values: Buffer
    ) -> tuple[int, bytes | None]:
        self._enter("map_lookup_batch")
        with self._lock:
            entries = list(self._map(fd).entries.items())
        start = int.from_bytes(cursor or b"", "little")
        chunk = entries[start : start + len(keys)]
        keys[: len(chunk)] = np.frombuffer(b"".join(key for key, _ in chunk), keys.dtype)
        values[: len(chunk)] = np.frombuffer(b"".join(value for _, value in chunk), values.dtype)
        end = start + len(chunk)
        return len(chunk), end.to_bytes(8, "little") if end < len(entries) else None

    def map_update_batch(self, fd: int, keys: Buffer, values: Buffer) -> None:
        self._enter("map_update_batch")
        with self._lock:
            target = self._map(fd)
            for written, (key, value) in enumerate(zip(keys, values, strict=True)):
                try:
                    target.update(key.tobytes(), value.tobytes())
                except MapFull as error:
                    raise MapFull("update a batch", error.errno, written=written) from None

    def map_delete_batch(self, fd: int, keys: Buffer) -> int:
        self._enter("map_delete_batch")
        with self._lock:
            target = self._map(fd)
            for deleted, key in enumerate(keys):
                if not target.delete(key.tobytes()):
                    return deleted
        return len(keys)

    def map_freeze(self, fd: int) -> None:
        self._enter("map_freeze")
        self._map(fd).frozen = True

    def ring_memory(self, fd: int, size: int) -> RingMemory:
        self._enter("ring_memory")
        target = self._map(fd)
        if target.ring is None or target.attributes.max_entries != size:
            raise BpfError("map ring buffer into memory", errno.EINVAL)
        return target.ring.memory

    # Programs.

    def program_load(self, attributes: ProgramAttributes) -> int:
        self._enter("program_load")
        if log := self.refuse(attributes) if self.refuse else None:
            raise VerifierRejection(attributes.name, errno.EACCES, log)
        maps = tuple(self._map(fd).id for fd in sorted(relocate.tokens(attributes.instructions)))
        new = FakeProgram(self._next_id(), attributes, maps)
        self.programs[new.id] = new
        return self._open(new)

    def program_test_run(
        self, fd: int, data: bytes, *, context: bytes = b"", repeat: int = 1, data_room: int | None = None
    ) -> TestRun:
        self._enter("program_test_run")
        program: FakeProgram = self._get(fd, FakeProgram)
        if program.run is None:
            return TestRun(retval=0, data=data, context=context, duration=1)
        retval, data, context = program.run(data, context)
        return TestRun(retval=retval & 0xFFFFFFFF, data=data, context=context, duration=1)

    def enable_statistics(self) -> int:
        self._enter("enable_statistics")
        return self._open("statistics")

    # Links.

    def link_create(
        self, program_fd: int, target: int, attach: AttachType, *, flags: int = 0, order: Order | None = None
    ) -> int:
        self._enter("link_create")
        program = self._get(program_fd, FakeProgram)
        kind = link_type(attach)
        if kind in (LinkType.CGROUP, LinkType.NETNS):
            target = os.fstat(target).st_ino
        elif self.interfaces is not None and target not in self.interfaces:
            raise BpfError(f"attach to {attach.name}", errno.ENODEV)
        hook = self._hooks.setdefault((target, attach), [])
        if hook and kind is LinkType.XDP:
            raise BpfError(f"attach to {attach.name}", errno.EBUSY)
        if kind is LinkType.TCX and any(self.links[number].program is program for number in hook):
            raise BpfError(f"attach to {attach.name}", errno.EEXIST)
        link = FakeLink(self._next_id(), attach, target, program)
        hook.insert(position(hook, order), link.id)
        self.links[link.id] = link
        return self._open(link)

    def link_update(self, link_fd: int, program_fd: int) -> None:
        self._enter("link_update")
        link: FakeLink = self._get(link_fd, FakeLink)
        if link.detached:
            raise BpfError("replace a link's program", errno.ENOLINK)
        link.program = self._get(program_fd, FakeProgram)

    def link_detach(self, link_fd: int) -> None:
        self._enter("link_detach")
        self._unhook(self._get(link_fd, FakeLink))

    def _unhook(self, link: FakeLink) -> None:
        if not link.detached:
            self._hooks[link.target, link.attach].remove(link.id)
            link.detached, link.target = True, 0

    def hook_state(self, target: int, attach: AttachType) -> HookState:
        """`target` as for `link_create`."""
        self._enter("hook_state")
        self._reap()
        if link_type(attach) in (LinkType.CGROUP, LinkType.NETNS):
            target = os.fstat(target).st_ino
        links = [self.links[number] for number in self._hooks.get((target, attach), [])]
        return HookState(
            program_ids=tuple(link.program.id for link in links),
            link_ids=tuple(link.id for link in links),
            revision=self.calls["link_create"],
        )

    # Classifier filters.

    def filter_replace(self, wanted: Filter, program_fd: int) -> None:
        self._enter("filter_replace")
        program = self._get(program_fd, FakeProgram)
        if self.interfaces is not None and wanted.ifindex not in self.interfaces:
            raise BpfError(f"attach filter {wanted.name}", errno.ENODEV)
        self.classifiers.replace(evolve(wanted, program_id=program.id))

    def filter_delete(self, unwanted: Filter) -> bool:
        self._enter("filter_delete")
        return self.classifiers.delete(unwanted)

    def filters(self, ifindex: int, attach: AttachType) -> list[Filter]:
        self._enter("filters")
        return self.classifiers.at(ifindex, attach)

    # Any object.

    def pin(self, fd: int, path: Path) -> None:
        self._enter("pin")
        what = self._fds[fd]
        if "." in path.name:
            raise BpfError(f"pin {path}", errno.EPERM)
        if path.exists():
            raise BpfError(f"pin {path}", errno.EEXIST)
        path.write_text(f"{_kind(what)} {what.id}")
        if isinstance(what, FakeLink):
            what.folders.add(path.parent)

    def open_pin(self, path: Path) -> int:
        self._enter("open_pin")
        try:
            kind, number = path.read_text().split()
        except FileNotFoundError:
            raise BpfError(f"open {path}", errno.ENOENT) from None
        return self._open(self._objects(ObjectType(kind))[int(number)])

    def ensure_bpffs(self, folder: Path) -> None:
        self._enter("ensure_bpffs")
        folder.mkdir(parents=True, exist_ok=True)

    def _objects(self, kind: ObjectType) -> dict[int, Any]:
        found: dict[ObjectType, dict[int, Any]] = {
            ObjectType.MAP: dict(self.maps),
            ObjectType.PROGRAM: dict(self.programs),
            ObjectType.LINK: dict(self.links),
        }
        return found[kind]

    def ids(self, kind: ObjectType) -> list[int]:
        self._enter("ids")
        return sorted(self._objects(kind))

    def open_id(self, kind: ObjectType, number: int) -> int | None:
        self._enter("open_id")
        what = self._objects(kind).get(number)
        return None if what is None else self._open(what)

    def map_info(self, fd: int) -> MapInfo:
        self._enter("map_info")
        what = self._map(fd)
        of = what.attributes
        return MapInfo(
            id=what.id,
            kind=of.kind,
            name=of.name,
            key_size=of.key_size,
            value_size=of.value_size,
            max_entries=of.max_entries,
            flags=of.flags,
        )

    def program_info(self, fd: int) -> ProgramInfo:
        self._enter("program_info")
        what: FakeProgram = self._get(fd, FakeProgram)
        count = len(what.attributes.instructions) // 8
        return ProgramInfo(
            id=what.id,
            type=ProgramType(what.attributes.type),
            name=what.attributes.name[:15],
            tag=f"{hash(what.attributes.instructions) & 0xFFFFFFFFFFFFFFFF:016x}",
            instructions=count,
            verified=count,
            jited_bytes=8 * count,
            load_time_ns=what.id,
            map_ids=what.map_ids,
            run_count=0,
            run_time_ns=0,
            recursion_misses=0,
        )

    def link_info(self, fd: int) -> LinkInfo:
        self._enter("link_info")
        what: FakeLink = self._get(fd, FakeLink)
        return LinkInfo(
            id=what.id,
            type=link_type(what.attach),
            program_id=what.program.id,
            target=what.target,
            attach=what.attach,
        )


def _kind(what: FakeMap | FakeProgram | FakeLink) -> ObjectType:
    kinds = {FakeMap: ObjectType.MAP, FakeProgram: ObjectType.PROGRAM, FakeLink: ObjectType.LINK}
    return kinds[type(what)]
