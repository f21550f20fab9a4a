"""Sockets of other processes: found by inode, and borrowed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from axoneme.plugins.lb.owners import Owner, borrowed, owners

pytestmark = pytest.mark.kernel


@contextmanager
def held_by_another() -> Iterator[tuple[int, socket.socket]]:
    """A socket that a child process has open, and its inode."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        child = subprocess.Popen(
            [sys.executable, "-c", "import sys; sys.stdin.read()"],
            stdin=subprocess.PIPE,
            pass_fds=[one.fileno()],
        )
        try:
            yield child.pid, one
        finally:
            child.kill()
            child.communicate()


def test_an_owner_is_found_and_its_socket_is_the_same_one() -> None:
    with held_by_another() as (pid, one):
        inode, descriptor = os.fstat(one.fileno()).st_ino, one.fileno()
        assert owners([]) == owners([1]) == {}
        found = owners([inode, 1])
        assert list(found) == [inode]
        assert found[inode].pid in (pid, os.getpid())
        with borrowed(Owner(pid, descriptor, inode)) as duplicate:
            assert duplicate.fileno() != descriptor
            duplicate.bind(("127.0.0.1", 0))
            assert one.getsockname() == duplicate.getsockname()
        assert one.getsockname()[1], "it is closed for us alone"


def test_what_is_another_file_by_now_is_not_borrowed() -> None:
    with held_by_another() as (pid, one):
        inode = os.fstat(one.fileno()).st_ino
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(FileNotFoundError), borrowed(Owner(pid, one.fileno(), inode + 1)):
            pass
        with pytest.raises(OSError, match=r"\w"), borrowed(Owner(pid, 999, inode)):
            pass
        assert len(os.listdir("/proc/self/fd")) == before, "nothing stays open"
    with pytest.raises(ProcessLookupError), borrowed(Owner(pid, 3, inode)):
        pass
