"""What plugins brought, who brought it, and whether two of them claim the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from attrs import evolve, fields, frozen

from axoneme.core.errors import PluginError

if TYPE_CHECKING:
    from axoneme.core.datapath.maps import MapSpec
    from axoneme.core.records import (
        ApiMethod,
        Command,
        DropReason,
        HealthCheck,
        Metric,
        ResourceKind,
        Service,
        Stage,
        TableSpec,
    )

T = TypeVar("T")

#: The provider of what the core itself brings.
CORE: Final = "core"


@frozen
class Provided(Generic[T]):
    """A record and the plugin that brought it."""

    plugin: str
    record: T


@frozen(kw_only=True)
class Contributions:
    """Everything that the enabled plugins, and the core, bring to one generation."""

    tables: tuple[Provided[TableSpec], ...] = ()
    resources: tuple[Provided[ResourceKind], ...] = ()
    maps: tuple[Provided[MapSpec], ...] = ()
    stages: tuple[Provided[Stage], ...] = ()
    drop_reasons: tuple[Provided[DropReason], ...] = ()
    services: tuple[Provided[Service], ...] = ()
    api: tuple[Provided[ApiMethod], ...] = ()
    health: tuple[Provided[HealthCheck], ...] = ()
    metrics: tuple[Provided[Metric], ...] = ()

    def plus(self, other: Contributions) -> Contributions:
        return Contributions(**{a.name: getattr(self, a.name) + getattr(other, a.name) for a in _parts()})

    def only(self, plugins: Iterable[str]) -> Contributions:
        """Those of the core and of these plugins."""
        kept = {CORE, *plugins}
        return evolve(
            self,
            **{a.name: tuple(p for p in getattr(self, a.name) if p.plugin in kept) for a in _parts()},
        )

    def check(self) -> Contributions:
        """Itself. Raises one `PluginError` for all names that are claimed more than once."""
        claims = [
            text
            for part, (what, identity) in IDENTITIES.items()
            for text in conflicts(what, getattr(self, part), identity)
        ]
        raise_conflicts(claims)
        return self


def _parts() -> Any:
    return fields(Contributions)


#: What makes two records the same one, and how a person calls it. Stages, services and checks are named within their plugin.
IDENTITIES: Final[Mapping[str, tuple[str, Callable[[Provided[Any]], str]]]] = {
    "tables": ("table", lambda p: str(p.record.name)),
    "resources": ("resource kind", lambda p: f"{p.record.api_version} {p.record.kind}"),
    "maps": ("map", lambda p: str(p.record.name)),
    "stages": ("stage", lambda p: f"{p.plugin}.{p.record.name}"),
    "drop_reasons": ("drop reason", lambda p: str(p.record.number)),
    "services": ("service", lambda p: f"{p.plugin}.{p.record.name}"),
    "api": ("API method", lambda p: str(p.record.name)),
    "health": ("health check", lambda p: f"{p.plugin}.{p.record.name}"),
    "metrics": ("metric", lambda p: str(p.record.name)),
}


def conflicts(
    what: str, provided: Iterable[Provided[Any]], identity: Callable[[Provided[Any]], str]
) -> list[str]:
    """A sentence for each name that several records claim."""
    claimed: dict[str, list[str]] = defaultdict(list)
    for item in provided:
        claimed[identity(item)].append(item.plugin)
    return [
        f"the {what} {name} comes from {' and '.join(sorted(providers))}"
        for name, providers in sorted(claimed.items())
        if len(providers) > 1
    ]


def command_conflicts(commands: Iterable[Provided[Command]]) -> list[str]:
    return conflicts("command", commands, lambda p: " ".join((*p.record.group, p.record.name)))


def raise_conflicts(claims: list[str]) -> None:
    if claims:
        raise PluginError(
            f"plugins are in conflict: {'; '.join(claims)}",
            hint="disable one of the plugins of each conflict",
        )
