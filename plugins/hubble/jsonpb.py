"""Messages as JSON, byte for byte as Hubble's own programs write them.

Fields come in the order of their declaration, with their names as declared; 64-bit numbers are strings, enumerators
their names; what has its default is left out; `&`, `<` and `>` are escaped. `google.protobuf.json_format` sorts by number
and knows no mask with capital letters in it, hence this.

Source: the ProtoJSON format, and Go's encoding/json around it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor

_LONG: Final = frozenset(
    {
        FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64, FieldDescriptor.TYPE_SINT64,
    }
)  # fmt: skip
#: What Go's encoder escapes, so that JSON can stand in HTML.
_HTML: Final = str.maketrans(
    {"&": "\\u0026", "<": "\\u003c", ">": "\\u003e", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)

Write = Callable[[Any], str]


def text(message: Any) -> str:
    """The message in one line, without a line feed."""
    return _message(message.DESCRIPTOR)(message)


def string(value: str) -> str:
    return json.dumps(value, ensure_ascii=False).translate(_HTML)


@functools.cache
def _message(descriptor: Descriptor) -> Write:
    special = _SPECIAL.get(descriptor.full_name)
    if special is not None:
        return special
    order = {field.number: position for position, field in enumerate(descriptor.fields)}
    writers: dict[int, tuple[str, Write]] = {}  # filled when needed: a message may contain its own kind

    def write(message: Any) -> str:
        fields = message.ListFields()
        if len(fields) > 1:
            fields.sort(key=lambda pair: order[pair[0].number])
        parts = []
        for field, value in fields:
            found = writers.get(field.number)
            if found is None:
                found = writers[field.number] = (f'"{field.name}":', _field(field))
            parts.append(found[0] + found[1](value))
        return "{" + ",".join(parts) + "}"

    return write


def _field(field: FieldDescriptor) -> Write:
    single = _single(field)
    if not _is_repeated(field):
        return single
    return lambda values: "[" + ",".join([single(value) for value in values]) + "]"


def _is_repeated(field: Any) -> bool:
    known = getattr(field, "is_repeated", None)
    return bool(known) if known is not None else field.label == FieldDescriptor.LABEL_REPEATED


def _single(field: FieldDescriptor) -> Write:
    kind = field.type
    if field.message_type is not None:
        return _message(field.message_type)
    if field.enum_type is not None:
        names = {number: f'"{value.name}"' for number, value in field.enum_type.values_by_number.items()}
        return lambda number: names.get(number) or str(number)
    if kind == FieldDescriptor.TYPE_STRING:
        return string
    if kind == FieldDescriptor.TYPE_BOOL:
        return lambda value: "true" if value else "false"
    if kind in _LONG:
        return lambda value: f'"{value}"'
    return json.dumps


def _timestamp(value: Any) -> str:
    return f'"{value.ToJsonString()}"'


def _any(value: Any) -> str:
    """Of a message type that this program does not know, only the name can be written."""
    try:
        return json.dumps(
            json_format.MessageToDict(value), ensure_ascii=False, separators=(",", ":")
        ).translate(_HTML)
    except TypeError:
        return '{"@type":' + string(value.type_url) + "}"


_SPECIAL: Final[dict[str, Write]] = {
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.BoolValue": lambda message: "true" if message.value else "false",
    "google.protobuf.Int32Value": lambda message: str(message.value),
    "google.protobuf.UInt32Value": lambda message: str(message.value),
    "google.protobuf.FieldMask": lambda message: string(",".join(message.paths)),
    "google.protobuf.Any": _any,
}
