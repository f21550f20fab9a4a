"""Backends that are gone: TCP connections of local sockets that were translated to them are closed, wherever they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from axoneme.core import logs
from axoneme.core.errors import AxonemeError
from axoneme.core.net import namespaces
from axoneme.core.plugin import PluginContext
from axoneme.core.workloads.endpoints import ENDPOINTS, Endpoint
from axoneme.plugins.lb.model import Protocol
from axoneme.plugins.lb.rows import BackendKey, family_of
from axoneme.plugins.lb.sock_diag import Ended, close_sockets
from axoneme.plugins.lb.writer import split

if TYPE_CHECKING:
    import numpy as np

log = logs.get(__name__)

#: Bytes of the cookie in front of address and port in a row of `lb_sockets…`.
_COOKIE: Final = 8


class Closer:
    """A service. `bury` tells it who is gone."""

    def __init__(self, context: PluginContext) -> None:
        self._context = context
        self._dead: set[BackendKey] = set()
        self._told = asyncio.Event()
        self.closed = 0
        #: Sockets with such a backend of which no note says that they were translated.
        self.left = 0

    def bury(self, dead: Iterable[BackendKey]) -> None:
        """These backends no service has any more."""
        of_tcp = {key for key in dead if key[-2] == Protocol.TCP}
        if of_tcp:
            self._dead.update(of_tcp)
            self._told.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until it is cancelled; see `axoneme.core.records.Service`."""
        ready()
        while True:
            await self._told.wait()
            self._told.clear()
            dead, self._dead = self._dead, set()
            cookies = await asyncio.to_thread(self._cookies, dead)
            paths = [row.netns for row in self._context.state.table(ENDPOINTS.name, Endpoint).all()]
            ended = await asyncio.to_thread(_close_everywhere, cookies, dead, paths)
            self.closed += ended.closed
            self.left += ended.left
            if ended.closed or ended.left:
                log.info("sockets_closed", backends=len(dead), sockets=ended.closed, left=ended.left)

    def _cookies(self, dead: Collection[BackendKey]) -> set[int]:
        """The sockets that were translated to these backends."""
        found: set[int] = set()
        for family in (4, 6):
            places = {key[:-2] for key in dead if family_of(key) == family}
            if places:
                table = self._context.map(f"lb_sockets{family}")
                with table.held():
                    found |= _sockets_of(places, table.items()[1])
        return found


def _sockets_of(places: set[bytes], notes: np.ndarray[Any, Any]) -> set[int]:
    """Cookies of the rows of `lb_sockets…` with one of these addresses and ports, packed."""
    size = len(next(iter(places)))
    notes = notes[notes["cookie"] != 0]
    rows = zip(notes["cookie"].tolist(), split(notes), strict=True)
    return {cookie for cookie, row in rows if row[_COOKIE : _COOKIE + size] in places}


def _close_everywhere(cookies: set[int], dead: Collection[BackendKey], paths: Iterable[str]) -> Ended:
    """On the host and in these namespaces; one that is gone, or refuses, does not keep the others from it."""
    ended = _tried(lambda: close_sockets(cookies, dead))
    for path in paths:
        ended += _tried(partial(_close_in, path, cookies, dead))
    return ended


def _close_in(path: str, cookies: set[int], dead: Collection[BackendKey]) -> Ended:
    with namespaces.opened(path) as namespace:
        return namespace.visit(lambda: close_sockets(cookies, dead))


def _tried(close: Callable[[], Ended]) -> Ended:
    try:
        return close()
    except (AxonemeError, OSError) as error:
        log.warning("sockets_not_closed", reason=str(error))
        return Ended()
