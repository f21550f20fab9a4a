"""Strict reading of YAML and JSON documents, where every value knows its line and column.

YAML is read as Kubernetes' tools read it: YAML 1.1 words (`yes`, `off`) are booleans, dates stay text, a whole-number
key is text, `<<` merges. Refused are duplicate keys, tags beyond the core schema, numbers that JSON cannot hold, and what
would cost more than it can mean: files above `MAX_BYTES`, more than `MAX_NODES` values in a document or behind a file's
aliases, deeper than `MAX_DEPTH`. Text is parsed once, by libyaml's event parser, without recursion; see https://yaml.org/spec/1.1/.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import yaml
from attrs import define, field
from yaml.cyaml import CParser  # type: ignore[attr-defined]

from axoneme.core.errors import ResourceError, Where
from axoneme.core.state import jsonio
from axoneme.core.state.document import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    Document,
    Marks,
    Place,
    count,
)

__all__ = ["MAX_BYTES", "MAX_DEPTH", "MAX_NODES", "Document", "load"]

_CORE: Final = "tag:yaml.org,2002:"
WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON"), True),
    **dict.fromkeys(("false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF"), False),
}
_WHOLE: Final = re.compile(r"([-+]?)(?:0b([01_]+)|0x([0-9a-fA-F_]+)|0o?([0-7_]+)|(0|[1-9][0-9_]*))")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_JSON: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
NUMERIC: Final = frozenset("-+.0123456789")
_LONGEST_NUMBER: Final = 64
_NO_KEY: Final = object()
_MERGE: Final = object()


def load(content: bytes | str, file: str) -> list[Document]:
    """The documents of a file, without the empty ones (only comments, or nothing between two `---`).

    A name ending in `.json` is read as one strict JSON document (RFC 8259), anything else as YAML.
    Raises `ResourceError` with line and column, for all that is wrong with the text.
    """
    text = decoded(content, file)
    if file.endswith(".json"):
        return jsonio.load(text, file)
    try:
        return Reader(text, file).documents()
    except yaml.YAMLError as error:
        raise _syntax(error, text, file) from None


def decoded(content: bytes | str, file: str) -> str:
    """The text of a file. Raises `ResourceError` when there is too much of it, or it is not Unicode."""
    if len(content) > MAX_BYTES:
        raise ResourceError(
            f"the file has {len(content):,} bytes or more, the limit is {MAX_BYTES:,}",
            where=Where(file),
            hint="split it into several files",
        )
    try:
        if isinstance(content, str):
            content.encode()
            return content
        return content.decode("utf-8-sig")
    except UnicodeEncodeError as error:
        raise ResourceError(f"not Unicode text: {error.reason}", where=Where(file)) from None
    except UnicodeDecodeError as error:
        assert isinstance(content, bytes)
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ResourceError(
            f"not UTF-8: byte 0x{content[error.start]:02x}", where=Where(file, line, column)
        ) from None


def _syntax(error: yaml.YAMLError, text: str, file: str) -> ResourceError:
    """libyaml's complaint, in one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        parts = [part for part in (error.context, error.problem) if part]
        last = text.count("\n", 0, len(text) - 1) + 1
        # At the end of the text, what is still open there says more.
        marks = [mark for mark in (error.problem_mark, error.context_mark) if mark and mark.line < last]
        where = Where(file, marks[0].line + 1, marks[0].column + 1) if marks else Where(file, last)
        return ResourceError(f"malformed YAML: {', '.join(parts)}", where=where)
    if isinstance(error, yaml.reader.ReaderError):
        line = text.encode().count(b"\n", 0, error.position) + 1
        return ResourceError(f"malformed YAML: {error.reason}", where=Where(file, line))
    return ResourceError(f"malformed YAML: {error}", where=Where(file))


@define
class _Open:
    """A mapping or list whose end was not reached yet."""

    value: Any
    marks: Any
    place: Place
    anchor: str | None
    key: Any = _NO_KEY
    size: int = 1
    merges: list[dict[str, Any]] = field(factory=list)


@define
class _Anchor:
    value: Any = None
    size: int = 0
    complete: bool = False


class Reader:
    """Builds values from libyaml's events, with a stack of its own."""

    def __init__(self, text: str, file: str) -> None:
        self.next = CParser(text).get_event
        self.file = file
        self.nodes = self.aliased = 0
        self.marks: Marks = {}
        self.anchors: dict[str, _Anchor] = {}
        self.stack: list[_Open] = []

    def documents(self) -> list[Document]:
        documents = []
        while (kind := type(self.next())) is not yaml.StreamEndEvent:
            if kind is yaml.DocumentStartEvent:
                self.marks, self.anchors, self.nodes = {}, {}, 0
                value, place = self.document()
                if value is not None:
                    documents.append(Document(self.file, value, self.marks, place))
        return documents

    def document(self) -> tuple[Any, Place]:
        """The value of one document, and where it begins."""
        while True:
            event: Any = self.next()
            if (complete := self.value(event)) is None:
                continue
            value, size, place = complete
            if not self.stack:
                return value, place
            self.add(self.stack[-1], value, size, place, event)

    def value(self, event: Any) -> tuple[Any, int, Place] | None:
        """The complete value that an event is or ends, with the number of its nodes; None while one is open."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self.spend(1, event.start_mark)
            value = self.scalar(event)
            if event.anchor is not None:
                self.anchors[event.anchor] = _Anchor(value, 1, True)
            return value, 1, event.start_mark
        if kind is yaml.MappingStartEvent:
            self.open(event, {}, {}, "map")
        elif kind is yaml.SequenceStartEvent:
            self.open(event, [], [], "seq")
        else:
            return self.alias(event) if kind is yaml.AliasEvent else self.close()
        return None

    def open(self, event: Any, value: Any, marks: Any, tag: str) -> None:
        place = event.start_mark
        self.spend(1, place)
        if event.tag not in (None, "!", _CORE + tag):
            raise self.error(f"the tag {event.tag} is not supported", place)
        if len(self.stack) >= MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH} levels", place)
        if self.stack and type(self.stack[-1].value) is dict and self.stack[-1].key is _NO_KEY:
            raise self.error("a key must be text", place)
        if event.anchor is not None:
            self.anchors[event.anchor] = _Anchor()
        self.marks[id(value)] = marks
        self.stack.append(_Open(value, marks, place, event.anchor))

    def close(self) -> tuple[Any, int, Place]:
        top = self.stack.pop()
        for other in top.merges:
            marks = self.marks[id(other)]
            for key in other.keys() - top.value.keys():
                top.value[key], top.marks[key] = other[key], marks[key]
        if top.anchor is not None:
            self.anchors[top.anchor] = _Anchor(top.value, top.size, True)
        return top.value, top.size, top.place

    def alias(self, event: Any) -> tuple[Any, int, Place]:
        anchor = self.anchors.get(event.anchor)
        if anchor is None:
            raise self.error(f"there is no anchor &{event.anchor}", event.start_mark)
        if not anchor.complete:
            raise self.error(f"*{event.anchor} contains itself", event.start_mark)
        self.spend(anchor.size, event.start_mark)
        self.aliased = count(self.aliased + anchor.size, self.file, event.start_mark)
        return anchor.value, anchor.size, event.start_mark

    def add(self, top: _Open, value: Any, size: int, place: Place, event: Any) -> None:
        top.size += size
        if type(top.value) is list:
            top.value.append(value)
            top.marks.append(place)
        elif top.key is _NO_KEY:
            top.key = self.key(value, event)
            if top.key is not _MERGE:
                self.enter(top, top.key, place)
        else:
            if top.key is _MERGE:
                self.merge(top, value, place)
            else:
                top.value[top.key] = value
            top.key = _NO_KEY

    def enter(self, top: _Open, key: str, place: Place) -> None:
        if key in top.marks:
            first = top.marks[key].line + 1
            raise self.error(f"the key {key!r} is here twice, first in line {first}", place)
        top.marks[key] = place

    def key(self, value: Any, event: Any) -> Any:
        if type(value) is str:
            plain = type(event) is yaml.ScalarEvent and event.implicit[0] and not event.style
            return _MERGE if plain and value == "<<" else value
        if type(value) is int and type(event) is yaml.ScalarEvent:
            return event.value
        raise self.error("a key must be text", event.start_mark, hint="put it in quotes")

    def merge(self, top: _Open, value: Any, place: Place) -> None:
        others = value if type(value) is list else [value]
        if not all(type(other) is dict for other in others):
            raise self.error("<< merges mappings only", place)
        top.merges.extend(others)

    def scalar(self, event: Any) -> Any:
        tag, text = event.tag, event.value
        if tag is None:
            if not event.implicit[0]:  # quoted or a block
                return text
            return self.plain(text, event.start_mark)
        if tag in ("!", _CORE + "str"):
            return text
        value = self.plain(text, event.start_mark)
        if tag not in _TAGS or not isinstance(value, _TAGS[tag]):
            raise self.error(f"the tag {tag} is not supported, or not for {text[:40]!r}", event.start_mark)
        return value

    def plain(self, text: str, place: Place) -> Any:
        try:
            return scalar(text)
        except RefusedError as error:
            raise self.error(str(error), place, hint="put it in quotes") from None

    def spend(self, nodes: int, place: Place) -> None:
        self.nodes = count(self.nodes + nodes, self.file, place)

    def error(self, message: str, place: Place, hint: str | None = None) -> ResourceError:
        return ResourceError(message, where=Where(self.file, place.line + 1, place.column + 1), hint=hint)


class RefusedError(ValueError):
    """A number that JSON cannot hold."""


def scalar(text: str) -> Any:
    """What a scalar without quotes or tag means. Raises `RefusedError`."""
    if text in WORDS:
        return WORDS[text]
    if text[0] not in NUMERIC or text.count(".") > 1:
        return text
    if len(text) <= _LONGEST_NUMBER:
        return _number(text)
    if _WHOLE.fullmatch(text) or _FLOAT.fullmatch(text):
        raise RefusedError("a number with too many digits")
    return text


def _number(text: str) -> Any:
    if found := _WHOLE.fullmatch(text):
        sign, binary, hexadecimal, octal, decimal = found.groups()
        for digits, base in ((decimal, 10), (octal, 8), (hexadecimal, 16), (binary, 2)):
            if digits and digits.strip("_"):
                value = int(sign + digits.replace("_", ""), base)
                if not -(1 << 63) <= value < 1 << 64:
                    raise RefusedError("a number beyond 64 bits")
                return value
    if _FLOAT.fullmatch(text) and math.isfinite(number := float(text)):
        return number
    if _NOT_JSON.fullmatch(text) or _FLOAT.fullmatch(text):
        raise RefusedError(f"{text} is not a number that JSON can hold")
    return text


_TAGS: Final[dict[str, type | tuple[type, ...]]] = {
    _CORE + "null": type(None),
    _CORE + "bool": bool,
    _CORE + "int": int,
    _CORE + "float": (float, int),
}
