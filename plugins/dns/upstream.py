"""Questions to the servers that were asked, from sockets of the host's own, under the mark of a proxy."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import ip_address

from axoneme.core.datapath.proxies import MARK_FROM_PROXY
from axoneme.plugins.dns.datagrams import LARGEST, Place
from axoneme.plugins.dns.messages import Question, answers

_SO_MARK = 36  # asm-generic/socket.h


def _socket(server: Place, kind: socket.SocketKind) -> socket.socket:
    family = socket.AF_INET if ip_address(server[0]).version == 4 else socket.AF_INET6
    made = socket.socket(family, kind)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, _SO_MARK, MARK_FROM_PROXY)
    return made


async def ask_udp(wire: bytes, question: Question, server: Place) -> bytes:
    """The answer. Each question has a socket, and so a port, of its own (RFC 5452 9.2). Raises `OSError`."""
    loop = asyncio.get_running_loop()
    with _socket(server, socket.SOCK_DGRAM) as asking:
        await loop.sock_connect(asking, server)
        await loop.sock_sendall(asking, wire)
        while True:
            answer = await loop.sock_recv(asking, LARGEST)
            if answers(answer, question):
                return answer


class Stream:
    """A TCP connection to a server, made with its first question and used for the client's further ones (RFC 7766)."""

    def __init__(self, server: Place) -> None:
        self._server = server
        self._pair: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, wire: bytes, question: Question) -> bytes:
        """Raises `OSError` or `EOFError`; the connection is made anew for the next question then."""
        try:
            reader, writer = self._pair or await self._connect()
            await write_message(writer, wire)
            while not answers(answer := await read_message(reader), question):
                pass
        except BaseException:
            self.close()
            raise
        return answer

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        made = _socket(self._server, socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(made, self._server)
        except BaseException:
            made.close()
            raise
        self._pair = await asyncio.open_connection(sock=made)
        return self._pair

    def close(self) -> None:
        if self._pair is not None:
            self._pair[1].close()
            self._pair = None


async def read_message(reader: asyncio.StreamReader) -> bytes:
    """One message with its length before it (RFC 1035 4.2.2). Raises `EOFError` at the end of the stream."""
    (length,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(length)


async def write_message(writer: asyncio.StreamWriter, wire: bytes) -> None:
    writer.write(struct.pack("!H", len(wire)) + wire)
    await writer.drain()
