"""The bpf file system: where the kernel keeps pinned objects."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from axoneme.core.datapath.uapi import BPF_FS_MAGIC
from axoneme.core.errors import KernelError

STANDARD = Path("/sys/fs/bpf")


class _Statfs(ctypes.Structure):
    """`struct statfs` of 64-bit Linux: only its first word, the file system's magic number, is looked at."""

    _fields_ = [("f_type", ctypes.c_long), ("rest", ctypes.c_byte * 248)]


def is_bpffs(path: Path) -> bool:
    """Whether this existing path lies in a bpf file system."""
    answer = _Statfs()
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), ctypes.byref(answer)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return bool(answer.f_type & 0xFFFFFFFF == BPF_FS_MAGIC)


def mount_bpffs(path: Path) -> None:
    """Mounts a bpf file system on this existing folder, for root only. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", os.fsencode(path), b"bpf", ctypes.c_ulong(0), b"mode=0700") != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))


def ensure_folder(folder: Path, standard: Path = STANDARD) -> None:
    """Makes the folder inside a bpf file system; mounts one at the standard place if nothing is mounted there.

    :raises KernelError: when the folder is elsewhere, or mounting or making it is refused.
    """
    try:
        if folder.is_relative_to(standard):
            _ensure_mounted(standard)
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not is_bpffs(existing):
            raise KernelError(
                f"{folder} is not in a bpf file system",
                hint=f"choose a folder below {standard}, or mount one: mount -t bpf bpf {folder}",
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise KernelError(f"cannot use {folder} for pins: {error.strerror}", hint="it needs root") from error


def _ensure_mounted(standard: Path) -> None:
    # A second mount would hide the pins of the first, so only one process at a time may look and mount.
    with _locked(standard):
        if not is_bpffs(standard):
            mount_bpffs(standard)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    fd = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
