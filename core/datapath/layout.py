"""Layouts: the one declaration from which the C struct, the byte codec and the numpy dtype of a map's key or value come.

Layouts follow C's natural alignment on a 64-bit machine. Padding is declared (a field whose name starts with `pad`),
never implied: the kernel hashes and compares whole keys, so a byte that nobody owns is a key that is never found.
"""

from __future__ import annotations

import hashlib
import operator
import re
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from attrs import field, frozen

from axoneme.core.errors import AxonemeError

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class LayoutError(AxonemeError):
    """A struct that has no well-defined layout, or a value that does not fit one."""


@frozen
class Scalar:
    """A number of fixed width. `be` ones are in network byte order in memory and plain numbers in Python."""

    name: str
    c_name: str
    format: str

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.format)

    @property
    def size(self) -> int:
        return self.dtype.itemsize

    @property
    def alignment(self) -> int:
        return self.dtype.itemsize

    def pack(self, value: Any) -> bytes:
        """The value's bytes. Raises `LayoutError` when it does not fit."""
        try:
            return np.array(operator.index(value), self.dtype).tobytes()
        except (OverflowError, TypeError, ValueError) as error:
            raise LayoutError(f"{value!r} is not a {self.name}: {error}") from None


u8 = Scalar("u8", "u8", "u1")
u16 = Scalar("u16", "u16", "u2")
u32 = Scalar("u32", "u32", "u4")
u64 = Scalar("u64", "u64", "u8")
s8 = Scalar("s8", "s8", "i1")
s16 = Scalar("s16", "s16", "i2")
s32 = Scalar("s32", "s32", "i4")
s64 = Scalar("s64", "s64", "i8")
be16 = Scalar("be16", "__be16", ">u2")
be32 = Scalar("be32", "__be32", ">u4")
be64 = Scalar("be64", "__be64", ">u8")


@frozen
class Array:
    """A fixed number of equal elements. Use `array()`."""

    element: Type
    length: int = field()

    @length.validator
    def _positive(self, _attribute: object, value: int) -> None:
        if value < 1:
            raise LayoutError(f"an array of {value} elements has no layout")

    @property
    def name(self) -> str:
        return f"{self.element.name}[{self.length}]"

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype((self.element.dtype, (self.length,)))

    @property
    def size(self) -> int:
        return self.element.size * self.length

    @property
    def alignment(self) -> int:
        return self.element.alignment


def array(element: Type, length: int) -> Array:
    """A C array. Arrays of `u8` take and give bytes; in numpy they are one more dimension."""
    return Array(element, length)


@frozen(eq=False, init=False)
class Struct:
    """A C struct. Equal when its digest is: name, field names, types and order.

    :param name: the C name, without `struct`.
    :param fields: field name to type, in order.
    :raises LayoutError: on implicit padding, a bad name, or no fields.
    """

    name: str
    fields: Mapping[str, Type]
    doc: str

    def __init__(self, name: str, fields: Mapping[str, Type], doc: str = "") -> None:
        self.__attrs_init__(name, dict(fields), doc)
        self._check()

    def _check(self) -> None:
        for name in (self.name, *self.fields):
            if not _IDENTIFIER.match(name):
                raise LayoutError(f"struct {self.name}: {name!r} is not a C identifier")
        if not self.fields:
            raise LayoutError(f"struct {self.name} has no fields")
        end = 0
        for name, kind in self.fields.items():
            if missing := -end % kind.alignment:
                raise LayoutError(
                    f"struct {self.name}: {missing} bytes of implicit padding before {name!r}",
                    hint=f'declare it: "pad_{name}": array(u8, {missing})',
                )
            end += kind.size
        if missing := -end % self.alignment:
            raise LayoutError(
                f"struct {self.name}: {missing} bytes of implicit padding at the end",
                hint=f'declare it: "pad": array(u8, {missing})',
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Struct) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The structured dtype; its itemsize is C's `sizeof`."""
        return np.dtype([(name, kind.dtype) for name, kind in self.fields.items()])

    @cached_property
    def size(self) -> int:
        return sum(kind.size for kind in self.fields.values())

    @cached_property
    def alignment(self) -> int:
        return max(kind.alignment for kind in self.fields.values())

    @cached_property
    def digest(self) -> str:
        """16 hexadecimal digits that differ when any name, type or position differs, in nested structs too."""
        text = f"struct {self.name} {{"
        text += "".join(f"{name}:{_signature(kind)};" for name, kind in self.fields.items())
        return hashlib.sha256((text + "}").encode()).hexdigest()[:16]

    def c(self) -> str:
        """The C text of this struct, with a check of its size. Nested structs must stand before it: `c_definitions`."""
        lines = [f"\t{_declaration(name, kind)};" for name, kind in self.fields.items()]
        comment = f"/* {self.doc.replace('*/', '* /')} */\n" if self.doc else ""
        check = f'_Static_assert(sizeof(struct {self.name}) == {self.size}, "layout of struct {self.name}");'
        return f"{comment}struct {self.name} {{\n" + "\n".join(lines) + f"\n}};\n{check}\n"

    def pack(self, **values: Any) -> bytes:
        """The struct's bytes. Fields left out are zero.

        Numbers for scalars; bytes or sequences for arrays; mappings, bytes or numpy records for structs.

        :raises LayoutError: for an unknown field, or a value that does not fit its field.
        """
        record = np.zeros((), self.dtype)
        for name, value in values.items():
            self._set(record, name, value)
        return record.tobytes()

    def _set(self, record: np.ndarray[Any, Any], name: str, value: Any) -> None:
        kind = self.fields.get(name)
        if kind is None:
            raise LayoutError(
                f"struct {self.name} has no field {name!r}", hint=f"it has {', '.join(self.fields)}"
            )
        try:
            record[name] = _convert(kind, value)
        except (OverflowError, TypeError, ValueError) as error:
            raise LayoutError(
                f"struct {self.name}: {value!r} does not fit {name} ({kind.name}): {error}"
            ) from None

    def unpack(self, buffer: bytes | bytearray | memoryview) -> np.void:
        """The record in exactly `size` bytes. It is a copy, detached from the buffer."""
        if len(buffer) != self.size:
            raise LayoutError(f"struct {self.name} has {self.size} bytes, not {len(buffer)}")
        record: np.void = np.frombuffer(bytes(buffer), self.dtype)[0]
        return record

    def array(self, rows: Iterable[Mapping[str, Any]] | int) -> np.ndarray[Any, Any]:
        """A zeroed numpy array of that many records, or one record per mapping."""
        if isinstance(rows, int):
            return np.zeros(rows, self.dtype)
        return np.frombuffer(b"".join(self.pack(**row) for row in rows), self.dtype).copy()


Type: TypeAlias = Scalar | Array | Struct


def _signature(kind: Type) -> str:
    if isinstance(kind, Array):
        return f"{_signature(kind.element)}[{kind.length}]"
    return f"{kind.name}:{kind.digest}" if isinstance(kind, Struct) else kind.name


def c_type(kind: Scalar | Struct) -> str:
    """How C names the type: `u32`, `struct NAME`."""
    return f"struct {kind.name}" if isinstance(kind, Struct) else kind.c_name


def _declaration(name: str, kind: Type) -> str:
    if isinstance(kind, Array):
        return _declaration(f"{name}[{kind.length}]", kind.element)
    return f"{c_type(kind)} {name}"


def _convert(kind: Type, value: Any) -> Any:
    """A Python value in a form that numpy assigns without guessing: nothing wraps, nothing is stretched."""
    if isinstance(kind, Scalar):
        return operator.index(value)
    if isinstance(value, np.ndarray | np.void):
        if value.dtype == kind.dtype.base and value.shape == kind.dtype.shape:
            return value
        value = value.tolist()
    if isinstance(value, bytes | bytearray | memoryview):
        if len(value) != kind.size:
            raise ValueError(f"{kind.size} bytes are needed, not {len(value)}")
        return np.frombuffer(value, kind.dtype.base).reshape(kind.dtype.shape)
    if isinstance(kind, Array):
        return _convert_elements(kind, value)
    return np.frombuffer(kind.pack(**value), kind.dtype)[0]


def _convert_elements(kind: Array, value: Any) -> Any:
    elements = list(value)
    if len(elements) != kind.length:
        raise ValueError(f"{kind.length} elements are needed, not {len(elements)}")
    converted = np.zeros(kind.dtype.shape, kind.dtype.base)
    for index, element in enumerate(elements):
        converted[index] = _convert(kind.element, element)
    return converted


def dependencies(kinds: Iterable[Type | None]) -> list[Struct]:
    """Every struct that these types are or contain, each once, those contained first.

    :raises LayoutError: when two different structs have the same name.
    """
    found: dict[str, Struct] = {}

    def visit(kind: Type | None) -> None:
        if isinstance(kind, Array):
            visit(kind.element)
        if not isinstance(kind, Struct):
            return
        for inner in kind.fields.values():
            visit(inner)
        if found.setdefault(kind.name, kind) != kind:
            raise LayoutError(f"two different structs are called {kind.name}")

    for kind in kinds:
        visit(kind)
    return list(found.values())


def c_definitions(kinds: Iterable[Type | None]) -> str:
    """The C text of all structs among and within these types, each defined once and before its use."""
    return "\n".join(struct.c() for struct in dependencies(kinds))
