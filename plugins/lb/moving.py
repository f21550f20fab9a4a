"""Backends that are gone: connected UDP sockets that were translated to them are connected to their service again.

Datagrams of a connected socket pass no hook of a cgroup. Those of workloads pass `translate`, which moves them. Of others (the
node's own processes), the agent takes the socket itself and calls connect() with the service's address, as its owner did:
the socket's own hook chooses a backend. Its own address and port, and what waits in its queue, stay.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from ipaddress import IPv6Address
from typing import Any, Final, TypeVar

from attrs import frozen

from axoneme.core import logs
from axoneme.core.datapath.maps import Map
from axoneme.core.errors import AxonemeError
from axoneme.core.net import namespaces
from axoneme.core.plugin import PluginContext
from axoneme.core.workloads.endpoints import ENDPOINTS, Endpoint
from axoneme.plugins.lb.maps import Scope
from axoneme.plugins.lb.model import Address, Protocol
from axoneme.plugins.lb.owners import Owner, borrowed, owners
from axoneme.plugins.lb.rows import BackendKey, backend_key, family_of, row_key
from axoneme.plugins.lb.sock_diag import Socket, close_one, connected_datagrams

log = logs.get(__name__)

T = TypeVar("T")

#: Seconds between two rounds: each reads the sockets of all namespaces.
_PAUSE: Final = 0.2
_MAPS: Final = ("lb_peers", "lb_services4", "lb_services6", "lb_sockets4", "lb_sockets6")


class _Outcome(enum.StrEnum):
    """FOREIGN: it never was translated, or has another peer by now. WAITING: its service has no backends now."""

    FOREIGN = "foreign"
    MOVED = "moved"
    CLOSED = "closed"
    WAITING = "waiting"


@frozen
class _Found:
    """A socket whose peer is no backend.

    :param netns: the path of its namespace, empty for the node's own.
    """

    socket: Socket
    netns: str


class Mover:
    """A service. `look` tells it that something has changed.

    :param lives: whether a backend has a row, or will have one in a moment.
    """

    def __init__(self, context: PluginContext, lives: Callable[[BackendKey], bool]) -> None:
        self._context = context
        self._lives = lives
        self._gone: set[BackendKey] = set()
        self._waiting = False
        #: At first, whoever is connected to somebody who is no backend: one may have gone while no agent ran.
        self._first = True
        self._told = asyncio.Event()
        self.moved = self.closed = 0

    def look(self, gone: Iterable[BackendKey]) -> None:
        """The kernel's rows were written, and these backends' cleared."""
        self._gone.update(key for key in gone if key[-2] == Protocol.UDP)
        if self._gone or self._waiting or self._first:
            self._told.set()

    async def run(self, ready: Callable[[], None]) -> None:
        """Until it is cancelled; see `axoneme.core.records.Service`."""
        ready()
        if not self._context.config.at_sockets:
            await asyncio.Event().wait()
        while True:
            await self._told.wait()
            self._told.clear()
            await self._round()
            await asyncio.sleep(_PAUSE)

    async def _round(self) -> None:
        first, self._first = self._first, False
        gone, self._gone = self._gone, set()
        paths = [row.netns for row in self._context.state.table(ENDPOINTS.name, Endpoint).all()]
        found = await asyncio.to_thread(_everywhere, paths)
        bereft = [
            one for one in found if (first or one.socket.peer in gone) and not self._lives(one.socket.peer)
        ]
        if not bereft:
            self._waiting = False
            return
        begin = time.perf_counter()
        outcomes = await asyncio.to_thread(self._move_all, bereft)
        self._gone |= {one.socket.peer for one, outcome in outcomes if outcome is _Outcome.WAITING}
        counts = Counter(outcome for _, outcome in outcomes)
        self._waiting = bool(counts[_Outcome.WAITING])
        self.moved += counts[_Outcome.MOVED]
        self.closed += counts[_Outcome.CLOSED]
        if counts.total() > counts[_Outcome.FOREIGN]:
            told = {outcome.value: number for outcome, number in counts.items()}
            log.info("datagram_sockets_moved", seconds=round(time.perf_counter() - begin, 3), **told)

    def _move_all(self, bereft: list[_Found]) -> list[tuple[_Found, _Outcome]]:
        with ExitStack() as held:
            maps = {name: held.enter_context(self._context.map(name).held()) for name in _MAPS}
            known = owners({one.socket.inode for one in bereft})
            return [(one, self._move(maps, one, known.get(one.socket.inode))) for one in bereft]

    def _move(self, maps: dict[str, Map], one: _Found, owner: Owner | None) -> _Outcome:
        try:
            if owner is None:
                raise FileNotFoundError("no process has it open")
            with borrowed(owner) as duplicate:
                return _connect(maps, one.socket, duplicate)
        except (AxonemeError, OSError) as error:
            outcome = self._close(maps, one)
            if outcome is _Outcome.CLOSED:
                log.info("datagram_socket_closed", inode=one.socket.inode, reason=str(error))
            return outcome

    def _close(self, maps: dict[str, Map], one: _Found) -> _Outcome:
        """It cannot be had: if it is known to be translated, its owner learns that it has to connect again."""
        if not self._context.config.close_sockets or not _is_noted(maps, one.socket):
            return _Outcome.FOREIGN
        try:
            closed = _inside(one.netns, partial(close_one, one.socket))
        except (AxonemeError, OSError) as error:
            log.warning("sockets_not_closed", reason=str(error))
            return _Outcome.FOREIGN
        return _Outcome.CLOSED if closed else _Outcome.FOREIGN


def _connect(maps: dict[str, Map], one: Socket, duplicate: socket.socket) -> _Outcome:
    """Its owner may connect it elsewhere at the same moment: who comes last has it, as between two threads of its own."""
    note = maps["lb_peers"].lookup(duplicate.fileno())
    if note is None or _key(note["address"], note["port"]) != one.peer:
        return _Outcome.FOREIGN
    service = _plain(note["peer_address"])
    port = int(note["peer_port"])
    row = maps[f"lb_services{service.version}"].lookup(row_key(service, port, Protocol.UDP, Scope.INTERNAL))
    if row is None or not row["count"]:
        return _Outcome.WAITING
    text = str(service) if one.family == socket.AF_INET or service.version == 6 else f"::ffff:{service}"
    try:
        duplicate.connect((text, port))
    except OSError as error:
        log.warning("datagram_socket_not_moved", service=f"{service}:{port}", reason=str(error))
        return _Outcome.WAITING
    return _Outcome.MOVED


def _is_noted(maps: dict[str, Map], one: Socket) -> bool:
    """Whether the table of the latest translated sockets has it, with this peer."""
    table = maps[f"lb_sockets{family_of(one.peer)}"]
    note = table.lookup(one.number & table.spec.max_entries - 1)
    return bool(note["cookie"] == one.number and note.tobytes()[8:].startswith(one.peer[:-2]))


def _plain(words: Any) -> Address:
    mapped = IPv6Address(words.tobytes())
    return mapped.ipv4_mapped or mapped


def _key(words: Any, port: Any) -> BackendKey:
    return backend_key(_plain(words), int(port), Protocol.UDP)


def _everywhere(paths: Iterable[str]) -> list[_Found]:
    """Connected UDP sockets of the node and of these namespaces; one that is gone has none."""
    found = []
    for path in ("", *paths):
        try:
            found += [_Found(one, path) for one in _inside(path, connected_datagrams)]
        except (AxonemeError, OSError) as error:
            log.debug("sockets_not_listed", netns=path, reason=str(error))
    return found


def _inside(path: str, function: Callable[[], T]) -> T:
    if not path:
        return function()
    with namespaces.opened(path) as namespace:
        return namespace.visit(function)
