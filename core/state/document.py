"""A document that was read: plain values, and where each of them stands in its file."""

from __future__ import annotations

from typing import Any, Final, Protocol

from attrs import frozen

from axoneme.core.errors import ResourceError, Where

#: The largest file that is read, in bytes: room for thousands of objects, little enough to be read at once.
MAX_BYTES: Final = 4 << 20
#: The most values (keys included, aliases expanded) that one file may hold.
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


@frozen(eq=False)
class Document:
    """One document of a file.

    :param value: mappings (dict with text keys), lists, text, numbers, booleans and None. Not to be changed; where the
        file has aliases, parts are shared.
    :param start: where the document begins.
    :param base: the way from the document's own top to `value`, for an element of a list of objects.
    """

    file: str
    value: Any
    marks: Marks
    start: Place
    base: Path = ()

    def position(self, path: Path = ()) -> Where:
        """File, line and column (from 1) and name of a field.

        The position of a mapping's field is that of its key. For a field that is not there it is the position of the
        nearest one around it, with the name of the missing one.
        """
        place, value = self.start, self.value
        for step in path:
            marks = self.marks.get(id(value))
            try:
                place, value = marks[step], value[step]  # type: ignore[index]
            except (KeyError, IndexError, TypeError):
                break
        name = dotted((*self.base, *path)) or None
        return Where(self.file, place.line + 1, place.column + 1, name)

    def within(self, path: Path) -> Document:
        """The part of the document at `path`, as a document of its own."""
        value: Any = self.value
        for step in path:
            value = value[step]
        where = self.position(path)
        start = At((where.line or 1) - 1, (where.column or 1) - 1)
        return Document(self.file, value, self.marks, start, (*self.base, *path))


@frozen
class At:
    """A `Place` of our own."""

    line: int
    column: int
