"""The errors that a user may see. Each says what happened, where, and what to do.

Anything that is not an `AxonemeError` is a bug and keeps its traceback; the command line prints these ones without.
"""

from __future__ import annotations

from attrs import frozen


@frozen
class Where:
    """A place in something that a person wrote: a file with, if known, line, column and the path of the field."""

    file: str
    line: int | None = None
    column: int | None = None
    field: str | None = None

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return place if self.field is None else f"{place} ({self.field})"


class AxonemeError(Exception):
    """Base of all errors with an explanation for people.

    :param message: what happened, one sentence without a final stop.
    :param where: the place that caused it, if it is one that the user can edit.
    :param hint: what the user can do about it.
    """

    def __init__(self, message: str, *, where: Where | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        text = self.message if self.where is None else f"{self.where}: {self.message}"
        return text if self.hint is None else f"{text} ({self.hint})"


class ConfigError(AxonemeError):
    """A configuration that cannot be used: unknown or missing key, wrong type, impossible value."""


class PluginError(AxonemeError):
    """A plugin that cannot be loaded, conflicts with another one, or failed in one of its hooks."""


class OrderError(AxonemeError):
    """Ordering constraints that no order satisfies; the message names the cycle."""


class ResourceError(AxonemeError):
    """A resource document that is not valid; it has no effect, the others do."""


class KernelError(AxonemeError):
    """The kernel refused, or lacks, something that is needed."""


class CompileError(AxonemeError):
    """C that the compiler refused; `where` is the plugin's own file and line."""


class VerifierError(KernelError):
    """A program that the verifier rejected.

    The message is one line that names plugin, file and line. `log` is the verifier's whole log, for those who ask.
    """

    def __init__(
        self, message: str, *, log: str = "", where: Where | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.log = log


class LockedError(AxonemeError):
    """Another agent owns this state folder."""
