"""A document that was read: plain values, and where each of them stands in its file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple, Protocol

from attrs import field, frozen

from axoneme.core.errors import ResourceError, Where

#: The largest file that is read, in bytes: room for thousands of objects, little enough to be read at once.
MAX_BYTES: Final = 4 << 20
#: The most values (keys included, aliases expanded) that one object may hold, and that a file's aliases may stand for.
MAX_NODES: Final = 100_000
MAX_DEPTH: Final = 64

#: The way to a value from the top of its document: names of fields and numbers of list elements.
Path = tuple[str | int, ...]


class Place(Protocol):
    """A position, counted from 0."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


#: id of a mapping or list → the places of its keys (by key) or of its elements (by number).
Marks = dict[int, Any]


def count(nodes: int, file: str, place: Place) -> int:
    """`nodes`, unless these are too many: then `ResourceError`."""
    if nodes > MAX_NODES:
        raise ResourceError(
            f"more than {MAX_NODES:,} values, aliases expanded",
            where=Where(file, place.line + 1, place.column + 1),
            hint="split it into several files",
        )
    return nodes


@lru_cache(maxsize=4096)
def dotted(path: Path) -> str:
    """A path as people write it: `spec.ingress[0].toPorts`; keys that are not words in brackets."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif step.isidentifier() or step.replace("-", "_").isidentifier():
            text += f".{step}" if text else step
        else:
            text += f"[{step!r}]"
    return text


class Written(Mapping[str, Any]):
    """An object as it was written: its text, which is read again when somebody looks inside.

    Of the many objects of a large mesh this takes a tenth of the memory that their values would take.
    """

    __slots__ = ("_read", "place", "text")

    def __init__(self, text: str, place: tuple[int, int], read: Callable[[str], dict[str, Any]]) -> None:
        #: Line and column, from 0, where the text begins.
        self.place = place
        self.text = text
        self._read = read

    @classmethod
    def of(cls, value: dict[str, Any]) -> Written:
        """For one that is part of a text from which it cannot be cut out."""
        return cls(json.dumps(value, separators=(",", ":")), (-1, -1), json.loads)

    @property
    def value(self) -> dict[str, Any]:
        """All of it; a new one each time."""
        return self._read(self.text)

    def __getitem__(self, key: str) -> Any:
        return self.value[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __bool__(self) -> bool:
        return True  # an object is never empty: it has a kind and a name

    def __eq__(self, other: object) -> bool:
        """Whether they mean the same, however they are written."""
        if isinstance(other, Written) and other.text == self.text and other._read is self._read:
            return True
        return isinstance(other, Mapping) and digest(self) == digest(other)

    __hash__ = None  # type: ignore[assignment]


def digest(value: Any) -> str:
    """A hash of a JSON-like value that does not depend on the order of keys; 32 hexadecimal digits."""
    value = value.value if isinstance(value, Written) else value
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@frozen(eq=False)
class Document:
    """One document of a file.

    :param value: mappings (dict with text keys), lists, text, numbers, booleans and None. Not to be changed; where the
        file has aliases, parts are shared.
    :param start: where the document begins.
    :param base: the way from the document's own top to `value`, for an element of a list of objects.
    :param written: the text of it, where it has one of its own.
    :param lines: how many lines of the file are before the first one that `marks` know of.
    """

    file: str
    value: Any
    marks: Marks
    start: Place
    base: Path = ()
    written: Written | None = None
    lines: int = 0
    #: The place of all of it.
    where: Where = field(init=False, repr=False)

    @where.default
    def _place_of_all(self) -> Where:
        return Where(self.file, self.start.line + 1, self.start.column + 1, dotted(self.base) or None)

    def position(self, path: Path = ()) -> Where:
        """File, line and column (from 1) and name of a field.

        The position of a mapping's field is that of its key. For a field that is not there it is the position of the
        nearest one around it, with the name of the missing one.
        """
        if not path:
            return self.where
        place, value = self.start, self.value
        line = place.line + 1
        for step in path:
            marks = self.marks.get(id(value))
            try:
                place, value = marks[step], value[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
            line = place.line + self.lines + 1
        name = dotted((*self.base, *path)) or None
        return Where(self.file, line, place.column + 1, name)

    def within(self, path: Path) -> Document:
        """The part of the document at `path`, as a document of its own."""
        value: Any = self.value
        for step in path:
            value = value[step]
        where = self.position(path)
        start = At((where.line or 1) - 1, (where.column or 1) - 1)
        return Document(self.file, value, self.marks, start, (*self.base, *path), None, self.lines)


class At(NamedTuple):
    """A `Place` of our own."""

    line: int
    column: int


#: By the place where an object's text began: the text, and what is to be given for it if it still is there.
Known = Mapping[tuple[int, int], tuple[str, Any]]


class DoubtError(Exception):
    """The quick way to read a text does not know what to make of it: the thorough one has to."""
