"""A small HTTP server on aiohttp: bounded, closed to strangers, with headers that trust nobody."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from axoneme.core import logs
from axoneme.core.errors import AxonemeError, ConfigError, Where
from axoneme.core.http.settings import ListenAddress, TlsSettings
from axoneme.core.net import ports

if TYPE_CHECKING:
    from aiohttp import web

_log = logs.get(__name__)

#: Connections at once; what comes then is closed.
CONNECTIONS: Final = 256
#: Seconds that a client has to send its first request, and that a connection may be idle between two.
PATIENCE: Final = 15.0
#: Bytes of a request's body.
BODY: Final = 64 * 1024

#: On every answer. Pages that need more say so themselves.
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class HttpServer:
    """Serves an aiohttp application until cancelled.

    :param make: makes the application, at each start.
    :param any_host: whether requests may call this server by any name. Otherwise only addresses, `localhost` and this
        node's name are taken, so that no web page can reach it by a name of its own that resolves to us.
    :ivar port: where it listens, once it does.
    """

    def __init__(
        self,
        make: Callable[[], web.Application],
        address: ListenAddress,
        tls: TlsSettings | None = None,
        *,
        any_host: bool | None = None,
        connections: int = CONNECTIONS,
    ) -> None:
        self.address = address
        self.port = 0
        self._make = make
        # The same for the server that replaces this one when the configuration changes.
        self._owner = (
            f"{getattr(make, '__module__', '')}.{getattr(make, '__qualname__', type(make).__name__)}"
        )
        self._tls = tls or TlsSettings()
        self._any_host = not address.loopback if any_host is None else any_host
        self._connections = connections
        self._fresh: set[Any] = set()

    async def run(self, ready: Callable[[], None]) -> None:
        """The service. Raises `AxonemeError` when it cannot listen."""
        from aiohttp import web

        application = self._make()
        application.middlewares.insert(0, self._guard())
        application.on_response_prepare.append(_add_headers)
        runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=PATIENCE,
            max_line_size=4096,
            max_field_size=8192,
            shutdown_timeout=1.0,
            handler_cancellation=True,
        )
        await runner.setup()
        try:
            await self._listen(runner, ready)
        finally:
            await runner.cleanup()

    async def _listen(self, runner: web.AppRunner, ready: Callable[[], None]) -> None:
        certificates = Certificates(self._tls) if self._tls.certificate else None
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(ports.held(self._owner, self.address.host, self.address.port))
                server = await asyncio.get_running_loop().create_server(
                    lambda: self._accept(runner, certificates),
                    sock=ports.bind(self.address.host, self.address.port),
                    ssl=certificates.context if certificates else None,
                    ssl_handshake_timeout=PATIENCE if certificates else None,
                )
            except OSError as error:
                raise self._refused(error) from error
            async with server:
                self.port = server.sockets[0].getsockname()[1]
                ready()
                await server.serve_forever()

    def _refused(self, error: OSError) -> AxonemeError:
        reason = error.strerror or str(error)
        return AxonemeError(
            f"cannot listen on {self.address}: {reason}", hint="choose another address or port"
        )

    def _accept(self, runner: web.AppRunner, certificates: Certificates | None) -> asyncio.Protocol:
        """The protocol of a new connection, if there is room for it."""
        if certificates is not None:
            certificates.refresh()
        assert runner.server is not None, "it was set up"
        waiting = sum(handler.transport is None for handler in self._fresh)  # for their handshake
        if waiting + len(runner.server.connections) >= self._connections:
            return _Refusal()
        handler = runner.server()
        self._fresh.add(handler)
        asyncio.get_running_loop().call_later(PATIENCE, self._expire, handler)
        return handler

    def _expire(self, handler: Any) -> None:
        """Ends a connection that has asked for nothing yet."""
        if handler in self._fresh:
            self._fresh.discard(handler)
            if handler.transport is not None:
                handler.transport.abort()

    def _guard(self) -> Any:
        from aiohttp import web

        @web.middleware
        async def guard(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            self._fresh.discard(request.protocol)
            if not self._any_host and not is_own_host(request.host):
                raise web.HTTPMisdirectedRequest(text="this server is not called so\n")
            return await handler(request)

        return guard


class _Refusal(asyncio.Protocol):
    """What a connection gets that is one too many."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.pop("Server", None)


def is_own_host(host: str) -> bool:
    """Whether a Host header names an address, `localhost` or this node."""
    name = host[1 : host.find("]")] if host.startswith("[") else host.partition(":")[0]
    if name.lower() in ("localhost", socket.gethostname().lower()):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Certificates:
    """A TLS context (1.3 and later) whose certificate follows its files.

    :raises ConfigError: files that are missing or wrong. Once it runs, a wrong file leaves the certificate as it was.
    """

    def __init__(self, tls: TlsSettings) -> None:
        self._tls = tls
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._stamp = self._stamps()
        self._load()
        if tls.client_ca is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
            try:
                self.context.load_verify_locations(tls.client_ca)
            except (OSError, ssl.SSLError) as error:
                raise _unreadable(tls.client_ca, error) from error

    def refresh(self) -> None:
        """Reads the files again if they changed. Cheap: to be called for every connection."""
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._load()
        except ConfigError as error:
            _log.warning("certificate not changed", error=str(error))

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        return tuple(_stamp(path) for path in (self._tls.certificate, self._tls.key) if path is not None)

    def _load(self) -> None:
        assert self._tls.certificate is not None, "otherwise there is no TLS"
        try:
            # One half of a new pair would spoil the context that is in use: they are tried in another one first.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._tls.certificate, self._tls.key)
            self.context.load_cert_chain(self._tls.certificate, self._tls.key)
        except (OSError, ssl.SSLError) as error:
            raise _unreadable(self._tls.certificate, error) from error


def _stamp(path: Path) -> tuple[int, int]:
    try:
        seen = path.stat()
    except OSError:
        return 0, 0
    return seen.st_mtime_ns, seen.st_ino


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"the certificate cannot be used: {error}", where=Where(str(path)))
