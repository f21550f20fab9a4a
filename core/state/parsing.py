"""What parse functions of resource kinds read with: typed access to a document's fields, where every error has its place.

    def parse(envelope: Envelope) -> Policy:
        spec = envelope.fields.fields("spec")
        return Policy(
            subject=spec.read("endpointSelector", selector),
            ingress=spec.each("ingress", rule, default=()),
        )

    def rule(fields: Fields) -> Rule:
        return Rule(
            peers=fields.each("fromEndpoints", selector, default=()),
            networks=fields.takes("fromCIDR", ipaddress.ip_network, default=()),
            where=fields.where(),
        )

What a required field lacks, or has of a wrong type, raises at once. Inside `each` it ends that element only: the errors
of all elements come together. Fields that no parse function asked for are errors too, with the nearest known name; the
caller of the parse function sees to that (`Fields.finish`). A field that is `null` is a field that is not there.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from sys import intern
from typing import Any, Final, NoReturn, TypeVar

from axoneme.core.errors import AxonemeError, ResourceError, Where
from axoneme.core.state.document import Document, Path

T = TypeVar("T")
D = TypeVar("D")

#: The default of a field that must be there.
REQUIRED: Final[Any] = object()

_NAMES: Final[Mapping[type, str]] = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    type(None): "nothing",
}


class ResourceErrors(ResourceError):
    """Several things that are wrong with one document, at least one."""

    def __init__(self, errors: Iterable[ResourceError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        more = f" (and {len(self.errors) - 1} more)" if len(self.errors) > 1 else ""
        super().__init__(first.message + more, where=first.where, hint=first.hint)


def flatten(error: BaseException) -> list[ResourceError]:
    """The single errors in an error or a group of errors, however nested.

    What is no `AxonemeError` is a mistake of the parse function, and said to be one.
    """
    if isinstance(error, ResourceErrors):
        return [inner for outer in error.errors for inner in flatten(outer)]
    if isinstance(error, BaseExceptionGroup):
        return [inner for outer in error.exceptions for inner in flatten(outer)]
    if isinstance(error, ResourceError):
        return [error]
    if isinstance(error, AxonemeError):
        return [ResourceError(error.message, where=error.where, hint=error.hint)]
    return [ResourceError(f"the reader of this kind failed: {type(error).__name__}: {error}")]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint that names the known name nearest to `name`, if one is near."""
    names = list(known)
    folded = {known_name.lower(): known_name for known_name in reversed(names)}
    if exact := folded.get(name.lower()):
        return f"did you mean {exact}?"
    near = difflib.get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else None


def describe(value: Any) -> str:
    """A value in an error message: its type, and itself where it is short."""
    kind = "true or false" if isinstance(value, bool) else _NAMES.get(type(value), type(value).__name__)
    if isinstance(value, (dict, list)) or value is None:
        return kind
    if isinstance(value, bool):
        return f"the word {str(value).lower()}"
    text = repr(value)
    return f"{kind} {text if len(text) <= 60 else text[:57] + '...'}"


class Fields:
    """A mapping of a document, being read. It remembers what was asked for, so that the rest can be reported.

    :param report: where errors that do not end the reading are collected; shared by all `Fields` of a document.
    """

    __slots__ = ("_asked", "_children", "_failed", "document", "path", "report", "value")

    def __init__(
        self,
        document: Document,
        path: Path = (),
        value: Any = None,
        report: list[ResourceError] | None = None,
    ) -> None:
        self.document = document
        self.path = path
        self.value: dict[str, Any] = document.value if value is None else value
        self.report: list[ResourceError] = [] if report is None else report
        self._asked: set[str] = set()
        self._children: list[Fields] = []
        self._failed = False
        if type(self.value) is not dict:
            raise self._wrong(self.path, self.value, "a mapping")

    def __contains__(self, name: str) -> bool:
        return self.raw(name, default=None) is not None

    def names(self) -> list[str]:
        """The names of all fields that are there."""
        return list(self.value)

    # Errors and places

    def where(self, *names: str | int) -> Where:
        """The place of this mapping, or of something inside."""
        return self.document.position((*self.path, *names))

    def error(self, message: str, *names: str | int, hint: str | None = None) -> ResourceError:
        """An error to raise, about this mapping or something inside."""
        return ResourceError(message, where=self.where(*names), hint=hint)

    def note(self, message: str, *names: str | int, hint: str | None = None) -> None:
        """Reports an error and goes on: the document is invalid, but its other errors come out too."""
        self.report.append(self.error(message, *names, hint=hint))

    # Typed access

    def raw(self, name: str, default: D = REQUIRED) -> Any | D:
        """A field's value, whatever it is. It is shared with the document: don't change it."""
        self._asked.add(name)
        value = self.value.get(name)
        if value is not None:
            return value
        return self._missing(name) if default is REQUIRED else default

    def text(
        self,
        name: str,
        default: D = REQUIRED,
        *,
        choices: Collection[str] | None = None,
        pattern: re.Pattern[str] | None = None,
        longest: int | None = None,
    ) -> str | D:
        """A text; one of `choices`, matching `pattern` as a whole, no longer than `longest` characters."""
        self._asked.add(name)
        text = self.value.get(name)
        if text is None:
            return self._missing(name) if default is REQUIRED else default
        if type(text) is not str:
            raise self._wrong((*self.path, name), text, "text")
        if choices is not None and text not in choices:
            hint = nearest(text, choices) or f"it can be {', '.join(choices)}"
            raise self.error(f"{text!r} is not possible here", name, hint=hint)
        if longest is not None and len(text) > longest:
            raise self.error(f"{len(text)} characters, the limit is {longest}", name)
        if pattern is not None and not pattern.fullmatch(text):
            raise self.error(f"{text!r} does not match {pattern.pattern}", name)
        return text

    def number(
        self, name: str, default: D = REQUIRED, *, minimum: int | None = None, maximum: int | None = None
    ) -> int | D:
        """A whole number within bounds, both included."""
        self._asked.add(name)
        number = self.value.get(name)
        if number is None:
            return self._missing(name) if default is REQUIRED else default
        if type(number) is not int:  # not isinstance: true is no number here
            raise self._wrong((*self.path, name), number, "a whole number")
        if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
            low = "" if minimum is None else f" from {minimum}"
            high = "" if maximum is None else f" up to {maximum}"
            raise self.error(f"{number} is not a number{low}{high}", name)
        return number

    def flag(self, name: str, default: D = REQUIRED) -> bool | D:
        self._asked.add(name)
        flag = self.value.get(name)
        if flag is None:
            return self._missing(name) if default is REQUIRED else default
        if type(flag) is not bool:
            raise self._wrong((*self.path, name), flag, "true or false")
        return flag

    def take(self, name: str, convert: Callable[[Any], T], default: D = REQUIRED, *, of: type = str) -> T | D:
        """A field of type `of`, converted. A `ValueError` of `convert` becomes an error with the field's place."""
        value = self.raw(name, default)
        if value is default:
            return default
        return self._converted(convert, self._checked(value, of, name), name)

    def takes(
        self, name: str, convert: Callable[[Any], T], default: D = REQUIRED, *, of: type = str
    ) -> tuple[T, ...] | D:
        """A list of elements of type `of`, each converted. All elements' errors are reported."""
        value = self.raw(name, default)
        if value is default:
            return default
        result = []
        for i, item in enumerate(self._checked(value, list, name)):
            try:
                if type(item) is not of:
                    item = self._checked(item, of, name, i)
                result.append(convert(item))
            except ValueError as error:
                self.note(str(error), name, i)
            except ResourceError as error:
                self.report.extend(flatten(error))
        return tuple(result)

    def texts(self, name: str, default: D = REQUIRED) -> tuple[str, ...] | D:
        """A list of texts."""
        return self.takes(name, str, default)

    def labels(self, name: str, default: D = REQUIRED) -> dict[str, str] | D:
        """A mapping from text to text. All its entries' errors are reported. Equal keys are one, in all documents."""
        value = self.raw(name, default)
        if value is default:
            return default
        result = {}
        for key, item in self._checked(value, dict, name).items():
            try:
                result[intern(key)] = self._checked(item, str, name, key)
            except ResourceError as error:
                self.report.append(error)
        return result

    # Structures

    def fields(self, name: str, default: D = REQUIRED) -> Fields | D:
        """A mapping inside, to be read the same way."""
        value = self.raw(name, default)
        return default if value is default else self._child(value, name)

    def read(self, name: str, parse: Callable[[Fields], T], default: D = REQUIRED) -> T | D:
        """What `parse` makes of a mapping inside."""
        value = self.raw(name, default)
        return default if value is default else parse(self._child(value, name))

    def each(
        self,
        name: str,
        parse: Callable[[Fields], T],
        default: D = REQUIRED,
        *,
        usual: Callable[[dict[str, Any]], T | None] | None = None,
    ) -> tuple[T, ...] | D:
        """What `parse` makes of each mapping of a list. All elements' errors are reported; it raises none of them.

        :param usual: a short way for a list of very many: gives what `parse` would give for a mapping in which all is well
            and all is known, and None where it is not sure of that.
        """
        value = self.raw(name, default)
        if value is default:
            return default
        results = []
        for i, item in enumerate(self._checked(value, list, name)):
            if usual is not None and type(item) is dict and (made := usual(item)) is not None:
                results.append(made)
                continue
            child: Fields | None = None
            try:
                child = self._child(item, name, i)
                results.append(parse(child))
            except* ResourceError as errors:
                self.report.extend(flatten(errors))
                if child is not None:
                    child._failed = True
        return tuple(results)

    def entries(self, name: str, default: D = REQUIRED) -> dict[str, Fields] | D:
        """A mapping whose values are mappings: by their names, which are free."""
        value = self.raw(name, default)
        if value is default:
            return default
        inner = self._child(value, name)
        return {key: inner.fields(key) for key in inner.value}

    def one_of(self, *names: str) -> str:
        """The name of the one field of these that is there; an error if there is none or more than one."""
        there = [name for name in names if name in self]
        if len(there) != 1:
            found = " and ".join(there) or "none"
            raise self.error(f"exactly one of {', '.join(names)} must be there, here is {found}", *there[1:2])
        return there[0]

    def ignore(self, *names: str) -> None:
        """These fields are known and have no effect."""
        self._asked.update(names)

    def unread(self) -> dict[str, Any]:
        """All fields that nobody asked for yet; then they count as asked for."""
        rest = {name: value for name, value in self.value.items() if name not in self._asked}
        self._asked.update(rest)
        return rest

    # The end

    def finish(self) -> None:
        """Raises what was reported, and an error for each field that nobody asked for: `ResourceErrors`.

        What an error kept from being read is not checked for unknown fields.
        """
        self.report_unknown()
        if self.report:
            raise ResourceErrors(self.report)

    def report_unknown(self) -> None:
        """Reports each field, here and inside, that nobody asked for."""
        if self._failed:
            return
        if not self._asked.issuperset(self.value):
            for name in self.value:
                if name not in self._asked:
                    self.note(f"unknown field {name!r}", name, hint=nearest(name, sorted(self._asked)))
        for child in self._children:
            child.report_unknown()

    def _child(self, value: Any, *names: str | int) -> Fields:
        child = Fields(self.document, self.path + names, value, self.report)
        self._children.append(child)
        return child

    def _checked(self, value: Any, kind: type[T], *names: str | int) -> T:
        if type(value) is kind:  # not isinstance: true is no number here
            return value
        if kind is object or (kind is float and type(value) is int):
            return value  # type: ignore[no-any-return]
        raise self._wrong((*self.path, *names), value, _NAMES.get(kind, kind.__name__))

    def _converted(self, convert: Callable[[Any], T], value: Any, *names: str | int) -> T:
        try:
            return convert(value)
        except ValueError as error:
            raise self.error(str(error), *names) from None

    def _wrong(self, path: Path, value: Any, expected: str) -> ResourceError:
        quotable = expected == "text" and isinstance(value, (bool, int, float))
        hint = "put it in quotes" if quotable else None
        return ResourceError(
            f"expected {expected}, found {describe(value)}", where=self.document.position(path), hint=hint
        )

    def _missing(self, name: str) -> NoReturn:
        others = [other for other in self.value if other not in self._asked]
        near = difflib.get_close_matches(name, others, 1)
        hint = f"is {near[0]!r} meant to be it?" if near else None
        raise self.error(f"the field {name!r} is missing", name, hint=hint)
