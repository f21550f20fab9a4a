"""Strict JSON (RFC 8259) with positions: the standard library's parser, and a scanner that runs when positions are asked for.

A file of objects (a `List`) is read object by object: see `parts`.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterator
from functools import cache
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

from axoneme.core.errors import ResourceError, Where
from axoneme.core.state.document import (
    MAX_DEPTH,
    MAX_NODES,
    At,
    Document,
    DoubtError,
    Known,
    Marks,
    Place,
    Written,
    count,
)

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SCALAR: Final = re.compile(r"[^\s,\]}]+")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


_BLANK: Final = " \t\n\r"
_TOP: Final = At(0, 0)
#: What a list of objects may have.
_LIST: Final = frozenset(("apiVersion", "kind", "metadata", "items"))


class _RefusedError(ValueError):
    """Well-formed JSON that is refused."""


class _DuplicateError(ValueError):
    """An object with a key twice; where, the scanner finds out."""


def load(text: str, file: str) -> list[Document]:
    """The one document of a JSON text; none when the text is blank or `null`. Raises `ResourceError`."""
    if not text.strip():
        return []
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        where = Where(file, error.lineno, error.colno)
        raise ResourceError(f"malformed JSON: {error.msg}", where=where) from None
    except _DuplicateError:
        _Scan(text, file).read(0, None, 0)
        raise AssertionError("the scanner and the parser disagree") from None
    except (_RefusedError, RecursionError) as error:
        message = str(error) if isinstance(error, _RefusedError) else f"nested deeper than {MAX_DEPTH} levels"
        raise ResourceError(message, where=Where(file)) from None
    _measure(value, text, file)
    if value is None:
        return []
    return [Document(file, value, _LazyMarks(text, file, value), At(0, 0))]


def parts(text: str, file: str, known: Known) -> Iterator[Document | Any]:
    """The objects of a text that is a list of objects, as `load` and `expand` would give them; each as soon as it is read.

    :param known: what stands where it stood before is not read again.
    :raises DoubtError: when the text is anything else, or anything is wrong with it. Then what it gave does not count.
    """
    try:
        yield from _Objects(text, file, known)
    except (ValueError, StopIteration, IndexError, RecursionError, ResourceError):
        raise DoubtError from None


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -(1 << 63) <= (value := int(digits)) < 1 << 64:
        raise _RefusedError("a number beyond 64 bits")
    return value


def _real(digits: str) -> float:
    if len(digits) > 400 or not math.isfinite(value := float(digits)):
        raise _RefusedError(f"{digits[:40]} is not a number that JSON can hold")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _DuplicateError
    return value


_DECODER: Final = json.JSONDecoder(
    parse_int=_whole, parse_float=_real, parse_constant=_real, object_pairs_hook=_object
)
#: Without what costs a call of Python for each mapping and number.
_LENIENT: Final = json.JSONDecoder(parse_float=_real, parse_constant=_real)


def _is_exact(value: Any, text: str) -> bool:
    """Whether a lenient reading lost nothing: no key that was there twice, no number beyond 64 bits, no half character.

    Written again, the value has as many quotation marks as its text, if all is well; a lost key takes some away.
    """
    try:
        if "\\" in text and "\\u0022" in text:
            return False
        return _dumps()(value).count(b'"') == text.count('"')
    except TypeError:
        return False


@cache
def _dumps() -> Callable[[Any], bytes]:
    """What refuses a value raises a `TypeError`."""
    import orjson  # not to be paid for by commands that read no objects

    return orjson.dumps


def _again(text: str) -> Any:
    """What a text means that was read before."""
    import orjson

    return orjson.loads(text)


def _measure(value: Any, text: str, file: str) -> None:
    """Refuses what is too deep or too much, and text that is not Unicode (half of a surrogate pair)."""
    # No value is shorter than a character, and none is in more brackets than there are.
    if len(text) > MAX_NODES or text.count("{") + text.count("[") > MAX_DEPTH:
        is_list = type(value) is dict and value.get("kind") == "List" and type(value.get("items")) is list
        for each in value["items"] if is_list else [value]:
            _count(each, file)
    if "\\" in text and _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ResourceError("half of a surrogate pair in a text", where=Where(file)) from None


def _count(value: Any, file: str) -> None:
    nodes, level, layer = 0, 0, [value]
    while layer:
        nodes = count(nodes + len(layer), file, At(0, 0))
        if (level := level + 1) > MAX_DEPTH + 1:
            raise ResourceError(f"nested deeper than {MAX_DEPTH} levels", where=Where(file))
        inner: list[Any] = []
        for item in layer:
            if type(item) is list:
                inner.extend(item)
            elif type(item) is dict:
                inner.extend(item.values())
                nodes += len(item)
        layer = inner


class _LazyMarks(Marks):
    """Marks that are worked out when the first one is asked for. `start`: where the text begins in its file."""

    def __init__(self, text: str, file: str, value: Any, start: Place = _TOP) -> None:
        self._pending: tuple[str, str, Any, Place] | None = (text, file, value, start)

    def get(self, key: int, default: Any = None) -> Any:
        if self._pending is not None:
            text, file, value, start = self._pending
            scan = _Scan(text, file, start)
            scan.read(0, value, 0)
            self.update(scan.marks)
            self._pending = None
        return super().get(key, default)


class _Objects:
    """Goes through the objects of a list; each is read by the standard library's parser."""

    def __init__(self, text: str, file: str, known: Known) -> None:
        self.text, self.file, self.known = text, file, known
        self.line, self.begin, self.at = 0, 0, 0  # the line that `at` is in, and where it begins

    def __iter__(self) -> Iterator[Document | Any]:
        """Raises one of many errors where `load` would, or where the text is no list of objects."""
        top: dict[str, Any] = {}
        at = self.past(0, "{")
        while True:
            key, at = scanstring(self.text, self.past(at, '"'))
            at = self.skip(self.past(at, ":"))
            if key in top:
                raise _DuplicateError
            top[key] = None
            if key == "items":
                at = yield from self.items(self.past(at, "["))
            else:
                begin = at
                top[key], at = _DECODER.raw_decode(self.text, at)
                _measure(top[key], self.text[begin:at], self.file)
            at = self.skip(at)
            if self.text[at] == "}":
                break
            at = self.past(at, ",")
        if (
            top.keys() - _LIST
            or top.get("kind") != "List"
            or "items" not in top
            or self.text[at + 1 :].strip(_BLANK)
        ):
            raise ValueError("something else than a list of objects")

    def items(self, at: int) -> Generator[Document | Any, None, int]:
        at, number = self.skip(at), 0
        if self.text[at] == "]":
            raise ValueError("an empty list")
        while True:
            start = self.place(at)
            found = self.known.get(start)
            if found is not None and self.text.startswith(found[0], at):
                at += len(found[0])
                yield found[1]
            else:
                value, end = _LENIENT.raw_decode(self.text, at)
                yield self.document(value, self.text[at:end], start, number)
                at = end
            at, number = self.skip(at), number + 1
            if self.text[at] == "]":
                return at + 1
            at = self.skip(self.past(at, ","))

    def document(self, value: Any, text: str, start: At, number: int) -> Document:
        if not _is_exact(value, text):
            value = _DECODER.decode(text)
        _measure(value, text, self.file)
        marks = _LazyMarks(text, self.file, value, start)
        written = Written(text, start, _again)
        return Document(self.file, value, marks, start, ("items", number), written)

    def place(self, at: int) -> At:
        """Of an offset that is behind all that were asked for before."""
        first = self.text.find("\n", self.at, at)  # much faster than to count, and often there is no more
        if first >= 0:
            self.line += self.text.count("\n", first, at)
            self.begin = self.text.rindex("\n", self.at, at) + 1
        self.at = at
        return At(self.line, at - self.begin)

    def skip(self, at: int) -> int:
        if self.text[at] not in _BLANK:
            return at
        found = _SPACE.match(self.text, at)
        return at if found is None else found.end()

    def past(self, at: int, what: str) -> int:
        at = self.skip(at)
        if self.text[at] != what:
            raise ValueError(f"{what} is not here")
        return at + 1


class _Scan:
    """Goes through a text that is known to be JSON and notes where things are; `value` is what the text means."""

    def __init__(self, text: str, file: str, start: Place = _TOP) -> None:
        self.text, self.file, self.start = text, file, start
        self.lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self.marks: Marks = {}

    def read(self, at: int, value: Any, depth: int) -> int:
        """Reads one value from offset `at`; returns the offset behind it."""
        at = self.skip(at)
        if depth > MAX_DEPTH + len(("items", 0)):
            raise ResourceError(f"nested deeper than {MAX_DEPTH} levels", where=Where(self.file))
        if self.text[at] == "{":
            return self.object(at + 1, value, depth)
        if self.text[at] == "[":
            return self.array(at + 1, value, depth)
        if self.text[at] == '"':
            return int(scanstring(self.text, at + 1)[1])
        found = _SCALAR.match(self.text, at)
        assert found is not None
        return found.end()

    def object(self, at: int, value: Any, depth: int) -> int:
        marks: dict[str, At] = {}
        self.marks[id(value)] = marks
        at = self.skip(at)
        while self.text[at] != "}":
            place = self.place(at)
            key, at = scanstring(self.text, at + 1)
            if key in marks:
                first = marks[key].line + 1
                where = Where(self.file, place.line + 1, place.column + 1)
                raise ResourceError(f"the key {key!r} is here twice, first in line {first}", where=where)
            marks[key] = place
            at = self.read(self.skip(at) + 1, None if value is None else value[key], depth + 1)
            at = self.following(at)
        return at + 1

    def array(self, at: int, value: Any, depth: int) -> int:
        marks: list[At] = []
        self.marks[id(value)] = marks
        at = self.skip(at)
        while self.text[at] != "]":
            marks.append(self.place(at))
            at = self.read(at, None if value is None else value[len(marks) - 1], depth + 1)
            at = self.following(at)
        return at + 1

    def following(self, at: int) -> int:
        """Past a comma, to the next element or the end."""
        at = self.skip(at)
        return self.skip(at + 1) if self.text[at] == "," else at

    def skip(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return at if found is None else found.end()

    def place(self, at: int) -> At:
        line = bisect_right(self.lines, at) - 1
        column = at - self.lines[line]
        return At(self.start.line + line, column if line else self.start.column + column)
