"""What systemd is told, and asks: readiness, reloads, status and the watchdog. Does nothing when nobody listens.

The protocol is that of sd_notify(3): datagrams of `KEY=value` lines to the socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Notifier:
    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = environ.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        self._watchdog = _watchdog(environ)

    @property
    def interval(self) -> float | None:
        """Seconds between two signs of life, half of what systemd tolerates; None when it wants none."""
        return self._watchdog / 2 if self._watchdog else None

    def ready(self, status: str = "ready") -> None:
        self._send("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping; traffic flows on")

    def status(self, text: str) -> None:
        self._send(f"STATUS={text}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        message = "\n".join(line.replace("\n", " ") for line in lines)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
                channel.setblocking(False)
                channel.sendto(message.encode(), self._address)
        except OSError:
            return  # whoever asked to be told is gone; that is no reason to fail


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Seconds after which systemd gives up on us, if it watches this process."""
    try:
        microseconds = int(environ["WATCHDOG_USEC"])
        watched = int(environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return microseconds / 1e6 if watched == os.getpid() and microseconds > 0 else None
