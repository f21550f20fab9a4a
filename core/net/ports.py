"""TCP ports that go from one server of this process to the next.

While a changed configuration comes into force, a plugin's new server is started before its old one is stopped, and if anything
of the new configuration fails, it is the old one that stays. So both may listen at once, and share the port (`SO_REUSEPORT`,
socket(7)). Sharing is only for servers that say that they are the same; that a port belongs to somebody else is still an error.
"""

from __future__ import annotations

import errno
import os
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

#: Who holds a port, how often.
_holders: Final[dict[int, Counter[str]]] = {}


@contextmanager
def held(owner: str, host: str, port: int) -> Iterator[None]:
    """Holds a port for a server that listens with `SO_REUSEPORT`; 0 is any that is free, and needs no holding.

    :param owner: the same for a server and for the one that replaces it.
    :raises OSError: EADDRINUSE, or what else there is against this address.
    """
    if not port:
        yield
        return
    holders = _holders.setdefault(port, Counter())
    if +holders and not holders[owner]:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    if not +holders:
        bind(host, port, shared=False).close()  # sharing alone would not tell that it is another program's
    holders[owner] += 1
    try:
        yield
    finally:
        holders[owner] -= 1


def bind(host: str, port: int, *, shared: bool = True) -> socket.socket:
    """A listening TCP socket; an empty host, or `::`, is all addresses of both families. Raises `OSError`."""
    both = host in ("", "::") and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both or ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port), family=family, dualstack_ipv6=both, backlog=128, reuse_port=shared
    )
