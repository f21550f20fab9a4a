"""Named network namespaces, as `ip netns` keeps them: files in /run/netns that hold a namespace alive.

A namespace is entered by a thread made for the visit, never by a thread that does other work: whoever forgets to come
back, or cannot, takes nobody along. That costs 0.1 ms, a helper process 20.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from attrs import field, frozen

from axoneme.core.errors import KernelError

T = TypeVar("T")

#: Where `ip netns` keeps its namespaces, and so do we.
FOLDER = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 4096, 16384, 1 << 20
_MNT_DETACH = 2
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}")

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(KernelError):
    """A network namespace that cannot be made, found or entered."""


@frozen
class Namespace:
    """An open network namespace. It stays alive, and stays the same one, while it is open.

    :param identity: device and inode number, which tell whether two namespaces are the same one.
    """

    path: str
    descriptor: int
    identity: tuple[int, int]
    _closed: list[bool] = field(factory=list, repr=False)

    def close(self) -> None:
        if not self._closed:
            self._closed.append(True)
            os.close(self.descriptor)

    def visit(self, function: Callable[[], T]) -> T:
        """Calls a function in the namespace, in a thread of its own, and returns or raises what it does."""
        return _in_thread(lambda: self._enter(function))

    def _enter(self, function: Callable[[], T]) -> T:
        _check(_libc.setns(self.descriptor, _CLONE_NEWNET), self.path)
        return function()


def locate(netns: str) -> str:
    """The path of a namespace given as path or as a name of `ip netns`. Raises `NamespaceError` for a bad name."""
    if netns.startswith("/"):
        return netns
    if not _NAME.fullmatch(netns):
        raise NamespaceError(
            f"{netns!r} is neither the path nor the name of a network namespace",
            hint="give a path such as /run/netns/NAME or /proc/PID/ns/net",
        )
    return str(FOLDER / netns)


@contextlib.contextmanager
def opened(netns: str) -> Iterator[Namespace]:
    """An open namespace, by path or name. Raises `NamespaceError` when there is none."""
    namespace = open_namespace(netns)
    try:
        yield namespace
    finally:
        namespace.close()


def open_namespace(netns: str) -> Namespace:
    """As `opened`, for those who close it themselves."""
    path = locate(netns)
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise NamespaceError(f"there is no network namespace {path!r}: {reason}") from error
    try:
        kind = fcntl.ioctl(descriptor, _NS_GET_NSTYPE)
    except OSError:
        kind = 0
    if kind != _CLONE_NEWNET:
        os.close(descriptor)
        raise NamespaceError(
            f"{path} is not a network namespace", hint="is it the file that `ip netns` made?"
        )
    status = os.fstat(descriptor)
    return Namespace(path, descriptor, (status.st_dev, status.st_ino))


def stay_in(netns: str) -> None:
    """Moves the calling thread to a namespace, for good. Only for threads of one's own making."""
    with opened(netns) as namespace:
        _check(_libc.setns(namespace.descriptor, _CLONE_NEWNET), namespace.path)


@contextlib.contextmanager
def inside(netns: str) -> Iterator[Namespace]:
    """The calling thread is in a namespace meanwhile, and so are the threads and processes that it makes. Gives the one that
    it was in before, for visits.
    """
    with opened("/proc/thread-self/ns/net") as before:
        stay_in(netns)
        try:
            yield before
        finally:
            _check(_libc.setns(before.descriptor, _CLONE_NEWNET), before.path)


def host_identity() -> tuple[int, int]:
    """The identity of the namespace that the calling thread is in."""
    status = os.stat("/proc/thread-self/ns/net")
    return status.st_dev, status.st_ino


def identity_of(path: str) -> tuple[int, int] | None:
    """The identity of the namespace at a path; None when there is nothing, or nothing that is one."""
    try:
        with opened(path) as namespace:
            return namespace.identity
    except NamespaceError:
        return None


def create(name: str, prepare: Callable[[], None] = lambda: None) -> str:
    """Makes a namespace, calls `prepare` in it, and only then gives it its name. Returns its path.

    Raises `NamespaceError` when the name is taken; that namespace is not touched.
    """
    path = Path(locate(name))
    _share_folder(path.parent)
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    except FileExistsError:
        raise NamespaceError(f"there is a network namespace {name} already") from None
    try:
        _in_thread(lambda: _unshare_onto(path, prepare))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return str(path)


def delete(name: str) -> bool:
    """Takes a namespace's name away; it ends when nobody is in it. False when there is none."""
    path = locate(name)
    if _libc.umount2(path.encode(), _MNT_DETACH) and ctypes.get_errno() not in (errno.EINVAL, errno.ENOENT):
        _check(-1, path)
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def names() -> list[str]:
    """The names of all namespaces of `ip netns`."""
    try:
        return sorted(os.listdir(FOLDER))
    except FileNotFoundError:
        return []


def _unshare_onto(path: Path, prepare: Callable[[], None]) -> None:
    _check(_libc.unshare(_CLONE_NEWNET), str(path))
    prepare()
    _check(_libc.mount(b"/proc/thread-self/ns/net", bytes(path), b"none", _MS_BIND, None), str(path))


def _share_folder(folder: Path) -> None:
    """What `ip netns` does: the folder is a shared mount, so that a namespace's removal is seen in all mount namespaces.

    A new name is then visible in them, and, above all, does not stay mounted there after it was removed here.
    """
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = bytes(folder)
    if _libc.mount(b"", path, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    if ctypes.get_errno() == errno.EINVAL:  # not a mount point yet
        _check(_libc.mount(path, path, b"none", _MS_BIND | _MS_REC, None), str(folder))
    _check(_libc.mount(b"", path, b"none", _MS_SHARED | _MS_REC, None), str(folder))


def _check(result: int, path: str) -> None:
    if result:
        code = ctypes.get_errno()
        hint = "this needs CAP_SYS_ADMIN" if code == errno.EPERM else None
        raise NamespaceError(f"network namespace {path}: {os.strerror(code)}", hint=hint)


def _in_thread(function: Callable[[], T]) -> T:
    """Calls a function in a new thread, waits, and returns or raises what it does."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 it is raised again, in the thread that waits
            errors.append(error)

    thread = threading.Thread(target=run, name="axoneme-netns")
    thread.start()
    thread.join()
    if errors:
        raise errors.pop()
    return results.pop()
