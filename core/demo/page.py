"""A door to Hubble's page: the agent serves it in its own network namespace, the browser is in the machine's."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final, Self

from axoneme.core.net.namespaces import Namespace

#: The page's usual port; another one where that is taken.
PORT: Final = 12000
HOST: Final = "127.0.0.1"


class Page:
    """Listens on the machine's loopback, and passes what comes on to the same port of the loopback here.

    :ivar port: where the page has to be served.
    """

    def __init__(self, home: Namespace) -> None:
        self._socket = home.visit(_listen)
        self.port = int(self._socket.getsockname()[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._pass, sock=self._socket)
        try:
            yield
        finally:
            server.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            inner_reader, inner_writer = await asyncio.open_connection(HOST, self.port)
            await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))
        writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


def _listen() -> socket.socket:
    try:
        return socket.create_server((HOST, PORT))
    except OSError:
        return socket.create_server((HOST, 0))
