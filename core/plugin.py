"""What a plugin holds at run time: its context. Hook implementations get it and keep nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from axoneme.core.datapath.maps import Map
    from axoneme.core.events.stream import EventStream
    from axoneme.core.records import ApiMethod, Metric
    from axoneme.core.state.table import State
    from axoneme.core.workloads.workloads import Workloads


class PluginContext(Protocol):
    """The core's face towards one plugin.

    Everything reached through it is owned by the plugin's scope and closed with it.
    """

    #: The plugin's name.
    name: str
    #: The plugin's own configuration: an instance of the class that its `ConfigSection` named.
    config: Any
    #: The agent's whole configuration, for the few things that concern everybody (node, pools, folders).
    settings: Any

    @property
    def state(self) -> State:
        """The typed tables."""
        ...

    @property
    def workloads(self) -> Workloads:
        """The local workloads."""
        ...

    @property
    def events(self) -> EventStream:
        """What the programs report, in bulk: `listen` to it, or `publish` records that the plugin has to tell."""
        ...

    def metrics(self) -> Sequence[Metric]:
        """The metrics of the core and of every plugin that runs now, for those who publish them."""
        ...

    def method(self, name: str) -> ApiMethod | None:
        """The method of the agent's API with this name, or None when no plugin that runs now has it."""
        ...

    def map(self, name: str) -> Map:
        """The open map that some plugin or the core declared. Raises `PluginError` when there is none."""
        ...

    def raise_revision(self) -> None:
        """Makes every connection's cached verdict stale: the next packet of each flow is decided anew.

        To be called after the maps that a decision reads were written.
        """
        ...
