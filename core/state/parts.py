"""The quick way to read a file of many objects: each by itself, its places only when somebody asks for them.

It gives what `yamlio.load` and `resources.expand` give, or has doubts; it never says what is wrong, which is theirs to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import yaml

from axoneme.core.errors import ResourceError
from axoneme.core.state import jsonio, plainyaml
from axoneme.core.state.document import At, Document, DoubtError, Known, Marks, Written
from axoneme.core.state.plainyaml import NotPlainError
from axoneme.core.state.yamlio import NUMERIC, WORDS, Reader, RefusedError, decoded, scalar


def parts(content: bytes, file: str, known: Known) -> Iterator[Document | Any]:
    """The objects of a file, as `load` and `resources.expand` would give them; each as soon as it is read.

    :param known: what stands where it stood before is not read again.
    :raises DoubtError: when anything is wrong, or the text is not clearly one object after the other. Then what it gave
        does not count, and `load` knows better.
    """
    try:
        text = decoded(content, file)
    except ResourceError:
        raise DoubtError from None
    yield from jsonio.parts(text, file, known) if file.endswith(".json") else _parts(text, file, known)


#: Where a document begins, whatever is around it: in no text of YAML a line can begin so.
_BEGIN: Final = re.compile(r"^---(?=[ \t\n]|\Z)", re.MULTILINE)
#: Directives, ends of documents, aliases, and what else than "\n" ends a line.
_ODD: Final = re.compile("^(?:%|\\.\\.\\.)|[\r\x85\u2028\u2029\ufeff]", re.MULTILINE)


def _parts(text: str, file: str, known: Known) -> Iterator[Document | Any]:
    """Each document by itself."""
    if _ODD.search(text):
        raise DoubtError
    begins = [0, *(found.start() for found in _BEGIN.finditer(text)), len(text)]
    line = 0
    for begin, end in pairwise(begins):
        found = known.get((line, 0))
        if found is not None and len(found[0]) == end - begin and text.startswith(found[0], begin):
            yield found[1]
        elif part := text[begin:end]:
            yield from _part(part, file, line)
        line += text.count("\n", begin, end)


def _part(text: str, file: str, line: int) -> Iterator[Document]:
    written = Written(text, (line, 0), _read)
    try:
        value, first = _plain_mapping(text)
    except NotPlainError:
        yield from _any_part(text, file, line, written)
        return
    if value.get("kind") == "List":
        raise DoubtError
    yield Document(file, value, _LazyMarks(text, value), At(line + first, 0), (), written, line)


def _any_part(text: str, file: str, line: int, written: Written) -> Iterator[Document]:
    reader = Reader(text, file)
    try:
        documents = reader.documents()
    except (yaml.YAMLError, ResourceError):
        raise DoubtError from None
    for one in documents:
        if reader.anchors or type(one.value) is not dict or one.value.get("kind") == "List":
            raise DoubtError
        start = At(one.start.line + line, one.start.column)
        yield Document(file, one.value, one.marks, start, (), written, line)


def _read(text: str) -> Any:
    try:
        return _plain_mapping(text)[0]
    except NotPlainError:
        return Reader(text, "").documents()[0].value


def _plain_mapping(text: str) -> tuple[dict[str, Any], int]:
    """The value of a document that is plain, and its first line."""
    marker = text.startswith("---\n")
    value, first = plainyaml.read(text[4:] if marker else text, _plain_scalar)
    return value, first + marker


def _plain_scalar(text: str) -> Any:
    if text[0] not in NUMERIC:
        return WORDS.get(text, text)
    try:
        return scalar(text)
    except RefusedError:
        raise NotPlainError from None


class _LazyMarks(Marks):
    """Marks of a document that was plain, worked out by libyaml when the first one is asked for."""

    def __init__(self, text: str, value: Any) -> None:
        super().__init__()
        self._pending: tuple[str, Any] | None = (text, value)

    def get(self, key: int, default: Any = None) -> Any:
        if self._pending is not None:
            text, value = self._pending
            (document,) = Reader(text, "").documents()
            self._take(value, document.value, document.marks)
            self._pending = None
        return super().get(key, default)

    def _take(self, mine: Any, same: Any, marks: Marks) -> None:
        if isinstance(mine, (dict, list)):
            self[id(mine)] = marks[id(same)]
            for at in mine if isinstance(mine, dict) else range(len(mine)):
                self._take(mine[at], same[at], marks)
