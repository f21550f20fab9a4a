"""Handlers from a file of their own, with filters, in the format of Cilium's `hubble-dynamic-metrics-config-path`.

metrics:
  - name: drop
    contextOptions:
      - {name: sourceContext, values: [pod]}
    includeFilters:
      - {source_pod: [shop/]}
    excludeFilters:
      - {destination_port: ["53"]}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from attrs import evolve

from axoneme.core.errors import ConfigError, ResourceError, Where
from axoneme.core.structure import nearest
from axoneme.plugins.hubble.metrics.options import HANDLERS, HandlerOptions, check, options

_KEYS: Final = ("name", "contextOptions", "includeFilters", "excludeFilters")


def read(path: Path) -> list[HandlerOptions]:
    """The handlers of a file. :raises ConfigError: what is wrong with it."""
    from axoneme.core.state.yamlio import load

    try:
        documents = load(path.read_bytes(), str(path))
    except OSError as error:
        raise ConfigError(
            f"the metrics' file cannot be read: {error.strerror}", where=Where(str(path))
        ) from None
    except ResourceError as error:
        raise ConfigError(error.message, where=error.where, hint=error.hint) from None
    try:
        return handlers(documents[0].value if len(documents) == 1 else None)
    except ConfigError as error:
        raise ConfigError(error.message, where=Where(str(path)), hint=error.hint) from None


def handlers(document: Any) -> list[HandlerOptions]:
    """The handlers of a document. :raises ConfigError: what is wrong with it."""
    entries = document.get("metrics") if isinstance(document, Mapping) else None
    if not isinstance(entries, list) or set(document) != {"metrics"}:
        raise ConfigError("a list `metrics` is expected, and nothing else")
    return check([_handler(number, entry) for number, entry in enumerate(entries)])


def _handler(number: int, entry: Any) -> HandlerOptions:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise ConfigError(f"metrics[{number}] has no name")
    for key in entry:
        if key not in _KEYS:
            raise ConfigError(f"metrics[{number}] has a key {key!r}", hint=nearest(str(key), _KEYS))
    name = entry["name"]
    if name not in HANDLERS:
        raise ConfigError(f"there is no metrics handler {name!r}", hint=nearest(name, HANDLERS))
    made = options(name, [_option(number, one) for one in _list(number, entry, "contextOptions")])
    include, exclude = (_filters(number, entry, key) for key in ("includeFilters", "excludeFilters"))
    return evolve(made, include=include, exclude=exclude)


def _option(number: int, entry: Any) -> tuple[str, list[str]]:
    values = entry.get("values", []) if isinstance(entry, Mapping) else None
    if not isinstance(values, list) or not isinstance(entry.get("name"), str):
        raise ConfigError(f"metrics[{number}].contextOptions: a name and a list of values are expected")
    return entry["name"], [str(value) for value in values]


def _filters(number: int, entry: Mapping[str, Any], key: str) -> tuple[bytes, ...]:
    """Serialized `FlowFilter`s."""
    from google.protobuf import json_format

    from axoneme.plugins.hubble.filters.compiler import compiled
    from axoneme.plugins.hubble.filters.errors import RequestError
    from axoneme.plugins.hubble.proto.flow_pb2 import FlowFilter

    try:
        made = [json_format.ParseDict(one, FlowFilter()) for one in _list(number, entry, key)]
        compiled(made)
    except (json_format.ParseError, RequestError) as error:
        raise ConfigError(f"metrics[{number}].{key}: {error}") from None
    return tuple(one.SerializeToString(deterministic=True) for one in made)


def _list(number: int, entry: Mapping[str, Any], key: str) -> Iterable[Any]:
    found = entry.get(key) or []
    if not isinstance(found, list):
        raise ConfigError(f"metrics[{number}].{key} is no list")
    return found
