"""Sockets of other processes: whose they are, and a duplicate of one, which is the same socket to the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Collection, Iterator
from typing import Final

from attrs import frozen

_PIDFD_GETFD: Final = 438  # asm-generic/unistd.h; Linux 5.6
_libc = ctypes.CDLL(None, use_errno=True)


@frozen
class Owner:
    """A process that has a socket open.

    :param descriptor: under which number.
    """

    pid: int
    descriptor: int
    inode: int


def owners(inodes: Collection[int]) -> dict[int, Owner]:
    """One owner of each of these sockets, by inode, of those that have one in our /proc. Reads it only as far as need be."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    found: dict[int, Owner] = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if not wanted:
            break
        for descriptor, target in _descriptors(f"/proc/{pid}/fd"):
            inode = wanted.pop(target, None)
            if inode is not None:
                found[inode] = Owner(int(pid), int(descriptor), inode)
    return found


def _descriptors(folder: str) -> Iterator[tuple[str, str]]:
    """Numbers and what they are; of a process that ends meanwhile, as many as there were."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            with contextlib.suppress(OSError):
                yield name, os.readlink(f"{folder}/{name}")


@contextlib.contextmanager
def borrowed(owner: Owner) -> Iterator[socket.socket]:
    """The socket itself, by a descriptor of our own, which is closed again. Whatever its owner does meanwhile, it lives.

    :raises OSError: when it is not there any more, or we may not (CAP_SYS_PTRACE).
    """
    process = os.pidfd_open(owner.pid)
    try:
        descriptor = _libc.syscall(_PIDFD_GETFD, process, owner.descriptor, 0)
        if descriptor < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(process)
    if os.fstat(descriptor).st_ino != owner.inode:  # the number is another file's by now
        os.close(descriptor)
        raise FileNotFoundError(f"socket {owner.inode}")
    with socket.socket(fileno=descriptor) as duplicate:
        yield duplicate
