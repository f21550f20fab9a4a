"""The plugin's stages: which C goes to which attach point.

What packets and sockets have in common, the choice of a backend, is one text per family (`choose.h`). A packet's program has
each text once per family by itself; those of sockets get it here, because an IPv6 socket may speak IPv4 (RFC 4291 2.5.5.2).
"""

from __future__ import annotations

import enum
import ipaddress
import os
import re
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from axoneme.core.records import Phase, Runs, Stage
from axoneme.plugins.lb.maps import Algorithm, BackendFlag, Scope, ServiceFlag

if TYPE_CHECKING:
    from axoneme.plugins.lb.config import LbConfig

_FOLDER = Path(__file__).parent / "stages"

_CHOICE = ("lb_slots", "lb_turns", "lb_loads", "lb_affinity", "lb_members")
_PER_FAMILY = ("lb_services", "lb_backends", "lb_sources")


def numbers() -> dict[str, int]:
    """The numbers of the maps' rows by the names that the C has for them."""
    named: dict[str, type[enum.IntEnum] | type[enum.IntFlag]] = {
        "ALGORITHM": Algorithm, "SERVICE": ServiceFlag, "BACKEND": BackendFlag, "SCOPE": Scope,
    }  # fmt: skip
    return {f"{kind}_{member.name}": int(member) for kind, members in named.items() for member in members}


def text(*names: str) -> str:
    """The files one after the other, each line with its own origin."""
    return "\n".join(f'#line 1 "lb/stages/{name}"\n{(_FOLDER / name).read_text()}' for name in names)


def stages(config: LbConfig) -> Iterator[Stage]:
    """All stages, with the configuration's constants."""
    yield Stage(
        name="translate",
        source=text("choose.h", "choose_packet.h", "direct.h", "translate.c"),
        attach=("from_workload", "from_network"),
        phase=Phase.TRANSLATE,
        runs=Runs.FIRST,
        maps=(*_CHOICE, "lb_skips", *_of_families((*_PER_FAMILY, "lb_ways"))),
        defines=numbers() | _loopback(config) | {"HASH_SEED": config.hash_seed},
    )
    if config.at_sockets:
        yield from _socket_stages(config)


#: Hooks of sockets: whether the address goes from service to backend or back, and whether the socket has one peer.
_HOOKS = {
    "connect": (True, True),
    "sendmsg": (True, False),
    "recvmsg": (False, False),
    "getpeername": (False, True),
}


def _socket_stages(config: LbConfig) -> Iterator[Stage]:
    families = (4, 6)
    for (hook, (forward, connects)), family in product(_HOOKS.items(), families):
        spoken = (4,) if family == 4 else families
        yield Stage(
            name=f"{hook}{family}",
            source=_socket_text(spoken).replace("STAGE(exchange)", f"STAGE({hook}{family})"),
            attach=(f"sock_{hook}{family}",),
            phase=Phase.TRANSLATE,
            runs=Runs.EVERY,
            defines=numbers() | {
                "FORWARD": int(forward), "CONNECTS": int(connects), "SOCKET_FAMILY": family,
                "HAS_RETVAL": int(_kernel() >= (5, 18)), "SOCKET_EVENTS": config.socket_events, "SOCKET_PLACES": config.sizes.socket_places,
            },
        )  # fmt: skip


def _socket_text(families: Iterable[int]) -> str:
    each = (f"#undef FAMILY\n#define FAMILY {family}\n{text('choose.h', 'socket.h')}" for family in families)
    return "\n".join([text("sockets.h"), *each, text("exchange.c")])


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(re.match(r"\d*", minor)[0] or 0)  # type: ignore[index]


def _of_families(names: Iterable[str]) -> Iterator[str]:
    return (f"{name}{family}" for name in names for family in (4, 6))


def _loopback(config: LbConfig) -> dict[str, int]:
    packed = ipaddress.IPv6Address(config.loopback_ipv6).packed
    words = [int.from_bytes(packed[at : at + 4], "big") for at in range(0, 16, 4)]
    return {"LOOPBACK4": int(config.loopback_ipv4)} | {
        f"LOOPBACK6_{at}": word for at, word in enumerate(words)
    }
