"""Connections to Hubble servers: unix sockets, TCP, TLS and mTLS. For the command line, and for relays towards nodes."""

from __future__ import annotations

import base64
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from attrs import frozen

from axoneme.core.errors import AxonemeError, Where

TLS_PREFIX: Final = "tls://"
DEFAULT_PORT: Final = 4244
#: Bytes of one message that a server may send: a flow has some hundred.
MAX_MESSAGE: Final = 16 << 20
#: Seconds between two pings on a silent connection, and that an answer may take.
KEEPALIVE: Final = (30, 10)


class ConnectionFailedError(AxonemeError):
    """A server that cannot be spoken to as the settings say."""


@frozen(kw_only=True)
class Tls:
    """How to speak TLS as a client.

    :param ca: files with the authorities to trust, PEM; none: those of the system.
    :param server_name: the name that the certificate must have; empty: the address's host.
    :param insecure: any certificate will do.
    """

    ca: tuple[Path, ...] = ()
    server_name: str = ""
    certificate: Path | None = None
    key: Path | None = None
    insecure: bool = False


@frozen(kw_only=True)
class Target:
    """A server's address, `unix://PATH` or `HOST[:PORT]`, and how to speak with it.

    :param basic: user and password, sent with each call; only over TLS.
    """

    address: str
    tls: Tls | None = None
    basic: tuple[str, str] | None = None


def open_channel(target: Target, *, aio: bool = False) -> Any:
    """A gRPC channel; it connects with the first call. Reads the files of the TLS settings now.

    :raises ConnectionFailedError: when they cannot be read, or contradict each other.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would write to standard error by itself
    import grpc
    from grpc import aio as grpc_aio

    make: Any = grpc_aio if aio else grpc
    options = _options(target)
    if target.tls is None:
        if target.basic is not None:
            raise ConnectionFailedError(
                "a password is only sent over TLS", hint="use --tls, or a tls:// address"
            )
        return make.insecure_channel(target.address, options=options)
    credentials = _credentials(grpc, target, target.tls)
    return make.secure_channel(target.address, credentials, options=options)


def _options(target: Target) -> list[tuple[str, Any]]:
    seconds, timeout = KEEPALIVE
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE),
        ("grpc.keepalive_time_ms", seconds * 1000),
        ("grpc.keepalive_timeout_ms", timeout * 1000),
        ("grpc.enable_http_proxy", 0),
    ]
    if target.address.startswith("unix:"):
        # gRPC would send the path as the request's authority, which Go's servers refuse.
        options.append(("grpc.default_authority", "localhost"))
    if target.tls is not None and target.tls.server_name:
        options.append(("grpc.ssl_target_name_override", target.tls.server_name))
    return options


def _credentials(grpc: Any, target: Target, tls: Tls) -> Any:
    roots = _shown_certificate(target) if tls.insecure else _read_all(tls.ca) or None
    if (tls.certificate is None) != (tls.key is None):
        raise ConnectionFailedError(
            "a client certificate and its key go together, and one of them is missing"
        )
    key = _read(tls.key) if tls.key else None
    chain = _read(tls.certificate) if tls.certificate else None
    credentials = grpc.ssl_channel_credentials(
        root_certificates=roots, private_key=key, certificate_chain=chain
    )
    if target.basic is None:
        return credentials
    token = base64.b64encode(":".join(target.basic).encode()).decode()

    def authorize(_context: Any, done: Any) -> None:
        done((("authorization", f"Basic {token}"),), None)

    return grpc.composite_channel_credentials(credentials, grpc.metadata_call_credentials(authorize))


def _shown_certificate(target: Target) -> bytes:
    """The certificate that the server shows, so that it can be trusted unseen: gRPC always verifies."""
    host, port = split_address(target.address)
    try:
        return ssl.get_server_certificate((host, port), timeout=5).encode()
    except OSError as error:
        raise ConnectionFailedError(f"no TLS server answers at {target.address}: {error}") from None


def split_address(address: str, default: int = DEFAULT_PORT) -> tuple[str, int]:
    """Host and port of `HOST`, `HOST:PORT` or `[IPv6]:PORT`. Raises `ConnectionFailedError`."""
    host, colon, port = address.rpartition(":")
    if not colon or (":" in host and not host.startswith("[")):
        host, port = address, str(default)
    if not port.isdigit() or not 0 <= int(port) < 65536 or not host.strip("[]"):
        raise ConnectionFailedError(f"{address!r} is no address", hint="it can be HOST:PORT or unix:///PATH")
    return host.strip("[]"), int(port)


def _read_all(files: Sequence[Path]) -> bytes:
    texts = [_read(path) for path in files]
    for path, text in zip(files, texts, strict=True):
        if b"-----BEGIN CERTIFICATE-----" not in text:
            raise ConnectionFailedError("there is no PEM encoded certificate in it", where=Where(str(path)))
    return b"\n".join(texts)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConnectionFailedError(f"cannot be read: {error.strerror}", where=Where(str(path))) from None
