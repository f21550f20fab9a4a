"""Structured logs on the standard library's logging: an event and its fields, as a line for people or as JSON.

`structlog` would be the usual choice, but importing it brings `rich` into the agent (5 MiB), and all that is needed
from it are these lines. An embedder's own logging is left alone: only `setup`, which `axoneme agent` calls, installs a
handler.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from axoneme.core.errors import AxonemeError

#: Fields that are never written out, whoever logs them.
SECRET_FIELDS = frozenset({"password", "secret", "token", "private_key", "credentials"})

_FIELDS = "axoneme_fields"

#: Warnings and errors of this process, by level and subsystem (the package that logged), whatever the log's level is.
TROUBLES: Counter[tuple[str, ...]] = Counter()


class Log:
    """A named logger: `log.info("plugin started", plugin="policy", seconds=0.012)`."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, event: str, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, *, error: BaseException | str | None = None, **fields: object) -> None:
        """An `error` adds its text, and its traceback too unless it is one that explains itself."""
        self._write(logging.ERROR, event, fields, error)

    def exception(self, event: str, **fields: object) -> None:
        """Within an `except` block: `error` with the exception that is handled."""
        self._write(logging.ERROR, event, fields, sys.exc_info()[1])

    def _write(
        self,
        level: int,
        event: str,
        fields: Mapping[str, object],
        error: BaseException | str | None = None,
    ) -> None:
        if level >= logging.WARNING:
            TROUBLES[logging.getLevelName(level).lower(), _subsystem(self._logger.name)] += 1
        if not self._logger.isEnabledFor(level):
            return
        shown, trace = dict(fields), None
        if error is not None:
            shown["error"] = error if isinstance(error, str) else describe(error)
        if isinstance(error, BaseException) and not explains_itself(error):
            trace = error
        self._logger.log(level, event, extra={_FIELDS: shown}, exc_info=trace, stacklevel=3)


def _subsystem(logger: str) -> str:
    """A plugin's name for what its modules log, `state` for axoneme.core.state.ingest."""
    parts = logger.split(".")
    return parts[2] if len(parts) > 2 and parts[0] == "axoneme" else parts[0]


def explains_itself(error: BaseException) -> bool:
    """Whether an error says what happened, where and what to do, so that a traceback would only be noise."""
    if isinstance(error, BaseExceptionGroup):
        return all(explains_itself(inner) for inner in error.exceptions)
    return isinstance(error, AxonemeError)


def get(name: str) -> Log:
    return Log(name)


def describe(error: BaseException) -> str:
    """One line for any exception: the message of ours, type and message of a stranger, each one of a group."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    if isinstance(error, AxonemeError):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of a record, with secrets masked."""
    fields: Mapping[str, Any] = getattr(record, _FIELDS, {})
    return {key: "***" if key in SECRET_FIELDS else value for key, value in fields.items()}


class TextFormatter(logging.Formatter):
    """`12:00:01.123 info  plugin started  plugin=policy seconds=0.012`, tracebacks on the lines after it."""

    def format(self, record: logging.LogRecord) -> str:
        stamp = time.strftime("%H:%M:%S", time.localtime(record.created))
        fields = " ".join(f"{key}={_plain(value)}" for key, value in fields_of(record).items())
        head = f"{stamp}.{int(record.msecs):03d} {record.levelname.lower():<7} {record.getMessage()}"
        line = f"{head}  {fields}" if fields else head
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (seconds since the epoch), level, logger, event and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **fields_of(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str, separators=(",", ":"))


FORMATTERS: Mapping[str, Callable[[], logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def setup(level: str = "info", style: str = "text") -> None:
    """Sends the process's logs to standard error. Libraries' own ones only from warnings upwards."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[style]())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("axoneme").setLevel(level.upper())


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if text == "" or any(c in text for c in ' "=\n\t') else text
