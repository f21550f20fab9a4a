"""Which workload a socket belongs to: the cookie of its network namespace, for the programs that see sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Hashable, Sequence
from typing import Final

import numpy as np

from axoneme.core import logs
from axoneme.core.datapath.maps import Map
from axoneme.core.errors import KernelError
from axoneme.core.net import namespaces
from axoneme.core.workloads.endpoints import Endpoint, EndpointState

log = logs.get(__name__)

_SO_NETNS_COOKIE: Final = 71  # asm-generic/socket.h; Python does not name it


def cookie_of(path: str) -> int:
    """The cookie of a namespace, as `bpf_get_netns_cookie` has it. Raises `KernelError`."""
    with namespaces.opened(path) as namespace:
        return namespace.visit(_own_cookie)


def _own_cookie() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        try:
            return int.from_bytes(one.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
        except OSError as error:
            raise KernelError(f"no cookie of a network namespace: {error.strerror}") from error


class NamespaceOperations:
    """Makes the map `lb_namespaces` hold the endpoints of this node, for a reconciler of the table `endpoints`."""

    def __init__(self, table: Callable[[], Map], cookie: Callable[[str], int] = cookie_of) -> None:
        self._table = table
        self._cookie = cookie
        self._cookies: dict[int, int] = {}

    async def update(self, rows: Sequence[Endpoint]) -> dict[Hashable, Exception]:
        failures: dict[Hashable, Exception] = {}
        for row in rows:
            if row.state is not EndpointState.READY or not row.netns:
                continue
            try:
                cookie = await asyncio.to_thread(self._cookie, row.netns)
            except KernelError as error:
                failures[row.id] = error
                continue
            self._forget(row.id, cookie)
            self._cookies[row.id] = cookie
            self._table().update(cookie, row.id)
        return failures

    async def delete(self, rows: Sequence[Endpoint]) -> None:
        for row in rows:
            self._forget(row.id)

    async def prune(self, rows: Sequence[Endpoint]) -> None:
        ids = {row.id for row in rows}
        keep = {cookie: number for number, cookie in self._cookies.items() if number in ids}
        self._table().reconcile(
            np.fromiter(keep, np.uint64, len(keep)), np.fromiter(keep.values(), np.uint32, len(keep))
        )

    def _forget(self, number: int, cookie: int | None = None) -> None:
        old = self._cookies.pop(number, None)
        # A new endpoint of the same namespace may have come before the old one is gone.
        if old is not None and old != cookie and old not in self._cookies.values():
            self._table().delete(old)
