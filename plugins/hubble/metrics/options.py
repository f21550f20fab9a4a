"""What an administrator writes for a handler: `NAME:OPTION;OPTION=VALUE|VALUE;labelsContext=LABEL,LABEL`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from attrs import field, frozen

from axoneme.core.errors import ConfigError
from axoneme.core.structure import nearest

#: The identifiers that a source or destination context may name, in the order of preference that the user gives.
IDENTIFIERS: Final = (
    "identity", "namespace", "pod", "pod-name", "dns", "ip", "reserved-identity", "workload", "workload-name", "app",
)  # fmt: skip

_SIDES: Final = ("ip", "pod", "namespace", "workload", "workload_kind", "app")

#: The labels that `labelsContext` may name.
LABELS: Final = (
    *(f"{side}_{what}" for side in ("source", "destination") for what in _SIDES),
    "traffic_direction",
)

#: Options that name identifiers, in the spelling of the attributes of `Contexts`.
_CONTEXTS: Final = {
    "sourcecontext": "source",
    "sourceegresscontext": "source_egress",
    "sourceingresscontext": "source_ingress",
    "destinationcontext": "destination",
    "destinationegresscontext": "destination_egress",
    "destinationingresscontext": "destination_ingress",
}

#: The handlers and their own options.
HANDLERS: Final[Mapping[str, tuple[str, ...]]] = {
    "dns": ("query", "ignoreAAAA"),
    "drop": (),
    "tcp": (),
    "flow": (),
    "port-distribution": (),
    "icmp": (),
    "http": ("exemplars",),
    "httpV2": ("exemplars",),
    "kafka": (),
    "policy": (),
    "flows-to-world": ("any-drop", "port", "syn-only"),
}

#: Both would register the same metrics.
_CONFLICTS: Final = (("http", "httpV2"),)


@frozen(kw_only=True)
class Contexts:
    """Which of a flow's sides become labels. A tuple is a list of preference: the first that is not empty is taken."""

    source: tuple[str, ...] = ()
    source_egress: tuple[str, ...] = ()
    source_ingress: tuple[str, ...] = ()
    destination: tuple[str, ...] = ()
    destination_egress: tuple[str, ...] = ()
    destination_ingress: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()

    def identifiers(self, side: str) -> frozenset[str]:
        """All identifiers that may become the label `side` (source or destination)."""
        named = getattr(self, side) + getattr(self, f"{side}_egress") + getattr(self, f"{side}_ingress")
        return frozenset(named)


@frozen(kw_only=True)
class HandlerOptions:
    """One handler as it is to be.

    :param flags: its own options that are on.
    :param include, exclude: serialized `flow.FlowFilter`s: flows that it is to count (none: all), and that it is not.
    """

    name: str
    flags: frozenset[str] = frozenset()
    contexts: Contexts = field(factory=Contexts)
    include: tuple[bytes, ...] = ()
    exclude: tuple[bytes, ...] = ()


def parse(texts: Iterable[str]) -> list[HandlerOptions]:
    """The handlers that texts describe, several to a text if blanks are between them.

    :raises ConfigError: unknown handler, option, identifier or label; two handlers that exclude each other.
    """
    return check([_handler(word) for text in texts for word in text.split()])


def check(handlers: list[HandlerOptions]) -> list[HandlerOptions]:
    """The same handlers. :raises ConfigError: two of them exclude each other."""
    names = [handler.name for handler in handlers]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"the metrics handler {name} is given twice")
    for pair in _CONFLICTS:
        if set(pair) <= set(names):
            raise ConfigError(
                f"the metrics handler {pair[0]} conflicts with {pair[1]}", hint="keep one of them"
            )
    return handlers


def _handler(text: str) -> HandlerOptions:
    name, _, rest = text.partition(":")
    if name not in HANDLERS:
        raise ConfigError(f"there is no metrics handler {name!r}", hint=nearest(name, HANDLERS))
    return options(name, [_option(word) for word in rest.split(";") if word])


def _option(text: str) -> tuple[str, list[str]]:
    name, equals, value = text.partition("=")
    if not equals:
        return name, []
    separator = "," if name.lower() == "labelscontext" else "|"
    return name, value.split(separator)


def options(name: str, given: Iterable[tuple[str, list[str]]]) -> HandlerOptions:
    """A handler of this name with options, each with its values."""
    flags: set[str] = set()
    contexts: dict[str, tuple[str, ...]] = {}
    for option, values in given:
        lowered = option.lower()
        if lowered in _CONTEXTS:
            contexts[_CONTEXTS[lowered]] = _known(name, option, values, IDENTIFIERS)
        elif lowered == "labelscontext":
            chosen = _known(name, option, values, LABELS)
            contexts["labels"] = tuple(label for label in LABELS if label in chosen)
        else:
            flags |= _flag(name, option, values)
    return HandlerOptions(name=name, flags=frozenset(flags), contexts=Contexts(**contexts))


def _known(handler: str, option: str, values: list[str], known: tuple[str, ...]) -> tuple[str, ...]:
    for value in values or [""]:
        if value not in known:
            raise ConfigError(
                f"the metrics handler {handler} has {option}={value}, which is unknown",
                hint=nearest(value, known),
            )
    return tuple(values)


def _flag(handler: str, option: str, values: list[str]) -> set[str]:
    for flag in HANDLERS[handler]:
        if flag.lower() == option.lower():
            return set() if values and values[0].lower() == "false" else {flag}
    known = [*HANDLERS[handler], "sourceContext", "destinationContext", "labelsContext"]
    raise ConfigError(f"the metrics handler {handler} has no option {option!r}", hint=nearest(option, known))
