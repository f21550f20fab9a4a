"""One gRPC server on a unix socket, TCP, or TCP with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import grp
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import field, frozen

from axoneme.core import logs
from axoneme.core.errors import AxonemeError, ConfigError, Where
from axoneme.core.net import ports
from axoneme.plugins.hubble.server import handover
from axoneme.plugins.hubble.server.config import ServerTls, split
from axoneme.plugins.hubble.server.tls import Certificates, TlsListener

_log = logs.get(__name__)

#: The health service's name for what the `hubble` command asks about. (It is not the gRPC service's own name.)
HEALTH_NAME: Final = "hubble.server.Observer"
#: Seconds that requests have to end when the server stops.
GRACE: Final = 1.0
#: Bytes of a request: of a filter, whatever it is made of.
MAX_REQUEST: Final = 1 << 20
#: The longest path that a unix socket's address holds (sun_path in unix(7), with its final zero).
_LONGEST_PATH: Final = 107

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_REQUEST),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", 256),  # of one connection
    ("grpc.so_reuseport", 1),  # see core/net/ports.py
    # Clients that are gone are noticed; those that ping, as relays do, are not taken for a nuisance.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
)


@frozen(kw_only=True)
class Place:
    """Where a server listens.

    :param socket: a unix socket, for root and `group`.
    :param listen: `HOST:PORT`, or empty.
    """

    socket: Path | None = None
    group: str = ""
    listen: str = ""
    tls: ServerTls = field(factory=ServerTls)


class GrpcServer:
    """gRPC services with health and reflection.

    :param handlers: generic handlers of the services.
    :param names: the services' full names, for reflection.
    """

    def __init__(self, place: Place, handlers: Sequence[Any], names: Sequence[str]) -> None:
        self._place = place
        self._handlers = handlers
        self._names = names
        self._server: Any = None
        self._health: Any = None
        self._tls: TlsListener | None = None
        self._publish: tuple[Path, Path] | None = None
        self._closing = contextlib.ExitStack()
        self.certificates = Certificates(place.tls) if place.tls.certificate else None
        #: The port that it listens on, 0 for none.
        self.port = 0

    async def start(self) -> None:
        """Listens. Raises `AxonemeError` for addresses, groups and certificates that cannot be used."""
        from grpc import aio
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        self._server = aio.server(options=_OPTIONS)
        self._server.add_generic_rpc_handlers(tuple(self._handlers))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        await self._health.set(HEALTH_NAME, health_pb2.HealthCheckResponse.SERVING)
        _add_reflection(
            self._server, [*self._names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
        )
        if self._place.socket is not None:
            self._listen_unix(self._place.socket)
        if self._place.listen:
            self._listen_tcp()
        await self._server.start()
        if self._publish is not None:
            handover.publish(*self._publish)

    async def serve(self, ready: Callable[[], None]) -> None:
        """From start to cancellation."""
        try:
            await self.start()
            ready()
            await (self._tls.run() if self._tls is not None else asyncio.Event().wait())
        finally:
            await self.stop()

    async def set_serving(self, serving: bool) -> None:
        """What health checks get to hear, by both names."""
        from grpc_health.v1 import health_pb2

        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", HEALTH_NAME):
            await self._health.set(name, status)

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(GRACE)
        self._closing.close()

    def _listen_unix(self, path: Path) -> None:
        private = handover.private_path(path)
        if len(os.fsencode(private)) > _LONGEST_PATH:
            raise AxonemeError(
                f"the path of the socket is longer than {_LONGEST_PATH - len(private.name) + len(path.name)} bytes",
                where=Where(str(path)),
            )
        owner = _group_id(self._place.group)
        before = os.umask(0o177)  # at no moment it is open to everybody
        try:
            self._server.add_insecure_port(f"unix:{private}")
        except RuntimeError as error:
            raise AxonemeError(f"cannot listen: {error}", where=Where(str(path))) from error
        finally:
            os.umask(before)
        self._closing.callback(handover.withdraw, path, private)
        os.chown(private, -1, owner)
        os.chmod(private, 0o660)
        self._publish = (path, private)

    def _listen_tcp(self) -> None:
        host, port = split(self._place.listen)
        if self.certificates is not None:
            self.certificates.context()
        try:
            self._closing.enter_context(ports.held(",".join(self._names), host, port))
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from None
        if self.certificates is None:
            shown = f"[{host or '::'}]" if ":" in (host or "::") else host
            try:
                self.port = self._server.add_insecure_port(f"{shown}:{port}")
            except RuntimeError as error:
                raise self._refused(str(error)) from error
            return
        folder = Path(tempfile.mkdtemp(prefix="axoneme-hubble-"))
        self._closing.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            listener = ports.bind(host, port)
        except OSError as error:
            raise self._refused(error.strerror or str(error)) from None
        self._closing.callback(listener.close)
        self.port = listener.getsockname()[1]
        self._server.add_insecure_port(f"unix:{folder / 'grpc.sock'}")
        self._tls = TlsListener(listener, self.certificates, folder / "grpc.sock")

    def _refused(self, reason: str) -> AxonemeError:
        return AxonemeError(
            f"cannot listen on {self._place.listen}: {reason}", hint="choose another address or port"
        )


def _group_id(name: str) -> int:
    if not name:
        return -1
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"there is no group {name!r}", hint="see agent.socket_group") from None


def _add_reflection(server: Any, names: Sequence[str]) -> None:
    """Both versions of the reflection service; their messages are the same on the wire."""
    import grpc
    from grpc_reflection.v1alpha import reflection, reflection_pb2

    both = (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")
    servicer = reflection.aio.ReflectionServicer(service_names=[*names, reflection.SERVICE_NAME])
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        tuple(grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler}) for name in both)
    )
