"""Paths of unix sockets that go from one server of this process to the next, as ports do by `axoneme.core.net.ports`.

While a changed configuration comes into force, the new server is started before the old one is stopped, and if anything of the
new configuration fails, it is the old one that stays. The path leads to the newest server that runs.
"""

from __future__ import annotations

import contextlib
import os
from itertools import count
from pathlib import Path
from typing import Final

#: The servers' own paths by the path that everybody uses, the newest last.
_published: Final[dict[Path, list[Path]]] = {}
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
