"""Field masks: messages with nothing but what was asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from attrs import field, frozen
from google.protobuf.field_mask_pb2 import FieldMask

from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.proto.flow_pb2 import Flow

#: By field; None is all of it.
_Tree = dict[str, Any]
_Plan = tuple[tuple[str, ...], tuple[Any, ...]]


@frozen
class Mask:
    """Keeps the fields of some paths of a flow.

    Most flows have few fields beyond those that are shown, so that taking these away costs a third of copying the others.
    """

    paths: tuple[str, ...]
    _drops: tuple[str, ...] = field(init=False, eq=False)
    _parts: tuple[Any, ...] = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        drops, parts = _plan(Flow.DESCRIPTOR, _tree(self.paths))
        object.__setattr__(self, "_drops", drops)
        object.__setattr__(self, "_parts", parts)

    def __call__(self, flow: Flow) -> Flow:
        """Takes the other fields away, from this very message."""
        _reduce(flow, self._drops, self._parts)
        return flow


def mask(paths: Iterable[str]) -> Mask | None:
    """What keeps the fields of these paths (`source.pod_name`, `l4`) of a flow; None when there are none.

    :raises RequestError: when a path leads nowhere.
    """
    paths = tuple(paths)
    if not paths:
        return None
    known: Any = Flow.DESCRIPTOR
    if not FieldMask(paths=paths).IsValidForDescriptor(known):
        bad = [path for path in paths if not FieldMask(paths=[path]).IsValidForDescriptor(known)]
        raise RequestError(f"invalid fieldmask: a flow has no {', '.join(map(repr, bad[:5]))}")
    return Mask(paths)


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


def _plan(descriptor: Any, tree: _Tree) -> _Plan:
    """The fields that go, and those of which a part stays: its name, whether it is one of a choice, and the same for it."""
    drops = tuple(inner.name for inner in descriptor.fields if inner.name not in tree)
    parts = []
    for inner in descriptor.fields:
        below = tree.get(inner.name)
        if below is not None:
            parts.append((inner.name, inner.containing_oneof is not None, *_plan(inner.message_type, below)))
    return drops, tuple(parts)


def _reduce(message: Any, drops: tuple[str, ...], parts: tuple[Any, ...]) -> None:
    clear = message.ClearField
    for name in drops:
        clear(name)
    for name, choice, inner_drops, inner_parts in parts:
        inner = getattr(message, name)
        if not choice:
            inner.SetInParent()  # as Cilium does: what a part is asked of is there, if only empty
        if not choice or message.HasField(name):
            _reduce(inner, inner_drops, inner_parts)
