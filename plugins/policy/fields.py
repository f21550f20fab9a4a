"""A strict reader for values that people wrote: every complaint names the field and, where known, file and line."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection
from typing import Any, NoReturn

from attrs import frozen

from axoneme.core.errors import ResourceError, Where
from axoneme.core.state.document import Path, dotted

#: The longest message, in characters.
LONGEST = 400

Locate = Callable[[Path], Where | None]


def nowhere(path: Path) -> Where | None:
    """A `Locate` for values that did not come from a file."""
    return Where(file="-", field=dotted(path) or None)


@frozen
class Field:
    """A value with its path (`("spec", "ingress", 0, "toPorts")`) and a way to find its place in the file.

    Every reading method raises `ResourceError` when the value is not of the kind asked for.
    """

    value: Any
    steps: Path = ()
    locate: Locate = nowhere

    def fail(self, message: str, hint: str | None = None) -> NoReturn:
        if len(message) > LONGEST:  # it quotes what somebody wrote, which can be megabytes
            message = f"{message[: LONGEST // 2]} … {message[-LONGEST // 4 :]}"
        raise ResourceError(message, where=self.where(), hint=hint)

    @property
    def path(self) -> str:
        """As people write it: `spec.ingress[0].toPorts`."""
        return dotted(self.steps)

    def where(self) -> Where | None:
        return self.locate(self.steps)

    def child(self, name: str | int) -> Field:
        return Field(self.value[name], (*self.steps, name), self.locate)

    def mapping(self, known: Collection[str] | None = None) -> dict[str, Field]:
        """The fields that are present and not null. A field that is not in `known` is an error naming the nearest one."""
        if not isinstance(self.value, dict):
            self.fail(f"must be a mapping, not {_kind(self.value)}")
        result = {}
        for name in self.value:
            if not isinstance(name, str):
                self.fail(f"has the key {name!r}, which is not a string", "quote it")
            if known is not None and name not in known:
                nearest = difflib.get_close_matches(name, list(known), 1)
                hint = f"did you mean {nearest[0]!r}?" if nearest else f"known are {', '.join(sorted(known))}"
                place = self.child(name) if len(name) < LONGEST // 4 else self
                place.fail(f"unknown field {name!r}", hint)
            if self.value[name] is not None:
                result[name] = self.child(name)
        return result

    def sequence(self, most: int | None = None) -> list[Field]:
        if not isinstance(self.value, list):
            self.fail(f"must be a list, not {_kind(self.value)}")
        if most is not None and len(self.value) > most:
            self.fail(f"has {len(self.value)} elements, at most {most} are allowed")
        return [self.child(index) for index in range(len(self.value))]

    def string(self) -> str:
        if not isinstance(self.value, str):
            self.fail(f"must be a string, not {_kind(self.value)}", f'write "{self.value}"')
        return self.value

    def integer(self, least: int, most: int) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool):
            self.fail(f"must be a whole number, not {_kind(self.value)}")
        if not least <= self.value <= most:
            self.fail(f"must lie in {least} to {most}, but is {self.value}")
        return self.value

    def boolean(self) -> bool:
        if not isinstance(self.value, bool):
            self.fail(f"must be true or false, not {_kind(self.value)}")
        return self.value

    def one_of(self, allowed: Collection[str]) -> str:
        text = self.string()
        if text not in allowed:
            nearest = difflib.get_close_matches(text, list(allowed), 1)
            self.fail(
                f"must be one of {', '.join(allowed)}, but is {text!r}",
                f"did you mean {nearest[0]!r}?" if nearest else None,
            )
        return text


def _kind(value: Any) -> str:
    names = {dict: "a mapping", list: "a list", str: "a string", bool: "a boolean", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
