"""Proxies of this node: how a plugin's proxy gets the connections that a decision sends through it.

The decision says "only through proxy N" (`OWED_PROXY`, `packet.proxy_port`). A plugin that has the proxy puts its sockets
into the map `proxies` and brings the two stages that `proxy_stages` returns. Its sockets see both addresses of a connection
as the client has them (they are transparent, ip(7)), and what they answer comes from the address that was asked.
"""

from __future__ import annotations

import enum
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from axoneme.core.datapath.composer import shared_folder
from axoneme.core.records import Phase, Runs, Stage

if TYPE_CHECKING:
    from axoneme.core.datapath.maps import Map

#: The marks of packets; `bpf/abi.h` has them as well.
MARK_TO_PROXY, MARK_FROM_PROXY, MARK_MASK = 0x200, 0xB00, 0xF00

#: ip(7) and linux/in6.h; the socket module lacks them.
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75


class Proxy(enum.IntEnum):
    """The proxies by number: which one a layer 7 rule needs. `LISTENER` is one that a rule names."""

    DNS = 1
    HTTP = 2
    TLS = 3
    KAFKA = 4
    OTHER = 5
    LISTENER = 6


def proxy_stages(first: Proxy, last: Proxy | None = None) -> Iterator[Stage]:
    """The stages of a plugin that has the proxies with these numbers."""
    folder = shared_folder() / "proxy"
    defines = {"PROXY_FIRST": int(first), "PROXY_LAST": int(first if last is None else last)}
    yield Stage(
        name="redirect",
        source=folder / "redirect.c",
        attach=("from_workload", "to_workload", "from_network"),
        phase=Phase.REDIRECT,
        runs=Runs.FIRST,
        maps=("proxies",),
        defines=defines,
    )
    yield Stage(
        name="steer",
        source=folder / "steer.c",
        attach=("sk_lookup",),
        phase=Phase.REDIRECT,
        maps=("proxies", "connections4", "connections6", "links", "ipcache4", "ipcache6"),
        defines=defines,
    )


def transparent(family: int, kind: socket.SocketKind, protocol: int = 0) -> socket.socket:
    """A socket that may speak with any address. Needs CAP_NET_ADMIN.

    :param family: 4 or 6.
    """
    made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind, protocol)
    try:
        made.setblocking(False)
        if family == 4:
            made.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        else:
            made.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            if kind != socket.SOCK_RAW:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    except BaseException:
        made.close()
        raise
    return made


def register(proxies: Map, number: Proxy, family: int, listening: socket.socket) -> None:
    """From now on connections to proxy `number` arrive at this socket. It leaves the map by itself when it is closed."""
    protocol = socket.IPPROTO_TCP if listening.type == socket.SOCK_STREAM else socket.IPPROTO_UDP
    key = {"proxy": int(number), "protocol": int(protocol), "family": family}
    proxies.update(key, listening.fileno())
