"""The frozen records that hook implementations yield.

A plugin describes what it brings; the core decides what becomes of it. So every contribution is a value: it can be
printed, compared and tested without starting anything, and the core owns (and closes) whatever it makes of it.
"""

from __future__ import annotations

import enum
import importlib
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    import click


#: The version of the contract in `axoneme.core.hooks`. It rises when a plugin written for the old one would break.
API_VERSION = 1


@frozen(kw_only=True)
class PluginInfo:
    """What a plugin says of itself.

    :param name: `^[a-z][a-z0-9_-]{1,30}$`, unique among all plugins.
    :param requires_api: the `API_VERSION` that it was written for.
    :param required: the agent refuses to start without it (fail closed on security).
    """

    name: str
    summary: str = ""
    version: str = ""
    requires_api: int = API_VERSION
    required: bool = False


@frozen(kw_only=True)
class ConfigSection:
    """A plugin's own section of the configuration: one frozen attrs class, every field with a default or required.

    Field documentation goes into `metadata={"help": …}`. The section's name is the plugin's.
    """

    schema: type[Any]


class Phase(enum.StrEnum):
    """The phases of a packet attach point, in their fixed order."""

    CLASSIFY = "classify"
    TRANSLATE = "translate"
    TRACK = "track"
    DECIDE = "decide"
    AUTHENTICATE = "authenticate"
    REDIRECT = "redirect"
    ENCRYPT = "encrypt"
    DELIVER = "deliver"
    OBSERVE = "observe"


class Runs(enum.StrEnum):
    """When a stage runs: for a connection's first packet (its result is remembered), or for every packet."""

    FIRST = "first"
    EVERY = "every"


@frozen(kw_only=True)
class Stage:
    """One C function that a plugin puts into an attach point's program.

    :param name: the function's name in the source; the composer prefixes it with the plugin's name.
    :param source: the C file, or the C text itself.
    :param attach: attach points by name (`from_workload`, `to_workload`, …).
    :param before: names of stages (`plugin.stage` or `stage`) of the same phase that run after this one.
    :param after: names of stages of the same phase that run before this one.
    :param maps: names of the maps that the text uses; their accessors are generated.
    :param defines: constants that the text uses, from the plugin's configuration.
    :param devices: it is about what passes the node's devices: only where an enabled plugin has such a stage does
        `datapath.devices: [auto]` give the programs to any.
    :param slots: words of a connection's entry that the plugin has for itself, by name: `SLOT(conn, name)` in C. Its stages
        share those of the same name.
    """

    name: str
    source: Path | str
    attach: tuple[str, ...]
    phase: Phase
    runs: Runs = Runs.FIRST
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    maps: tuple[str, ...] = ()
    defines: Mapping[str, int] = field(factory=dict)
    slots: Mapping[str, int] = field(factory=dict)
    devices: bool = False


@frozen(kw_only=True)
class TableSpec:
    """A typed table of desired or observed state.

    :param row: a frozen attrs class.
    :param key: the attribute, or the attributes, of the row that identify it.
    :param indexes: further attributes to look rows up by; an attribute holding a frozenset or tuple indexes each element.
    """

    name: str
    row: type[Any]
    key: str | tuple[str, ...]
    indexes: tuple[str, ...] = ()
    doc: str = ""


@frozen(kw_only=True)
class ResourceKind:
    """A kind of resource that the agent understands.

    :param api_version: for example `cilium.io/v2`.
    :param parse: from the validated envelope to the plugin's own frozen object; raises `ResourceError` with the
        field's path for what is wrong. What it returns is the row's `parsed` in the `resources` table.
    """

    api_version: str
    kind: str
    namespaced: bool
    parse: Callable[[Any], Any]


class Restart(enum.StrEnum):
    """What the supervisor does when a service's `run` ends."""

    ON_FAILURE = "on-failure"
    NEVER = "never"


@frozen(kw_only=True)
class Service:
    """A runtime object that the core runs under supervision.

    :param run: a coroutine function; it lives until cancelled and may clean up then. It calls the `ready` callback that
        it gets once it has caught up with its inputs: the agent is ready when all its services are.
    :param alone: two of it must not run side by side, as when it keeps account of what it wrote into maps. In a reload the
        former one ends before its successor begins. If the reload is refused it is run again, to put right what the other
        one wrote. Without it, the former one runs until the successor is ready.
    """

    name: str
    run: Callable[[Callable[[], None]], Awaitable[None]]
    restart: Restart = Restart.ON_FAILURE
    alone: bool = False


def imported(path: str) -> Callable[[], Any]:
    """What `module:attribute` names, imported only when this is called: for `Command.load`."""

    def load() -> Any:
        module, _, attribute = path.partition(":")
        return getattr(importlib.import_module(module), attribute)

    return load


@frozen(kw_only=True)
class Command:
    """A click command for the `axoneme` program, imported only when it is called for.

    :param group: `()` for the root, else the path of an existing or new group, e.g. `("policy",)`.
    :param load: returns the command; heavy imports belong inside (`imported`).
    """

    name: str
    load: Callable[[], click.Command]
    group: tuple[str, ...] = ()
    summary: str = ""


@frozen(kw_only=True)
class ApiMethod:
    """A method of the agent's local API: JSON-like arguments in, JSON-like answer (or an async iterator of them) out."""

    name: str
    call: Callable[..., Any]
    streams: bool = False
    summary: str = ""


class Level(enum.StrEnum):
    OK = "ok"
    DEGRADED = "degraded"
    FAILED = "failed"
    UNKNOWN = "unknown"


@frozen(kw_only=True)
class Health:
    """The answer of a health check: a level and, unless it is `ok`, the reason."""

    level: Level
    reason: str = ""


@frozen(kw_only=True)
class HealthCheck:
    name: str
    check: Callable[[], Health]


class MetricType(enum.StrEnum):
    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


#: Gives the value of a metric, or one per label tuple.
Read = Callable[[], "float | Distribution | Mapping[tuple[str, ...], float | Distribution]"]


@frozen(kw_only=True)
class Metric:
    """A number that the agent shows: `read` returns it, or one per label tuple.

    Values are read when somebody asks, never pushed. Those of a histogram are `Distribution`s: keep them in an
    `axoneme.core.histogram.Histogram`, whose `read` this can be.

    :param name: the whole name, as Prometheus knows it: `cilium_…` for what Cilium has as well, else `axoneme_…`.
    """

    name: str
    type: MetricType
    help: str
    read: Read
    labels: tuple[str, ...] = ()

    @classmethod
    def counter(cls, name: str, help: str, read: Read, *labels: str) -> Metric:
        return cls(name=name, type=MetricType.COUNTER, help=help, read=read, labels=labels)

    @classmethod
    def gauge(cls, name: str, help: str, read: Read, *labels: str) -> Metric:
        return cls(name=name, type=MetricType.GAUGE, help=help, read=read, labels=labels)

    @classmethod
    def histogram(cls, name: str, help: str, read: Read, *labels: str) -> Metric:
        return cls(name=name, type=MetricType.HISTOGRAM, help=help, read=read, labels=labels)


@frozen(kw_only=True)
class Distribution:
    """What a histogram knows of one label tuple.

    :param bounds: the buckets' upper bounds, ascending.
    :param counts: observations up to each bound but beyond the one before, and one more for those beyond all.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        return sum(self.counts)

    def buckets(self) -> Iterator[tuple[str, int]]:
        """As Prometheus has them: (upper bound, observations up to it), bounds written as Go does, `+Inf` the last."""
        bounds = (*(f"{bound:g}" for bound in self.bounds), "+Inf")
        return zip(bounds, accumulate(self.counts), strict=True)


@frozen(kw_only=True)
class DropReason:
    """A reason for which packets are dropped: the number that C returns and the text that people read.

    Numbers below 300 follow Cilium's `flow.DropReason`, so that existing tools show the same words.
    """

    number: int
    name: str
    text: str
