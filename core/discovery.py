"""Which plugins there are, where each comes from, without importing any of them."""

from __future__ import annotations

import importlib.util
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from attrs import field, frozen

from axoneme.core.errors import PluginError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "axoneme.plugins"
IN_PROCESS: Final = "in process"


@frozen(kw_only=True)
class Provenance:
    """Who provides a plugin.

    :param distribution: the installed package, or `in process` for one that an embedder handed over.
    :param target: the module, or the class of the object.
    """

    distribution: str
    version: str = ""
    target: str = ""

    def __str__(self) -> str:
        package = f"{self.distribution} {self.version}".strip()
        return f"{package} ({self.target})" if self.target else package

    def file(self) -> str:
        """The file that has the plugin, or an empty text. Imports at most the packages around the module."""
        try:
            spec = importlib.util.find_spec(self.target.partition(":")[0])
        except (ImportError, ValueError, AttributeError):
            return ""
        return spec.origin or "" if spec else ""


@frozen
class Found:
    """A plugin that is installed. `load` imports it and returns the module or object with the hook implementations."""

    name: str
    provenance: Provenance
    load: Callable[[], Any] = field(repr=False)


def discover() -> Mapping[str, tuple[Found, ...]]:
    """All installed plugins by name; several of one name are a conflict that matters once it is enabled."""
    from importlib.metadata import entry_points

    found: dict[str, list[Found]] = defaultdict(list)
    for point in entry_points(group=GROUP):
        provenance = Provenance(
            distribution=point.dist.name if point.dist else "unknown",
            version=point.dist.version if point.dist else "",
            target=point.value,
        )
        found[point.name].append(Found(point.name, provenance, partial(_load, point)))
    return {name: tuple(found[name]) for name in sorted(found)}


def _load(point: EntryPoint) -> Any:
    """Imports what an entry point names, installed since this process began or not."""
    importlib.invalidate_caches()
    try:
        return point.load()
    except ModuleNotFoundError as error:
        if error.name != point.module.partition(".")[0]:
            raise
        raise PluginError(
            f"there is no module {point.module}",
            hint="if it was installed in place (pip install -e) while this agent ran, only a new start finds it",
        ) from error


def in_process(plugin: Any, name: str) -> Found:
    """A plugin that the embedding program hands over: a module, or an object with hook implementations."""
    target = plugin.__name__ if inspect.ismodule(plugin) else type(plugin).__qualname__
    return Found(name, Provenance(distribution=IN_PROCESS, target=target), lambda: plugin)
