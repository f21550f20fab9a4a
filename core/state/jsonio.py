"""Strict JSON (RFC 8259) with positions: the standard library's parser, and a scanner that runs when positions are asked for."""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

from axoneme.core.errors import ResourceError, Where
from axoneme.core.state.document import MAX_DEPTH, At, Document, Marks, count

_SPACE: Final = re.compile(r"[ \t\n\r]*")
_SCALAR: Final = re.compile(r"[^\s,\]}]+")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class _RefusedError(ValueError):
    """Well-formed JSON that is refused."""


class _DuplicateError(ValueError):
    """An object with a key twice; where, the scanner finds out."""


def load(text: str, file: str) -> list[Document]:
    """The one document of a JSON text; none when the text is blank or `null`. Raises `ResourceError`."""
    if not text.strip():
        return []
    try:
        value = json.loads(
            text, parse_int=_whole, parse_float=_real, parse_constant=_real, object_pairs_hook=_object
        )
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
    return [] if value is None else [Document(file, value, _LazyMarks(text, file, value), At(0, 0))]


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


def _measure(value: Any, text: str, file: str) -> None:
    """Refuses what is too deep or too much, and text that is not Unicode (half of a surrogate pair)."""
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
    if _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ResourceError("half of a surrogate pair in a text", where=Where(file)) from None


class _LazyMarks(Marks):
    """Marks that are worked out when the first one is asked for."""

    def __init__(self, text: str, file: str, value: Any) -> None:
        super().__init__()
        self._scan: _Scan | None = _Scan(text, file)
        self._value = value

    def get(self, key: int, default: Any = None) -> Any:
        if self._scan is not None:
            self._scan.read(0, self._value, 0)
            self.update(self._scan.marks)
            self._scan = None
        return super().get(key, default)


class _Scan:
    """Goes through a text that is known to be JSON and notes where things are; `value` is what the text means."""

    def __init__(self, text: str, file: str) -> None:
        self.text, self.file = text, file
        self.lines = [0, *(found.end() for found in re.finditer("\n", text))]
        self.marks: Marks = {}

    def read(self, at: int, value: Any, depth: int) -> int:
        """Reads one value from offset `at`; returns the offset behind it."""
        at = self.skip(at)
        if depth > MAX_DEPTH:
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
        return At(line, at - self.lines[line])
