"""Label selectors: the syntax of Kubernetes, with an optional source in front of the key (`k8s:app=web`)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Final

from attrs import frozen

from axoneme.plugins.hubble.filters.errors import RequestError

_TOKEN: Final = re.compile(r"\s*(==|!=|[=!(),<>]|[^=!(),<>\s]+)")
_SYMBOLS: Final = frozenset(("=", "==", "!=", "!", "(", ")", ",", "<", ">"))
_VALUE: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_KEY: Final = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,250}[A-Za-z0-9])?"
)
#: Sources whose labels are told by prefix; everything else before a colon is a source, too.
_CIDR: Final = "cidr"

#: A label as (source, key, value).
Label = tuple[str, str, str]
Test = Callable[[Sequence[Label]], bool]


def label(text: str) -> Label:
    """`SOURCE:KEY=VALUE`; source and value may be missing."""
    source, colon, rest = text.partition(":")
    if not colon or "=" in source:
        source, rest = "", text
    key, _, value = rest.partition("=")
    return source, key, value


def labels(texts: Iterable[str]) -> list[Label]:
    return [label(text) for text in texts]


@frozen
class _Requirement:
    """:param source: empty for any. :param operator: `in`, `notin`, `exists`, `absent`, `<` or `>`."""

    source: str
    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, given: Sequence[Label]) -> bool:
        found = next((value for source, key, value in given if self._names(source, key)), None)
        match self.operator:
            case "exists":
                return found is not None
            case "absent":
                return found is None
            case "in":
                return found is not None and found in self.values
            case "notin":
                return found is None or found not in self.values
        return found is not None and self._compare(found)

    def _names(self, source: str, key: str) -> bool:
        if self.source and self.source != source:
            return False
        return key == self.key or (self.source == _CIDR and _within(key, self.key))

    def _compare(self, found: str) -> bool:
        if not re.fullmatch(r"-?[0-9]{1,18}", found):
            return False
        return int(found) < int(self.values[0]) if self.operator == "<" else int(found) > int(self.values[0])


@cache
def _prefix(key: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    """Of a label's key; IPv6 prefixes have `-` for `:` there."""
    try:
        return ipaddress.ip_network(key if "." in key else key.replace("-", ":"), strict=False)
    except ValueError:
        return None


def _within(key: str, outer: str) -> bool:
    inside, outside = _prefix(key), _prefix(outer)
    if inside is None or outside is None or inside.version != outside.version:
        return False
    return inside.subnet_of(outside)  # type: ignore[arg-type]


def selector(text: str, what: str) -> Test:
    """A test of labels by a selector.

    :param what: the kind of filter, for the error.
    :raises RequestError: when it is not a selector.
    """
    try:
        requirements = _Parser(text).requirements()
    except ValueError as error:
        raise RequestError(f"invalid {what} filter: {error}") from None
    return lambda given: all(requirement.holds(given) for requirement in requirements)


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = self._split(text)
        self._place = 0

    @staticmethod
    def _split(text: str) -> list[str]:
        tokens, place, text = [], 0, text.rstrip()
        while place < len(text):
            found = _TOKEN.match(text, place)
            assert found is not None, "a token is any character that is no blank"
            tokens.append(found[1])
            place = found.end()
        return tokens

    def requirements(self) -> list[_Requirement]:
        found: list[_Requirement] = []
        while self._tokens:
            found.append(self._requirement())
            if self._peek() == "":
                break
            self._expect(",", "',' or 'end of string'")
        return found

    def _requirement(self) -> _Requirement:
        if self._peek() == "!":
            self._next()
            return _Requirement(*self._key(), "absent")
        source, key = self._key()
        operator = self._peek()
        if operator in ("", ","):
            return _Requirement(source, key, "exists")
        self._next()
        if operator in ("=", "=="):
            return _Requirement(source, key, "in", (self._value(),))
        if operator == "!=":
            return _Requirement(source, key, "notin", (self._value(),))
        if operator in ("in", "notin"):
            return _Requirement(source, key, operator, self._list())
        if operator in ("<", ">"):
            return _Requirement(source, key, operator, (self._number(),))
        raise ValueError(f"found '{operator}', expected: in, notin, =, ==, !=, <, >")

    def _key(self) -> tuple[str, str]:
        word = self._next()
        if not word or word in _SYMBOLS:
            raise ValueError(f"found '{word}', expected: a key")
        source, colon, key = word.partition(":")
        if not colon:
            source, key = "", word
        if source != _CIDR and not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is no label key")
        return source, key

    def _value(self) -> str:
        if self._peek() in ("", ","):
            return ""
        return self._checked(self._next())

    def _checked(self, word: str) -> str:
        if word in _SYMBOLS:
            raise ValueError(f"found '{word}', expected: a value")
        if not _VALUE.fullmatch(word):
            raise ValueError(f"{word!r} is no label value")
        return word

    def _number(self) -> str:
        word = self._next()
        if not re.fullmatch(r"-?[0-9]{1,18}", word):
            raise ValueError(f"found '{word}', expected: a number")
        return word

    def _list(self) -> tuple[str, ...]:
        self._expect("(", "'('")
        values = []
        while True:
            values.append("" if self._peek() in (",", ")") else self._checked(self._next()))
            word = self._next()
            if word == ")":
                return tuple(values)
            if word != ",":
                raise ValueError(f"found '{word}', expected: ',' or ')'")

    def _peek(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _next(self) -> str:
        word = self._peek()
        self._place += 1
        return word

    def _expect(self, wanted: str, words: str) -> None:
        if (word := self._next()) != wanted:
            raise ValueError(f"found '{word}', expected: {words}")
