"""How Hubble servers listen: the part `server` of the configuration section, and the same for a relay."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from attrs import frozen

from axoneme.core.structure import setting


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address to listen on."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def split(listen: str) -> tuple[str, int]:
    """`HOST:PORT`, `[IPv6]:PORT` or `:PORT`; an empty host means all addresses. Raises `ValueError`."""
    host, colon, port = listen.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if (
        not colon
        or not port.isascii()
        or not port.isdigit()
        or int(port) > 65535
        or (":" in bare and bare == host)
    ):
        raise ValueError(f"{listen!r} is no address to listen on: it can be HOST:PORT, [IPv6]:PORT or :PORT")
    return bare, int(port)


@frozen(kw_only=True)
class ServerTls:
    """The files are looked at with each new connection; what changed is in force from then on."""

    certificate: Path | None = setting(
        None, help="the server's certificate with its chain, PEM; null: no TLS"
    )
    key: Path | None = setting(None, help="the certificate's private key, PEM")
    client_ca: tuple[Path, ...] = setting(
        (), help="authorities of the clients' certificates, PEM; empty: clients need none"
    )

    def __attrs_post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together, and one of them is missing")
        if self.client_ca and self.certificate is None:
            raise ValueError("client_ca means something only with a certificate")


@frozen(kw_only=True)
class ServerSettings:
    socket: Path | None = setting(
        None, help="the unix socket, for root and agent.socket_group; null: hubble.sock in agent.run_dir"
    )
    listen: str = setting("", help="HOST:PORT for other machines, usually :4244; empty: only the unix socket")
    tls: ServerTls = setting(ServerTls(), help="TLS 1.3 at `listen`")
    plaintext: bool = setting(
        False, help="allow `listen` without TLS beyond loopback: anybody there sees all flows"
    )
    streams: int = setting(512, help="requests that are answered at the same time", minimum=1, maximum=65_536)

    def __attrs_post_init__(self) -> None:
        if self.listen:
            check_listen(self.listen, secure=self.tls.certificate is not None, plaintext=self.plaintext)


def check_listen(listen: str, *, secure: bool, plaintext: bool) -> None:
    """Raises `ValueError` for what is no address, and for one at which others would see flows unasked."""
    host, _ = split(listen)
    if not secure and not plaintext and not is_loopback(host):
        raise ValueError(
            f"{listen} would show all flows to the network: set tls.certificate and tls.key, or plaintext: true"
        )
