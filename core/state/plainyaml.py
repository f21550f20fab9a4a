"""A short way to read YAML that is plain: mappings and lists in blocks, a key or a scalar in each line, as machines write it.

    metadata:
      name: web
    ports:
    - port: 80

libyaml makes an object of each event, with two places: of 40,000 objects that takes longer than all that follows. Here the lines
of a text are cut in one go into what makes its shape (indentation, dashes, keys) and its scalars. Each shape is understood once,
since the many objects of a mesh have few; then it is filled in. What is not plain beyond doubt is left to libyaml: quotes within
quotes, flow collections, blocks of text, comments, anchors, tags, anything but ASCII.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from attrs import define, frozen

from axoneme.core.state.document import MAX_DEPTH, MAX_NODES

#: A line: its part of the shape, its scalar; or what else it is. No repetition is next to one of the same characters without
#: being possessive, so that the time is linear. (Possessive groups, and not just characters, go wrong in Python 3.11.2.)
_LINE: Final = re.compile(
    r"""([ ]*+(?:-[ ])*(?:[A-Za-z_][A-Za-z0-9_./-]{0,253}+:(?=[ \n]))?)
        [ ]*+
        ([A-Za-z0-9_./][A-Za-z0-9_./:@+=-]*+(?<!:) | "[ !#-\[\]-~]*+" | '[ -&(-~]*+' | \{\} | \[\])?
        [ ]*+\n
        | ([^\n]*\n)""",
    re.VERBOSE,
)
#: How many shapes are remembered, and how many lines one of them may have: at most 10 MiB.
_SHAPES, _LONGEST = 128, 1000


@frozen(eq=False)
class _Shape:
    """A text without its scalars: mappings, lists, None, and numbers of the lines whose scalars belong there.

    :param first: the line in which the outermost mapping begins.
    """

    value: dict[str, Any]
    first: int


class NotPlainError(Exception):
    """The text has to be read by libyaml; it may be right or wrong."""


def read(text: str, scalar: Callable[[str], Any]) -> tuple[dict[str, Any], int]:
    """The mapping that a text without markers of documents holds, and the line where it begins, from 0.

    :param scalar: what a scalar without quotes means. It may raise `NotPlainError`.
    :raises NotPlainError:
    """
    if len(text) > MAX_NODES:
        raise NotPlainError
    lines = _LINE.findall(text if text.endswith("\n") else text + "\n")
    if not 0 < len(lines) <= _LONGEST:
        raise NotPlainError
    parts, scalars, others = zip(*lines, strict=True)
    if any(others):
        raise NotPlainError
    shape = _shape(parts, tuple(map(bool, scalars)))
    values = [_value(one, scalar) if one else None for one in scalars]
    return _filled(shape.value, values), shape.first


def _value(text: str, scalar: Callable[[str], Any]) -> Any:
    if text[0] in "\"'":
        return text[1:-1]
    if text[0] in "{[":
        return {} if text == "{}" else []
    return scalar(text)


def _filled(shape: Any, values: list[Any]) -> Any:
    if type(shape) is dict:
        return {
            key: values[inner] if type(inner) is int else _filled(inner, values)
            for key, inner in shape.items()
        }
    if type(shape) is list:
        return [values[inner] if type(inner) is int else _filled(inner, values) for inner in shape]
    return shape


@lru_cache(maxsize=_SHAPES)
def _shape(parts: tuple[str, ...], scalars: tuple[bool, ...]) -> _Shape:
    builder = _Builder()
    for number, (part, has_scalar) in enumerate(zip(parts, scalars, strict=True)):
        builder.take(number, part, has_scalar)
    if not builder.stack:
        raise NotPlainError
    return _Shape(builder.stack[0].value, builder.first)


@define(eq=False)
class _Open:
    """A mapping or list that has its entries in this column. `waiting`: a key that may get a mapping or list as its value."""

    column: int
    value: Any
    waiting: str | None = None


class _Builder:
    """Understands the shape of a text, line by line."""

    def __init__(self) -> None:
        self.stack: list[_Open] = []
        self.first = 0

    def take(self, number: int, part: str, has_scalar: bool) -> None:
        inner = part.lstrip(" ")
        if not inner and not has_scalar:
            return  # an empty line
        column = len(part) - len(inner)
        is_item = False  # of a list, and not there yet
        while inner.startswith("- "):
            self._item(column, is_item)
            column, inner, is_item = column + 2, inner[2:], True
        if inner:
            self._key(column, inner[:-1], is_item, number)
            top = self.stack[-1]
            top.value[inner[:-1]] = number if has_scalar else None
            top.waiting = None if has_scalar else inner[:-1]
        elif is_item and has_scalar:
            self.stack[-1].value.append(number)
        else:
            raise NotPlainError

    def _item(self, column: int, is_item: bool) -> None:
        """Sees to it that a list with entries in this column is on top."""
        if is_item:
            self._open(column, [])
            return
        self._close(column)
        top = self.stack[-1] if self.stack else None
        if top is None or top.column > column or (type(top.value) is list and top.column != column):
            raise NotPlainError
        if type(top.value) is dict:
            if top.waiting is None:
                raise NotPlainError
            self._open(column, [])

    def _key(self, column: int, key: str, is_item: bool, number: int) -> None:
        """Sees to it that a mapping with entries in this column is on top, and does not have the key yet."""
        if key.lower() in _WORDS:
            raise NotPlainError  # a key that is no text
        if is_item:
            self._open(column, {})
            return
        if not self.stack:
            if column:
                raise NotPlainError
            self.first = number
            self._open(column, {})
            return
        self._close(column)
        if self.stack and type(self.stack[-1].value) is list and self.stack[-1].column == column:
            self.stack.pop()
        top = self.stack[-1] if self.stack else None
        if top is None or type(top.value) is not dict or (key in top.value and top.column == column):
            raise NotPlainError
        if top.column < column:
            if top.waiting is None:
                raise NotPlainError
            self._open(column, {})

    def _close(self, column: int) -> None:
        while self.stack and self.stack[-1].column > column:
            self.stack.pop()

    def _open(self, column: int, value: Any) -> None:
        """As the value of what waits for one."""
        if len(self.stack) >= MAX_DEPTH:
            raise NotPlainError
        if self.stack:
            top = self.stack[-1]
            if type(top.value) is list:
                top.value.append(value)
            else:
                assert top.waiting is not None
                top.value[top.waiting], top.waiting = value, None
        self.stack.append(_Open(column, value))


_WORDS: Final = frozenset(("null", "true", "false", "yes", "no", "on", "off"))
