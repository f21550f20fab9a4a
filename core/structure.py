"""From plain values (what YAML or JSON holds) to frozen attrs records, strictly, and the JSON schema of the same classes.

Nothing is converted by guess: `"5"` is no number and `1` is not true. All problems of a value come together, each with the
path of its field, so that whoever knows where the value came from can name file and line.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import attrs

T = TypeVar("T")

#: The way to a value: names of fields and numbers of list elements.
Steps = tuple[str | int, ...]

#: Types that are written as text, and how a person calls them.
TEXTUAL: Final[Mapping[Any, tuple[Callable[[str], Any], str]]] = {
    Path: (Path, "a path"),
    ipaddress.IPv4Address: (ipaddress.IPv4Address, "an IPv4 address"),
    ipaddress.IPv6Address: (ipaddress.IPv6Address, "an IPv6 address"),
    ipaddress.IPv4Network: (ipaddress.IPv4Network, "an IPv4 network"),
    ipaddress.IPv6Network: (ipaddress.IPv6Network, "an IPv6 network"),
}

_SCALARS: Final[Mapping[type, str]] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
}
_FAILED: Final[Any] = object()


@attrs.frozen
class Problem:
    """One thing that is wrong with a value. `path` leads to the field, which need not be there."""

    path: Steps
    message: str
    hint: str | None = None


def setting(
    default: Any = attrs.NOTHING,
    *,
    help: str,
    minimum: float | None = None,
    maximum: float | None = None,
    pattern: str | None = None,
) -> Any:
    """A field of a configuration class: `attrs.field` with its documentation and the bounds of its value."""
    bounds = {"minimum": minimum, "maximum": maximum, "pattern": pattern}
    metadata = {"help": help} | {key: bound for key, bound in bounds.items() if bound is not None}
    checks: list[Any] = [attrs.validators.ge(minimum)] if minimum is not None else []
    checks += [attrs.validators.le(maximum)] if maximum is not None else []
    checks += [attrs.validators.matches_re(pattern)] if pattern is not None else []
    return attrs.field(default=default, metadata=metadata, validator=checks)


def structure(kind: type[T], value: Any, path: Steps = ()) -> tuple[T | None, list[Problem]]:
    """The record of class `kind` that `value` describes, or None and what is wrong with it."""
    reader = _Reader()
    result = reader.read(kind, value, path)
    return (None if reader.problems else result), reader.problems


def nearest(name: str, known: Iterable[str]) -> str | None:
    """A hint with the known name that is nearest to `name`, or with all of them when they are few."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, 1, 0.5)
    if near:
        return f"did you mean {near[0]}?"
    return f"known are: {', '.join(names)}" if 0 < len(names) <= 12 else None


def plain(value: Any) -> Any:
    """The opposite of `structure`: only mappings, lists, text, numbers, booleans and None."""
    if attrs.has(type(value)):
        return {a.name: plain(getattr(value, a.name)) for a in attrs.fields(type(value))}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(inner) for inner in value)
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def fields(kind: Any) -> list[attrs.Attribute[Any]]:
    """The fields of an attrs class with their types resolved."""
    return list(attrs.fields(attrs.resolve_types(kind)))


class _Reader:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def read(self, kind: Any, value: Any, path: Steps) -> Any:
        """The value, or `_FAILED` after its problems were noted."""
        if kind is Any:
            return value
        if attrs.has(kind):
            return self.record(kind, value, path)
        origin = typing.get_origin(kind)
        if origin is not None:
            return self.generic(kind, origin, value, path)
        if kind in TEXTUAL:
            return self.textual(kind, value, path)
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return self.choice([member.value for member in kind], value, path, kind)
        return self.scalar(kind, value, path)

    def wrong(self, path: Steps, expected: str, value: Any) -> Any:
        shown = type(value).__name__ if isinstance(value, (dict, list)) else repr(value)
        names = {"dict": "a mapping", "list": "a list", "None": "nothing"}
        self.problems.append(Problem(path, f"expected {expected}, found {names.get(shown, shown)}"))
        return _FAILED

    def scalar(self, kind: Any, value: Any, path: Steps) -> Any:
        if kind not in _SCALARS:
            raise TypeError(f"configuration fields of type {kind!r} are not supported")
        if type(value) is kind or (kind is float and type(value) is int):
            return kind(value)
        return self.wrong(path, _SCALARS[kind], value)

    def textual(self, kind: Any, value: Any, path: Steps) -> Any:
        convert, name = TEXTUAL[kind]
        if not isinstance(value, str):
            return self.wrong(path, name, value)
        try:
            return convert(value)
        except ValueError as error:
            self.problems.append(Problem(path, f"expected {name}: {error}"))
            return _FAILED

    def choice(self, choices: list[Any], value: Any, path: Steps, make: Callable[[Any], Any]) -> Any:
        if any(value == choice and type(value) is type(choice) for choice in choices):
            return make(value)
        names = [str(choice) for choice in choices]
        hint = f"it can be {', '.join(names)}"
        self.problems.append(Problem(path, f"{value!r} is not possible here", hint))
        return _FAILED

    def generic(self, kind: Any, origin: Any, value: Any, path: Steps) -> Any:
        arguments = typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return self.union(arguments, value, path)
        if origin is Literal:
            return self.choice(list(arguments), value, path, lambda chosen: chosen)
        if isinstance(origin, type) and issubclass(origin, Mapping):
            return self.mapping(arguments[1], value, path)
        if origin in (tuple, list, frozenset):
            return self.sequence(origin, arguments[0], value, path)
        raise TypeError(f"configuration fields of type {kind!r} are not supported")

    def union(self, kinds: tuple[Any, ...], value: Any, path: Steps) -> Any:
        """None, or the first of the types that fits; the problems are those of the first one."""
        if value is None and type(None) in kinds:
            return None
        noted: list[Problem] = []
        for kind in (kind for kind in kinds if kind is not type(None)):
            trial = _Reader()
            result = trial.read(kind, value, path)
            if not trial.problems:
                return result
            noted = noted or trial.problems
        self.problems += noted
        return _FAILED

    def mapping(self, kind: Any, value: Any, path: Steps) -> Any:
        if not isinstance(value, Mapping):
            return self.wrong(path, "a mapping", value)
        result = {str(key): self.read(kind, inner, (*path, str(key))) for key, inner in value.items()}
        return _FAILED if _FAILED in result.values() else result

    def sequence(self, make: Any, kind: Any, value: Any, path: Steps) -> Any:
        if not isinstance(value, (list, tuple)):
            return self.wrong(path, "a list", value)
        result = [self.read(kind, inner, (*path, number)) for number, inner in enumerate(value)]
        return _FAILED if any(item is _FAILED for item in result) else make(result)

    def record(self, kind: Any, value: Any, path: Steps) -> Any:
        if isinstance(value, kind):
            return value
        if value is None:
            value = {}
        if not isinstance(value, Mapping):
            return self.wrong(path, "a mapping", value)
        known = {a.name: a for a in fields(kind)}
        before = len(self.problems)
        for name in value.keys() - known.keys():
            message = f"unknown key {str(name)!r}"
            self.problems.append(Problem((*path, str(name)), message, nearest(str(name), known)))
        given = {}
        for name, a in known.items():
            if name in value:
                given[a.alias or name] = self.field(kind, a, value[name], (*path, name))
            elif a.default is attrs.NOTHING:
                self.problems.append(Problem((*path, name), f"the key {name!r} is missing"))
        return _FAILED if len(self.problems) > before else self.make(kind, given, path)

    def field(self, kind: Any, a: attrs.Attribute[Any], value: Any, path: Steps) -> Any:
        result = self.read(a.type, value, path)
        if result is _FAILED or a.validator is None or not a.metadata.keys() & _BOUNDS.keys():
            return result
        for name, holds in _BOUNDS.items():
            bound = a.metadata.get(name)
            if bound is not None and not holds(result, bound):
                self.problems.append(Problem(path, f"{result!r} is beyond the {name} {bound}"))
                return _FAILED
        return result

    def make(self, kind: Any, given: dict[str, Any], path: Steps) -> Any:
        """The class's own validators have the last word, with a `ValueError`."""
        try:
            return kind(**given)
        except ValueError as error:
            self.problems.append(Problem(path, str(error.args[0] if error.args else error)))
            return _FAILED


def _matches(value: Any, pattern: Any) -> bool:
    import re

    return re.fullmatch(pattern, value) is not None


_BOUNDS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "minimum": lambda value, bound: bool(value >= bound),
    "maximum": lambda value, bound: bool(value <= bound),
    "pattern": _matches,
}


def json_schema(kind: Any) -> dict[str, Any]:
    """The JSON schema (draft 2020-12) of what `structure` takes for a type."""
    if kind is Any:
        return {}
    if attrs.has(kind):
        return _record_schema(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [json_schema(inner) for inner in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": json_schema(arguments[1])}
    if origin in (tuple, list, frozenset):
        return {"type": "array", "items": json_schema(arguments[0])}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [member.value for member in kind]}
    names = {bool: "boolean", int: "integer", float: "number", type(None): "null"}
    return {"type": names.get(kind, "string")}


def _record_schema(kind: Any) -> dict[str, Any]:
    properties = {a.name: _field_schema(a) for a in fields(kind)}
    required = [a.name for a in fields(kind) if a.default is attrs.NOTHING]
    schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return schema | ({"required": required} if required else {})


def _field_schema(a: attrs.Attribute[Any]) -> dict[str, Any]:
    schema = json_schema(a.type)
    schema |= {key: a.metadata[key] for key in _BOUNDS if key in a.metadata}
    if "help" in a.metadata:
        schema["description"] = a.metadata["help"]
    if a.default is not attrs.NOTHING and not isinstance(a.default, attrs.Factory):  # type: ignore[arg-type]
        schema["default"] = plain(a.default)
    return schema
