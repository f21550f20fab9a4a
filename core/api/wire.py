"""What travels over the socket: JSON, and errors as gRPC status with what happened, where and what to do beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from attrs import fields, has

from axoneme.core.errors import AxonemeError, Where

SERVICE: Final = "axoneme.v1.Agent"
#: Trailing metadata with the error as JSON.
ERROR_KEY: Final = "axoneme-error-bin"
#: The largest request, and the largest single message of an answer, in bytes. Long answers are streams of small messages.
MAX_REQUEST: Final = 1 << 20
MAX_ANSWER: Final = 16 << 20


class RequestError(AxonemeError):
    """A request that cannot be understood: unknown method, wrong arguments."""


class NotFoundError(AxonemeError):
    """What was asked for is not there."""


def encode(value: Any) -> bytes:
    return json.dumps(value, default=_plain, separators=(",", ":")).encode()


def decode(data: bytes) -> Any:
    return json.loads(data) if data else {}


def _plain(value: Any) -> Any:
    """What JSON has no word for: records become mappings, numbers of numpy numbers, all else its text."""
    if has(type(value)):
        return {a.name: getattr(value, a.name) for a in fields(type(value))}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (set, frozenset, tuple)):
        return sorted(value) if not isinstance(value, tuple) else list(value)
    for convert in ("tolist", "isoformat"):
        if hasattr(value, convert):
            return getattr(value, convert)()
    return str(value)


def error_to_json(error: AxonemeError) -> dict[str, Any]:
    where = error.where
    return {
        "type": type(error).__name__,
        "message": error.message,
        "where": None
        if where is None
        else {"file": where.file, "line": where.line, "column": where.column, "field": where.field},
        "hint": error.hint,
        "log": getattr(error, "log", None),
    }


def encode_error(error: AxonemeError, room: int) -> bytes:
    """The error in at most `room` bytes: of a long log the end stays, which says what was wrong."""
    value = error_to_json(error)
    log, message = (value["log"] or "")[-room:], value["message"][:room]
    while len(encoded := encode({**value, "log": log, "message": message})) > room:
        # A character takes up to six bytes; cutting for fewer would cut too much.
        excess = (len(encoded) - room) // 6 + 1
        if not log and not message:
            return encode({"type": value["type"], "message": "the error is too long to be told"})
        log, message = log[excess:], message if log else message[:-excess]
    return encoded


def error_from_json(value: Mapping[str, Any]) -> AxonemeError:
    """The error as the client raises it, of its own class if that is one of those everybody knows."""
    from axoneme.core import errors

    known = {**vars(errors), "RequestError": RequestError, "NotFoundError": NotFoundError}
    kind = known.get(str(value.get("type")), AxonemeError)
    kind = kind if isinstance(kind, type) and issubclass(kind, AxonemeError) else AxonemeError
    where = Where(**value["where"]) if value.get("where") else None
    error = kind(str(value.get("message")), where=where, hint=value.get("hint"))
    if value.get("log"):
        error.log = value["log"]  # type: ignore[attr-defined]
    return error
