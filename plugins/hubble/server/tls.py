"""TLS 1.3 in front of a gRPC server.

gRPC's Python interface cannot refuse TLS 1.2. So the standard library accepts the connections and checks the clients'
certificates, and passes the plain bytes on to the gRPC server's private unix socket, holding each side back while the
other one is slow. Nothing of a client reaches the gRPC server before the handshake is over.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Final

from axoneme.core import logs
from axoneme.core.errors import AxonemeError, Where
from axoneme.plugins.hubble.server.config import ServerTls

_log = logs.get(__name__)

#: Seconds that a handshake may take.
HANDSHAKE: Final = 10.0
#: Connections at the same time, those whose handshake is under way included; further ones wait to be accepted.
CONNECTIONS: Final = 1024


class CertificateError(AxonemeError):
    """Certificates or keys that cannot be used."""


class Certificates:
    """The TLS context of the files as they are now."""

    def __init__(self, files: ServerTls) -> None:
        self._files = files
        self._context: ssl.SSLContext | None = None
        self._seen: tuple[object, ...] = ()
        #: Why the newest files are not in use, or an empty text.
        self.problem = ""

    def context(self) -> ssl.SSLContext:
        """Reads the files again if they changed. If they cannot be used, the last good ones stay in force.

        :raises CertificateError: when there are no good ones yet.
        """
        seen = self._stat()
        if self._context is not None and seen == self._seen:
            return self._context
        try:
            self._context, self._seen, self.problem = self._load(), seen, ""
        except CertificateError as error:
            if self._context is None:
                raise
            if self.problem != str(error):
                _log.warning("new certificates cannot be used; the old ones stay in force", reason=str(error))
            self.problem = str(error)
        return self._context

    def _stat(self) -> tuple[object, ...]:
        paths = [self._files.certificate, self._files.key, *self._files.client_ca]
        return tuple(_version(path) for path in paths if path is not None)

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        assert self._files.certificate is not None
        try:
            # Without a password given, an encrypted key would make OpenSSL ask the terminal.
            context.load_cert_chain(self._files.certificate, self._files.key, password=lambda: b"")
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"certificate and key cannot be used: {_reason(error)}",
                where=Where(str(self._files.certificate)),
            ) from None
        for path in self._files.client_ca:
            try:
                context.load_verify_locations(path)
            except (OSError, ValueError) as error:
                raise CertificateError(
                    f"the authorities cannot be used: {_reason(error)}", where=Where(str(path))
                ) from None
        if self._files.client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def _version(path: Path) -> tuple[object, ...]:
    try:
        status = path.stat()
    except OSError:
        return (path, None)
    return (path, status.st_mtime_ns, status.st_ino, status.st_size)


def _reason(error: Exception) -> str:
    return getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)


class TlsListener:
    """Accepts TLS connections and passes their bytes on to a unix socket.

    :param backend: the path of the unix socket of the server behind it.
    """

    def __init__(self, listener: socket.socket, certificates: Certificates, backend: Path) -> None:
        self._listener = listener
        self._certificates = certificates
        self._backend = backend
        self._free = asyncio.Semaphore(CONNECTIONS)

    async def run(self) -> None:
        """Until cancelled; then all connections are closed."""
        self._listener.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as connections:
                while True:
                    await self._free.acquire()
                    try:
                        accepted, peer = await loop.sock_accept(self._listener)
                    except OSError as error:  # of one connection, or no file descriptor is left
                        self._free.release()
                        _log.debug("a connection could not be accepted", error=logs.describe(error))
                        await asyncio.sleep(0.05)
                        continue
                    except BaseException:
                        self._free.release()
                        raise
                    connections.create_task(self._serve(accepted, str(peer[0])))
        finally:
            self._listener.close()

    async def _serve(self, accepted: socket.socket, peer: str) -> None:
        try:
            await self._bridge(accepted, self._certificates.context())
        except (OSError, CertificateError) as error:  # ssl.SSLError is an OSError
            accepted.close()
            _log.debug("a TLS connection was refused", peer=peer, reason=str(error))
        except Exception as error:  # noqa: BLE001 - one connection must not end the others
            accepted.close()
            _log.error("a TLS connection failed", peer=peer, error=error)
        finally:
            self._free.release()

    async def _bridge(self, accepted: socket.socket, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        front, back = _Side(), _Side()
        front.other, back.other = back, front
        with contextlib.ExitStack() as closing:
            closing.callback(front.close)
            closing.callback(back.close)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(
                lambda: front, accepted, ssl=context, ssl_handshake_timeout=HANDSHAKE
            )
            await loop.create_unix_connection(lambda: back, str(self._backend))
            await asyncio.wait([front.closed, back.closed], return_when=asyncio.FIRST_COMPLETED)


class _Side(asyncio.Protocol):
    """One end of a bridge: what it reads goes to the other one."""

    def __init__(self) -> None:
        self.other: _Side = self
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None
        self._early = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._early:
            transport.write(self._early)
            self._early = b""
        if self.other._transport is None:
            transport.pause_reading()  # until there is somebody to pass it to
        else:
            self.other._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.other.write(data)

    def write(self, data: bytes) -> None:
        """Before there is a connection, at most one piece comes: the reader is paused then."""
        if self._transport is None:
            self._early += data
        else:
            self._transport.write(data)

    def pause_writing(self) -> None:
        if self.other._transport is not None:
            self.other._transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other._transport is not None:
            self.other._transport.resume_reading()

    def eof_received(self) -> bool:
        return False  # HTTP/2 has no half-closed connections

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
