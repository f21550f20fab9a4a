"""The declaration of a map: pure and comparable, so that it can be printed, hashed and tested without a kernel."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any, TypeAlias

from attrs import frozen

from axoneme.core.datapath import accessors
from axoneme.core.datapath.kernel import MapAttributes
from axoneme.core.datapath.layout import Scalar, Struct, u32
from axoneme.core.datapath.uapi import OBJ_NAME_LEN, MapFlag, MapKind
from axoneme.core.errors import AxonemeError

Layout: TypeAlias = Scalar | Struct

_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}\Z")
_HOLDS_FDS = frozenset({MapKind.PROG_ARRAY, MapKind.SOCKMAP, MapKind.ARRAY_OF_MAPS, MapKind.DEVMAP})
_NO_PREALLOC = frozenset({MapKind.LPM_TRIE, MapKind.SK_STORAGE})


class MapError(AxonemeError):
    """A map that is declared or used in a way that its kind does not have."""


@frozen
class MapSpec:
    """The declaration of a map, the only home of its layout.

    :param name: unique among all plugins; the C accessors and the pin carry it.
    :param key: `None` for ring buffers; an LPM key is a struct whose first field is `u32`, the prefix length in bits.
    :param value: for a ring buffer the layout of its records, if they all have one.
    :param max_entries: for a ring buffer its size in bytes: a power of two and a multiple of the page size.
    :param inner: for maps of maps, what the inner maps are like.
    :param content: for an array that is a constant table (the C has no other): the bytes of all its values. They are
        written whenever the map is opened, before a program that uses it is loaded.
    :param moved: for an array whose indexes are computed from what is stored and from its size: where values go when the size
        changes. It gets all old indexes and values as arrays, and the new size; entries of zeros are left out afterwards.
    :raises MapError: when the kind cannot be like that.
    """

    name: str
    kind: MapKind
    key: Layout | None = None
    value: Layout | None = None
    max_entries: int = 1
    flags: int = 0
    pinned: bool = True
    doc: str = ""
    inner: MapSpec | None = None
    content: Callable[[], bytes] | None = None
    moved: Callable[[Any, Any, int], Any] | None = None

    def __attrs_post_init__(self) -> None:
        if self.kind in _HOLDS_FDS:
            object.__setattr__(self, "key", self.key or u32)
            object.__setattr__(self, "value", self.value or u32)
        if self.kind in _NO_PREALLOC:
            object.__setattr__(self, "flags", self.flags | MapFlag.NO_PREALLOC)
        if problem := _problem(self):
            raise MapError(f"map {self.name}: {problem}")

    @property
    def key_size(self) -> int:
        return 0 if self.key is None else self.key.size

    @property
    def value_size(self) -> int:
        """Of one value; a per-CPU entry has one per possible CPU. A ring's record is not a value to the kernel."""
        return 0 if self.value is None or self.kind is MapKind.RINGBUF else self.value.size

    @property
    def layout_digest(self) -> str:
        """Differs when a stored entry would be read differently: 16 hexadecimal digits."""
        text = f"{self.kind.name} {_digest(self.key)} {_digest(self.value)} {int(self.flags)}"
        text += f" [{self.inner.digest}]" if self.inner else ""
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def digest(self) -> str:
        """Differs when a pinned map cannot be adopted as it is: another layout, or another size."""
        return f"{self.layout_digest}-{self.max_entries}"

    def c_accessors(self, token: int) -> str:
        """The C functions through which stages reach the map. `token` stands for it until the program is loaded."""
        return accessors.generate(self, token)

    def attributes(self, inner_fd: int = 0) -> MapAttributes:
        """What the kernel is told to create."""
        return MapAttributes(
            kind=self.kind,
            name=self.name[: OBJ_NAME_LEN - 1],
            key_size=self.key_size,
            value_size=self.value_size,
            max_entries=self.max_entries,
            flags=int(self.flags),
            inner_fd=inner_fd,
        )


def _digest(layout: Layout | None) -> str:
    return layout.digest if isinstance(layout, Struct) else layout.name if layout else "-"


def _problem(spec: MapSpec) -> str | None:
    if not _NAME.match(spec.name):
        return "a name is lower-case letters, digits and underscores, 48 at most"
    if spec.max_entries < (0 if spec.kind is MapKind.SK_STORAGE else 1):
        return f"{spec.max_entries} entries"
    if spec.kind is MapKind.RINGBUF:
        return _ring_problem(spec)
    if spec.key is None or spec.value is None:
        return f"a {spec.kind.name} needs a key and a value"
    if spec.kind.indexed and spec.key.size != 4:
        return "the key of an array is u32"
    return _lpm_problem(spec.key) if spec.kind is MapKind.LPM_TRIE else None


def _ring_problem(spec: MapSpec) -> str | None:
    if spec.key is not None:
        return "a ring buffer has no key"
    if spec.max_entries & (spec.max_entries - 1) or spec.max_entries % 4096:
        return "a ring buffer's size is a power of two and a multiple of the page size"
    return None


def _lpm_problem(key: Layout) -> str | None:
    first = next(iter(key.fields.values())) if isinstance(key, Struct) else None
    return None if first == u32 else "an LPM key is a struct that starts with the prefix length, u32"
