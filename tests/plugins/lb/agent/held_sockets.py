"""Sockets that stay open in another process (`lb_agents.process`), by number: what is called there between two changes."""

from __future__ import annotations

import socket

held: list[socket.socket] = []


def connect(address: str, port: int) -> tuple[int, tuple[str, int]]:
    """Number of the socket, and whom it says it is connected to."""
    one = socket.create_connection((address, port), 5)
    held.append(one)
    return len(held) - 1, one.getpeername()[:2]


def exchange(number: int, data: bytes) -> bytes | int:
    """What comes back, or the number of the error."""
    try:
        held[number].sendall(data)
        return held[number].recv(64)
    except OSError as error:
        return error.errno or 0
