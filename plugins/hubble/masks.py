"""Field masks: messages with nothing but what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.proto.flow_pb2 import Flow

#: By field; None is all of it.
_Tree = dict[str, Any]


def mask(paths: Iterable[str]) -> Callable[[Flow], Flow] | None:
    """What keeps the fields of these paths (`source.pod_name`, `l4`) of a flow; None when there are none.

    :raises RequestError: when a path leads nowhere.
    """
    paths = list(paths)
    if not paths:
        return None
    known: Any = Flow.DESCRIPTOR
    if not FieldMask(paths=paths).IsValidForDescriptor(known):
        bad = [path for path in paths if not FieldMask(paths=[path]).IsValidForDescriptor(known)]
        raise RequestError(f"invalid fieldmask: a flow has no {', '.join(map(repr, bad[:5]))}")
    tree = _tree(paths)

    def masked(flow: Flow) -> Flow:
        made = Flow()
        _copy(flow, made, tree)
        return made

    return masked


def _tree(paths: Iterable[str]) -> _Tree:
    tree: _Tree = {}
    for path in paths:
        here: _Tree | None = tree
        *parents, last = path.split(".")
        for name in parents:
            here = here.setdefault(name, {}) if here is not None else None
        if here is not None:
            here[last] = None
    return tree


def _copy(source: Any, target: Any, tree: _Tree) -> None:
    for field, value in source.ListFields():
        if field.name not in tree:
            continue
        below = tree[field.name]
        if below is not None:
            _copy(value, getattr(target, field.name), below)
        elif hasattr(value, "MergeFrom"):  # a message or a list
            getattr(target, field.name).MergeFrom(value)
        else:
            setattr(target, field.name, value)
