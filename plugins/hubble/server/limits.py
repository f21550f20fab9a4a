"""What a request may ask for: filters are evaluated over the whole ring, so what they may cost is bounded before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor import FieldDescriptor

from axoneme.plugins.hubble.proto import observer_pb2
from axoneme.plugins.hubble.server.rpc import CallError

#: Values of all filters of a request together. The hubble command's own flags make some dozens.
VALUES: Final = 1000
#: Characters of one value: a name, a label selector, an expression.
LENGTH: Final = 4096
#: Fields of a mask; a flow has about a hundred, those of its parts included.
PATHS: Final = 256


def check(request: observer_pb2.GetFlowsRequest) -> None:
    """Raises `CallError` for a request that is too large."""
    lists = (*request.whitelist, *request.blacklist)
    values = len(lists) + sum(_values(entry) for entry in lists)
    if values > VALUES:
        raise CallError(
            "INVALID_ARGUMENT", f"the filters have {values} values; at most {VALUES} are evaluated"
        )
    for mask in (request.field_mask, request.experimental.field_mask):
        if len(mask.paths) > PATHS:
            raise CallError(
                "INVALID_ARGUMENT", f"the field mask has {len(mask.paths)} paths; at most {PATHS} are taken"
            )
        _check_length(mask.paths)


def _values(message: Any) -> int:
    """How many values a filter has, those of messages in it included."""
    count = 0
    for field, value in message.ListFields():
        inner: list[Any] = list(value) if _is_list(value) else [value]
        count += len(inner)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            count += sum(_values(entry) for entry in inner)
        elif field.type == FieldDescriptor.TYPE_STRING:
            _check_length(inner)
    return count


def _is_list(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, str)


def _check_length(texts: Iterable[str]) -> None:
    for text in texts:
        if len(text) > LENGTH:
            raise CallError(
                "INVALID_ARGUMENT", f"a value has {len(text)} characters; at most {LENGTH} are taken"
            )
