"""Pins: one folder per agent in the bpf file system. What is pinned there outlives the agent, and is adopted again.

    maps/NAME@LAYOUT-SIZE    a map; the name carries the digest of its layout, so the two can never disagree
    programs/NAME            a program
    links/NAME               a link
    filters/NAME/WHERE       the program behind a classifier filter (kernels without TCX), and where the filter is

The kernel does not check that a pinned map is read as what it was written; the digest in the name does.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable
from pathlib import Path

from axoneme.core.datapath import rows
from axoneme.core.datapath.kernel import BpfError, Handle, Kernel, Program
from axoneme.core.datapath.maps import Map, MapKind, MapSpec
from axoneme.core.errors import KernelError

_NAME = re.compile(r"[A-Za-z0-9_:@-]{1,120}\Z")
_HALF_DONE = "~"
_COPIED = frozenset(
    {
        MapKind.HASH,
        MapKind.LRU_HASH,
        MapKind.PERCPU_HASH,
        MapKind.LRU_PERCPU_HASH,
        MapKind.LPM_TRIE,
        MapKind.ARRAY,
        MapKind.PERCPU_ARRAY,
    }
)
#: Filled by programs alone: what they enter while a successor is prepared has to follow.
_FILLED_BY_PROGRAMS = frozenset({MapKind.LRU_HASH, MapKind.LRU_PERCPU_HASH})


class PinError(KernelError):
    """A name that cannot be pinned."""


class Pins:
    """The pins of one agent.

    :param root: the agent's own folder in a bpf file system; nothing outside it is ever touched.
    """

    def __init__(self, kernel: Kernel, root: Path) -> None:
        self.kernel = kernel
        self.root = root

    def prepare(self) -> None:
        """Makes the folders, mounts the file system if need be, clears what a crash left half done.

        :raises KernelError: when that is impossible.
        """
        for folder in ("maps", "programs", "links", "filters"):
            self.kernel.ensure_bpffs(self.root / folder)
            for path in (self.root / folder).iterdir():
                if path.name.endswith(_HALF_DONE):
                    path.unlink()

    def path(self, folder: str, name: str) -> Path:
        """Raises `PinError` for a name that the file system does not take: it reserves dots."""
        if not _NAME.match(name):
            raise PinError(f"{name!r} cannot be the name of a pin")
        return self.root / folder / name

    def put(self, path: Path, fd: int) -> None:
        """Pins, atomically replacing what is pinned there."""
        half_done = path.with_name(path.name + _HALF_DONE)
        half_done.unlink(missing_ok=True)
        self.kernel.pin(fd, half_done)
        half_done.rename(path)

    def open(self, path: Path) -> int | None:
        """The fd of the pinned object; None when there is none."""
        try:
            return self.kernel.open_pin(path)
        except BpfError as error:
            if error.errno == errno.ENOENT:
                return None
            raise

    def drop(self, path: Path) -> bool:
        """Removes a pin; the object goes when nothing else holds it."""
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def names(self, folder: str) -> list[str]:
        """What is pinned in that folder."""
        try:
            return sorted(path.name for path in (self.root / folder).iterdir())
        except FileNotFoundError:
            return []

    # Maps.

    def open_map(self, spec: MapSpec) -> Map:
        """The map: the pinned one when its layout and size are the declared ones, else a new one.

        A new one that differs from a pinned one only in size takes over its entries, as many as fit. Pins of other
        layouts or sizes stay, since programs in the kernel may still use them, until `prune_maps`.

        :raises BpfError: when the kernel refuses.
        """
        if not spec.pinned:
            return Map.create(self.kernel, spec)
        path = self.path("maps", f"{spec.name}@{spec.digest}")
        if (fd := self.open(path)) is not None:
            if self._is(fd, spec):
                adopted = Map(self.kernel, spec, fd, adopted=True)
                adopted.fill()
                return adopted
            self.kernel.close(fd)
        return self._new_map(spec, path)

    def _is(self, fd: int, spec: MapSpec) -> bool:
        info, wanted = self.kernel.map_info(fd), spec.attributes()
        sizes = (info.key_size, info.value_size, info.max_entries)
        return info.kind == spec.kind and sizes == (wanted.key_size, wanted.value_size, wanted.max_entries)

    def _new_map(self, spec: MapSpec, path: Path) -> Map:
        new = Map.create(self.kernel, spec)
        try:
            for predecessor in self._of_other_size(spec):
                self._copy(predecessor, new)
            self.put(path, new.fd)
        except BaseException:
            new.close()
            raise
        return new

    def _of_other_size(self, spec: MapSpec) -> list[Path]:
        """Pins of maps that differ from this one in nothing but size."""
        same = f"{spec.name}@{spec.layout_digest}-"
        own = f"{spec.name}@{spec.digest}"
        return [
            self.path("maps", name) for name in self.names("maps") if name.startswith(same) and name != own
        ]

    def _copy(self, source: Path, new: Map) -> int:
        """Enters what the new map does not have, as far as it fits; returns how many entries that were."""
        spec = new.spec
        fd = self.open(source) if spec.kind in _COPIED else None
        if fd is None:
            return 0
        with Map(self.kernel, spec, fd) as old:
            keys, values = old.items()
        if spec.kind.indexed:
            if spec.moved is not None:
                used = rows.nonzero(values)
                keys, values = spec.moved(keys, values, spec.max_entries)[used], values[used]
            inside = keys < spec.max_entries
            new.update_batch(keys[inside], values[inside])
            return int(inside.sum())
        return new.add_missing(keys[: spec.max_entries], values[: spec.max_entries])

    def catch_up(self, maps: Iterable[Map]) -> int:
        """Takes over what programs entered into predecessors of another size since these maps were opened.

        To be called just before and just after programs are swapped: in between, some use the old map and some the new
        one, and a connection that only the other map knows would look like a new one. Returns the number of entries.
        """
        return sum(
            self._copy(predecessor, each)
            for each in maps
            if each.spec.pinned and each.spec.kind in _FILLED_BY_PROGRAMS
            for predecessor in self._of_other_size(each.spec)
        )

    def prune_maps(self, specs: Iterable[MapSpec]) -> list[str]:
        """Drops the pins of all maps but these, and says which. To be called when the new programs run."""
        wanted = {f"{spec.name}@{spec.digest}" for spec in specs}
        unwanted = [name for name in self.names("maps") if name not in wanted]
        for name in unwanted:
            self.drop(self.root / "maps" / name)
        return unwanted

    # Programs.

    def pin_program(self, name: str, program: Program) -> None:
        """Pins a program, atomically replacing the one of that name."""
        self.put(self.path("programs", name), program.fd)

    def open_program(self, name: str) -> Program | None:
        """The pinned program; None when there is none."""
        fd = self.open(self.path("programs", name))
        return None if fd is None else Program(self.kernel, fd, name)

    def remove(self) -> None:
        """Removes the whole folder. Links must be detached before: `Links.prune`."""
        for path in sorted(self.root.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        if self.root.exists():
            self.root.rmdir()


def handle(pins: Pins, path: Path) -> Handle | None:
    """The pinned object, owned; None when there is none."""
    fd = pins.open(path)
    return None if fd is None else Handle(pins.kernel, fd)
