"""What the core asks of bpf(2), as a protocol: the real kernel and the fake one answer to the same words.

File descriptors are plain integers at this level; the objects above (`Map`, `Program`, `Link`) own them. Sizes are in
bytes, times in nanoseconds. Every refusal is a `BpfError` that carries the errno.
"""

from __future__ import annotations

import enum
import errno as _errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
from attrs import frozen

from axoneme.core.datapath.uapi import AttachType, LinkType, MapKind, ProgramType
from axoneme.core.errors import KernelError

Buffer: TypeAlias = np.ndarray[Any, Any]
"""A C-contiguous numpy array that the kernel reads or fills in place."""

LICENSE = "Dual BSD/GPL"


class BpfError(KernelError):
    """bpf(2) failed. `operation` says what was tried, `errno` is the kernel's answer."""

    def __init__(self, operation: str, errno: int, *, hint: str | None = None) -> None:
        name = _errno.errorcode.get(errno, str(errno))
        super().__init__(f"{operation}: {os.strerror(errno)} [{name}]", hint=hint or _HINTS.get(errno))
        self.operation = operation
        self.errno = errno


_HINTS = {
    _errno.EPERM: "it needs root, or CAP_BPF with CAP_NET_ADMIN",
    _errno.ENOMEM: "the kernel has no memory for it, or RLIMIT_MEMLOCK is too low on a kernel before 5.11",
    _errno.ENOSYS: "the kernel is built without bpf(2)",
}


class MapFull(BpfError):
    """An update found no room. `written` entries of the batch were written before."""

    def __init__(self, operation: str, errno: int, *, written: int = 0, hint: str | None = None) -> None:
        super().__init__(operation, errno, hint=hint)
        self.written = written


class VerifierRejection(BpfError):
    """The verifier refused a program. `log` is all it said; `axoneme.core.datapath.verifier` reads it."""

    def __init__(self, program: str, errno: int, log: str) -> None:
        super().__init__(f"verifier rejects program {program}", errno)
        self.program = program
        self.log = log


@frozen(kw_only=True)
class MapAttributes:
    """What `BPF_MAP_CREATE` is told."""

    kind: MapKind
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int = 0
    inner_fd: int = 0


@frozen(kw_only=True)
class ProgramAttributes:
    """What `BPF_PROG_LOAD` is told. `instructions` already hold file descriptors instead of map tokens."""

    type: ProgramType
    name: str
    instructions: bytes
    expected_attach: AttachType | None = None
    license: str = LICENSE


@frozen(kw_only=True)
class MapInfo:
    """A map, as the kernel tells. `kind` is a bare number when this software does not know it."""

    id: int
    kind: MapKind | int
    name: str
    key_size: int
    value_size: int
    max_entries: int
    flags: int


@frozen(kw_only=True)
class ProgramInfo:
    """A program, as the kernel tells. `run_count` and `run_time_ns` only count while statistics are enabled.

    :ivar instructions: after the verifier's rewriting; `verified` is how many it walked through (0 before 5.16).
    """

    id: int
    type: ProgramType | int
    name: str
    tag: str
    instructions: int
    verified: int
    jited_bytes: int
    load_time_ns: int
    map_ids: tuple[int, ...]
    run_count: int
    run_time_ns: int
    recursion_misses: int


@frozen(kw_only=True)
class LinkInfo:
    """A link, as the kernel tells.

    :ivar target: interface index (0 when the interface is gone), cgroup id, or inode of the network namespace.
    """

    id: int
    type: LinkType | int
    program_id: int
    target: int
    attach: AttachType | int | None


@frozen(kw_only=True)
class TestRun:
    """The outcome of `BPF_PROG_TEST_RUN`. `duration` is the mean of all repeats, in ns; `context` the changed context."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    retval: int
    data: bytes
    context: bytes
    duration: int


class ObjectType(enum.StrEnum):
    """What has ids in the kernel."""

    MAP = "map"
    PROGRAM = "program"
    LINK = "link"


class Place(enum.StrEnum):
    """Where among the programs of a hook a new one goes."""

    FIRST = "first"
    LAST = "last"
    BEFORE = "before"
    AFTER = "after"


@frozen
class Order:
    """A place in a shared hook. `link_id` is the link that `BEFORE` and `AFTER` refer to."""

    place: Place = Place.LAST
    link_id: int = 0


@frozen(kw_only=True)
class HookState:
    """The programs at one hook in running order (those not attached by a link have link id 0), and its revision."""

    program_ids: tuple[int, ...]
    link_ids: tuple[int, ...]
    revision: int


@frozen(kw_only=True)
class Filter:
    """A classifier program on a clsact qdisc, for kernels without TCX."""

    ifindex: int
    attach: AttachType
    priority: int
    handle: int
    name: str
    program_id: int = 0


@frozen(kw_only=True)
class RingMemory:
    """A ring buffer mapped into this process.

    :ivar consumer: one u64, writable: how far this process has read.
    :ivar producer: one u64: how far the kernel has written.
    :ivar data: the ring's bytes twice in a row, so that no record is ever cut.
    """

    consumer: Buffer
    producer: Buffer
    data: Buffer


class Kernel(Protocol):
    """bpf(2) and its neighbours. Implementations are safe to use from several threads."""

    @property
    def possible_cpus(self) -> int:
        """How many values an entry of a per-CPU map has."""
        ...

    def close(self, fd: int) -> None: ...

    # Maps. `value_size` and values of per-CPU maps count all possible CPUs, each rounded up to 8 bytes.
    def map_create(self, attributes: MapAttributes) -> int: ...
    def map_lookup(self, fd: int, key: bytes, value_size: int) -> bytes | None: ...
    def map_lookup_each(self, fd: int, keys: Buffer, values: Buffer) -> Buffer:
        """Fills `values` where there is such a key, and says where: bool, one per key."""
        ...

    def map_update(self, fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        """Raises `MapFull` when there is no room."""
        ...

    def map_delete(self, fd: int, key: bytes) -> bool:
        """False when there was no such key."""
        ...

    def map_next_key(self, fd: int, key: bytes | None, key_size: int) -> bytes | None: ...
    def map_lookup_batch(
        self, fd: int, cursor: bytes | None, keys: Buffer, values: Buffer
    ) -> tuple[int, bytes | None]:
        """Fills both arrays from the start; returns how many entries, and where to go on (None at the end).

        Raises `BpfError` with ENOSPC when the arrays are smaller than one bucket of a hash.
        """
        ...

    def map_update_batch(self, fd: int, keys: Buffer, values: Buffer) -> None:
        """Raises `MapFull`, whose `written` entries are in the map."""
        ...

    def map_delete_batch(self, fd: int, keys: Buffer) -> int:
        """How many keys were deleted before the first that was not there."""
        ...

    def map_freeze(self, fd: int) -> None:
        """From now on only programs may write to the map."""
        ...

    def ring_memory(self, fd: int, size: int) -> RingMemory: ...

    # Programs.
    def program_load(self, attributes: ProgramAttributes) -> int:
        """Raises `VerifierRejection` with the log when the verifier says no."""
        ...

    def program_test_run(
        self, fd: int, data: bytes, *, context: bytes = b"", repeat: int = 1, data_room: int | None = None
    ) -> TestRun: ...

    def enable_statistics(self) -> int:
        """Run counts and times are kept as long as the returned fd is open. It costs each run some ns."""
        ...

    # Links. `target` is an interface index for TCX and XDP, else the fd of a cgroup or network namespace.
    def link_create(
        self, program_fd: int, target: int, attach: AttachType, *, flags: int = 0, order: Order | None = None
    ) -> int: ...
    def link_update(self, link_fd: int, program_fd: int) -> None:
        """Replaces the link's program; no packet sees none."""
        ...

    def link_detach(self, link_fd: int) -> None: ...
    def hook_state(self, target: int, attach: AttachType) -> HookState: ...

    # Classifier filters, the fallback below kernel 6.6.
    def filter_replace(self, wanted: Filter, program_fd: int) -> None:
        """Adds the filter, or atomically replaces the one of that priority and handle. Makes the clsact qdisc."""
        ...

    def filter_delete(self, unwanted: Filter) -> bool: ...
    def filters(self, ifindex: int, attach: AttachType) -> list[Filter]:
        """The program filters of that side, strangers' included, in running order."""
        ...

    # Any object.
    def pin(self, fd: int, path: Path) -> None: ...
    def open_pin(self, path: Path) -> int: ...
    def ensure_bpffs(self, folder: Path) -> None:
        """Makes sure that `folder` exists inside a bpf file system; mounts /sys/fs/bpf if nothing is there."""
        ...

    def ids(self, kind: ObjectType) -> list[int]: ...
    def open_id(self, kind: ObjectType, number: int) -> int | None:
        """None when it is gone."""
        ...

    def map_info(self, fd: int) -> MapInfo: ...
    def program_info(self, fd: int) -> ProgramInfo: ...
    def link_info(self, fd: int) -> LinkInfo: ...


class Handle:
    """Owns one file descriptor of a kernel."""

    def __init__(self, kernel: Kernel, fd: int) -> None:
        self.kernel = kernel
        self._fd = fd
        self._holders = 0
        self._close_later = False

    @property
    def fd(self) -> int:
        if self._fd < 0:
            raise ValueError(f"{self!r} is closed")
        return self._fd

    @property
    def closed(self) -> bool:
        return self._fd < 0

    def close(self) -> None:
        """Gives the descriptor back. What is pinned or attached in the kernel stays there. May be called again.

        While somebody holds it (`held`), it is given back when he is done.
        """
        if self._holders:
            self._close_later = True
            return
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self.kernel.close(fd)

    @contextmanager
    def held(self) -> Iterator[Self]:
        """Keeps the descriptor open while another thread works with it: its number might be another object's by then."""
        self._holders += 1
        try:
            yield self
        finally:
            self._holders -= 1
            if self._close_later and not self._holders:
                self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


class Program(Handle):
    """A loaded program."""

    def __init__(self, kernel: Kernel, fd: int, name: str) -> None:
        super().__init__(kernel, fd)
        self.name = name

    @classmethod
    def load(cls, kernel: Kernel, attributes: ProgramAttributes) -> Program:
        """Raises `VerifierRejection`, or `BpfError`."""
        return cls(kernel, kernel.program_load(attributes), attributes.name)

    @property
    def info(self) -> ProgramInfo:
        return self.kernel.program_info(self.fd)

    def __repr__(self) -> str:
        return f"<Program {self.name} fd={self._fd}>"
