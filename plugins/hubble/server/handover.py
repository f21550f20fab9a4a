"""Addresses that go from one server of this process to the next.

While a changed configuration comes into force, the new server is started before the old one is stopped, and if anything of the
new configuration fails, it is the old one that stays. So both may listen at once. Ports are shared (`SO_REUSEPORT`); a unix
socket's path leads to the newest server that runs.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Final

from axoneme.core.errors import AxonemeError

#: The servers' own paths by the path that everybody uses, the newest last.
_published: Final[dict[Path, list[Path]]] = {}
_ports: Final[Counter[int]] = Counter()
_numbers: Final = count()


def private_path(public: Path) -> Path:
    """A path beside it, for a server to bind; nobody else is told of it."""
    if public not in _published:  # what is there is of an agent that was killed
        for left in public.parent.glob(f".{public.name}.*"):
            left.unlink(missing_ok=True)
    return public.with_name(f".{public.name}.{next(_numbers)}")


def publish(public: Path, private: Path) -> None:
    """From now on the path leads to this server."""
    _published.setdefault(public, []).append(private)
    _link(public, private)


def withdraw(public: Path, private: Path) -> None:
    """The server is gone: the path leads to the one before it, or nowhere."""
    servers = _published.get(public, [])
    if private in servers:
        newest = servers[-1] == private
        servers.remove(private)
        if not servers:
            del _published[public]
            public.unlink(missing_ok=True)
        elif newest:
            _link(public, servers[-1])
    private.unlink(missing_ok=True)


def _link(public: Path, private: Path) -> None:
    """In one step: at no moment the path leads nowhere."""
    link = public.with_name(f"{private.name}.link")
    with contextlib.suppress(FileNotFoundError):
        link.unlink()
    os.link(private, link)
    os.replace(link, public)


def take_port(host: str, port: int) -> None:
    """Notes that a server is about to share this port.

    :raises AxonemeError: when it belongs to another program. (Sharing alone would not tell: two agents of root may.)
    """
    if port and not _ports[port]:
        try:
            bind(host, port, shared=False).close()
        except OSError as error:
            shown = f"[{host}]" if ":" in host else host
            raise AxonemeError(f"cannot listen on {shown}:{port}: {error.strerror or error}") from None
    _ports[port] += 1


def release_port(port: int) -> None:
    _ports[port] -= 1


def bind(host: str, port: int, *, shared: bool = True) -> socket.socket:
    """A listening TCP socket; without a host on all addresses of both families."""
    both = not host and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port), family=family, dualstack_ipv6=both, backlog=128, reuse_port=shared
    )
