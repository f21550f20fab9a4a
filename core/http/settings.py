"""Where a plugin listens for HTTP. The classes are parts of plugins' configuration sections."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from attrs import frozen

from axoneme.core.errors import ConfigError
from axoneme.core.structure import setting

_ADDRESS = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<v4>[0-9.]+)|localhost|):(?P<port>[0-9]{1,5})")


@frozen(kw_only=True)
class TlsSettings:
    """Certificates are read again when their files change."""

    certificate: Path | None = setting(None, help="PEM file with the certificate and its chain; null: no TLS")
    key: Path | None = setting(None, help="PEM file with the certificate's key")
    client_ca: Path | None = setting(None, help="PEM file; clients must have a certificate that it signed")


@frozen
class ListenAddress:
    """An address and a port (0: any that is free)."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> ListenAddress:
    """`127.0.0.1:9962`, `[::1]:9962`, `localhost:9962`, or `:9962` for all addresses.

    :raises ConfigError: for anything else; names are not looked up.
    """
    found = _ADDRESS.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        host = found["v6"] or found["v4"] or ("127.0.0.1" if text.startswith("localhost") else "::")
        ipaddress.ip_address(host)
        port = int(found["port"])
        if port > 65535:
            raise ValueError
    except ValueError:
        raise ConfigError(f"{text!r} is no address to listen on", hint="write it as 127.0.0.1:9962") from None
    return ListenAddress(host, port)


def check_address(text: str) -> None:
    """For the validation of configuration classes: raises `ValueError` if it is no address to listen on."""
    try:
        parse_address(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
