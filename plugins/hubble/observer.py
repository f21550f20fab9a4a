"""What this node observed, and how it is read: the one object that servers, metrics, exporters and the UI share.

observer = of(context)                        # the same object for everybody of this plugin
async for message in observer.get_flows(request): ...     # serialized observer.GetFlowsResponse, one each
async for batch in observer.listen(): ...     # everything that is new from now on, in bulk
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from attrs import frozen

from axoneme.core.errors import AxonemeError
from axoneme.core.plugin import PluginContext

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import Flow, LostEvent
    from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest


class RequestError(AxonemeError):
    """A request that cannot be answered: a filter, a field mask or a combination that makes no sense.

    :ivar argument: the code to answer with is INVALID_ARGUMENT; otherwise it is UNKNOWN, as with Cilium.
    """

    argument = False


@frozen(kw_only=True)
class Status:
    """The numbers of `observer.ServerStatusResponse`. `flows_rate` is flows per second of the last minute."""

    num_flows: int
    max_flows: int
    seen_flows: int
    uptime_ns: int
    flows_rate: float


class Observer:
    """The flows of this node.

    :ivar node_name: CLUSTER/NODE, as in every flow.
    """

    node_name: str

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self.node_name = f"{context.config.cluster}/{context.settings.node.node_name()}"

    async def run(self, ready: Callable[[], None]) -> None:
        """The service: from the kernel's events to flows, until cancelled."""
        ready()
        await asyncio.Event().wait()

    def status(self) -> Status:
        raise NotImplementedError

    def namespaces(self) -> list[tuple[str, str]]:
        """(cluster, namespace), sorted, of the flows of the last hour."""
        raise NotImplementedError

    def get_flows(self, request: GetFlowsRequest) -> AsyncIterator[bytes]:
        """The answer to a request: serialized `observer.GetFlowsResponse`, for a handler whose serializer is the identity.

        Ends when the request is answered; with `follow`, never. A reader that is too slow gets `lost_events` with the exact
        number and goes on with the oldest that is there; it holds up nobody and takes no memory.

        :raises RequestError: at the first step, before anything was yielded.
        """
        raise NotImplementedError

    def listen(self) -> AsyncIterator[Batch]:
        """Every flow from now on, unfiltered, in batches as the kernel's events come (some hundred per second at most)."""
        raise NotImplementedError

    def add(self, flows: Iterable[Flow]) -> None:
        """Takes in flows that others made: layer 7, authentication. What they leave out (time, uuid, node) is filled in."""
        raise NotImplementedError


class Batch:
    """New flows, oldest first.

    :ivar lost: what was lost before them, as the messages that clients get.
    :ivar columns: numpy arrays by name, all of one length; see `columns.py`.
    """

    columns: Any
    lost: tuple[LostEvent, ...]

    def __len__(self) -> int:
        raise NotImplementedError

    def flows(self) -> list[Flow]:
        """All of them as protobuf messages."""
        raise NotImplementedError


_observers: WeakKeyDictionary[Any, Observer] = WeakKeyDictionary()


def of(context: PluginContext) -> Observer:
    """The observer of a plugin's context."""
    if context not in _observers:
        _observers[context] = Observer(context)
    return _observers[context]
