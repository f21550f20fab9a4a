"""The proxy's sockets: UDP and TCP, IPv4 and IPv6, registered for what the kernel sends to the DNS proxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterable

from axoneme.core import logs
from axoneme.core.datapath.maps import Map
from axoneme.core.datapath.proxies import Proxy, register, transparent
from axoneme.plugins.dns import datagrams, upstream
from axoneme.plugins.dns.datagrams import Datagram, Speaker
from axoneme.plugins.dns.messages import Question, reply
from axoneme.plugins.dns.proxy import DnsProxy, Way

log = logs.get(__name__)

#: A client's TCP connection without a question is closed after so many seconds (RFC 7766 6.2.3).
IDLE = 10.0
#: Datagrams that wait for a task, beyond the questions that may be asked at a time; more are dropped.
WAITING = 1024


class UdpServer:
    """One family's datagrams. Each question is a task of the group."""

    def __init__(self, family: int, proxy: DnsProxy, tasks: asyncio.TaskGroup, most: int) -> None:
        self._proxy, self._tasks, self._most = proxy, tasks, most + WAITING
        self._running = 0
        with contextlib.ExitStack() as made:
            self.socket = made.enter_context(datagrams.listen(family))
            self._speaker = Speaker(family)
            made.callback(self._speaker.close)
            self._close = made.pop_all().close
        asyncio.get_running_loop().add_reader(self.socket, self._read)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.socket)
        self._close()

    def _read(self) -> None:
        for datagram in datagrams.receive(self.socket):
            if self._running >= self._most:
                self._proxy.counts["busy"] += 1
                continue
            self._running += 1
            self._tasks.create_task(self._serve(datagram))

    async def _serve(self, datagram: Datagram) -> None:
        way = Way(client=datagram.client, server=datagram.server)

        async def forward(wire: bytes, question: Question) -> bytes:
            return await upstream.ask_udp(wire, question, datagram.server)

        try:
            answer = await self._proxy.answer(datagram.data, way, forward)
            if answer is not None:
                self._speaker.say(answer, datagram.server, datagram.client)
        except OSError as error:  # the client is gone, or there is no memory: it asks again
            log.debug("dns_answer_not_sent", error=error)
        except Exception as error:  # noqa: BLE001 - one question must not end the others
            log.error("dns_question_failed", error=error)
        finally:
            self._running -= 1


class TcpServer:
    """One family's connections."""

    def __init__(self, family: int, proxy: DnsProxy, most: int) -> None:
        self._proxy, self._most = proxy, most
        self._open = 0
        self.socket = transparent(family, socket.SOCK_STREAM)
        self.socket.bind(("127.0.0.1" if family == 4 else "::1", 0))
        self.socket.listen(128)
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self.socket)

    async def close(self) -> None:
        if self._server is None:
            self.socket.close()
            return
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= self._most:
                await self._converse(reader, writer)
        except (OSError, EOFError, TimeoutError):
            pass  # it is over
        except Exception as error:  # noqa: BLE001 - one client must not end the others
            log.error("dns_connection_failed", error=error)
        finally:
            self._open -= 1
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client, server = writer.get_extra_info("peername")[:2], writer.get_extra_info("sockname")[:2]
        way = Way(client=client, server=server, protocol=int(socket.IPPROTO_TCP))
        with contextlib.closing(upstream.Stream(server)) as stream:
            while True:
                async with asyncio.timeout(IDLE):
                    wire = await upstream.read_message(reader)
                answer = await self._proxy.answer(wire, way, stream.ask) or reply(wire, "SERVFAIL")
                if answer is None:
                    return
                await upstream.write_message(writer, answer)


@contextlib.asynccontextmanager
async def serving(
    proxies: Map,
    proxy: DnsProxy,
    tasks: asyncio.TaskGroup,
    *,
    families: Iterable[int],
    questions: int,
    connections: int,
) -> AsyncIterator[None]:
    """The sockets of these families, registered, until the block ends. Raises `OSError`, or `BpfError` where the map refuses one."""
    async with contextlib.AsyncExitStack() as owned:
        for family in families:
            udp = UdpServer(family, proxy, tasks, questions)
            owned.callback(udp.close)
            tcp = TcpServer(family, proxy, connections)
            owned.push_async_callback(tcp.close)
            await tcp.start()
            for each in (udp.socket, tcp.socket):
                register(proxies, Proxy.DNS, family, each)
        yield
