"""What the core hands to a plugin: the implementation of `axoneme.core.plugin.PluginContext`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from attrs import frozen

from axoneme.core.errors import PluginError
from axoneme.core.settings import Settings

if TYPE_CHECKING:
    from axoneme.core.datapath.build import Build
    from axoneme.core.datapath.datapath import Datapath
    from axoneme.core.datapath.maps import Map
    from axoneme.core.events.stream import EventStream
    from axoneme.core.records import ApiMethod, Metric
    from axoneme.core.state.table import State
    from axoneme.core.workloads.workloads import Workloads


@frozen
class Runtime:
    """The agent's objects that live as long as it does."""

    state: State
    workloads: Workloads
    datapath: Datapath
    events: EventStream
    metrics: Callable[[], Sequence[Metric]]
    method: Callable[[str], ApiMethod | None]


class Context:
    """One plugin's face of the core, the same object for as long as the plugin runs unchanged."""

    def __init__(self, name: str, config: Any, settings: Settings) -> None:
        self.name = name
        self.config = config
        self.settings = settings
        self._runtime: Runtime | None = None
        self._build: Build | None = None

    def bind(self, runtime: Runtime, build: Build | None) -> None:
        """From now on there are tables and workloads, and, with a build, maps."""
        self._runtime, self._build = runtime, build

    @property
    def state(self) -> State:
        return self._bound("the tables").state

    @property
    def workloads(self) -> Workloads:
        return self._bound("the workloads").workloads

    @property
    def events(self) -> EventStream:
        return self._bound("the events").events

    def metrics(self) -> Sequence[Metric]:
        """The metrics of the core and of every plugin that runs now."""
        return self._bound("the metrics").metrics()

    def method(self, name: str) -> ApiMethod | None:
        """The method of the agent's API with this name, or None when no plugin that runs now has it."""
        return self._bound("the API's methods").method(name)

    def map(self, name: str) -> Map:
        """The open map that some plugin or the core declared. Raises `PluginError` when there is none."""
        if self._build is None:
            raise PluginError(f"{self.name} asks for the map {name!r} before there are any", hint=LATER)
        found = self._build.maps.get(name)
        if found is None:
            raise PluginError(
                f"{self.name} asks for the map {name!r}, which nobody declared",
                hint="yield it from axoneme_maps",
            )
        return found

    def raise_revision(self) -> None:
        """Makes every connection's cached verdict stale."""
        self._bound("the datapath").datapath.raise_revision(self._build)

    def _bound(self, what: str) -> Runtime:
        if self._runtime is None:
            raise PluginError(f"{self.name} asks for {what} before they are there", hint=LATER)
        return self._runtime


LATER = "hooks that declare see only name, config and settings; use the rest in services"
