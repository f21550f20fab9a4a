"""Runs a command as a workload: in its network namespace, with everything else as the caller has it."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from axoneme.core.errors import AxonemeError
from axoneme.core.net.namespaces import FOLDER, Namespace, opened

_CLONE_NEWNET, _CLONE_NEWNS = 0x40000000, 0x00020000
_MS_BIND, _MS_REC, _MS_SLAVE = 4096, 16384, 1 << 19

#: What a supervisor or a terminal sends to make a program end or look at its configuration again.
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

#: As shells have it: the command was not found, could not be executed, was killed by signal n (128 + n).
NOT_FOUND, NOT_EXECUTABLE, KILLED = 127, 126, 128

_AWAITED = (*FORWARDED, signal.SIGCHLD)
_SENT_BY_PROCESS = 0  # si_code: SI_USER, or less for others that are sent by processes

_ETC_NETNS = Path("/etc/netns")


class RunError(AxonemeError):
    """A command that cannot be started. `code` is what a shell would exit with."""

    def __init__(self, message: str, *, code: int = NOT_EXECUTABLE) -> None:
        super().__init__(message)
        self.code = code


def run(netns: str, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> int:
    """Runs a command in a network namespace until it ends; returns its exit code, as a shell would give it.

    Signals that reach this process meanwhile go to the command. As with `ip netns exec`, files in /etc/netns/NAME are
    seen by the command in place of those in /etc, each in a mount namespace of its own. To be called in the main thread;
    raises `NamespaceError` and `RunError`.
    """
    if not command:
        raise RunError("there is no command to run")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would never come
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
    try:
        with opened(netns) as namespace:
            child = _start(
                namespace, list(command), dict(os.environ if environment is None else environment), mask
            )
        return _attend(child)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start(namespace: Namespace, command: list[str], environment: dict[str, str], mask: Iterable[int]) -> int:
    """Forks, and executes the command in the child; returns its process number once it is executed.

    The pipe closes when the command takes over. Before that it brings what went wrong.
    """
    overlay = _overlay(namespace.path)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if not child:
        _become(namespace, overlay, command, environment, writing, mask)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        failure = pipe.read().decode()
    if failure:
        os.waitpid(child, 0)
        code, _, text = failure.partition(" ")
        raise RunError(text, code=int(code))
    return child


def _become(
    namespace: Namespace,
    overlay: list[tuple[Path, Path]],
    command: list[str],
    environment: dict[str, str],
    report: int,
    mask: Iterable[int],
) -> None:
    """In the child: never returns."""
    try:
        _call("setns", namespace.descriptor, _CLONE_NEWNET)
        if overlay:
            _lay_over(overlay)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Python ignores it, and what is ignored stays so in the command.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execvpe(command[0], command, environment)  # noqa: S606 no shell is what is wanted
    except FileNotFoundError:
        os.write(report, f"{NOT_FOUND} there is no command {command[0]}".encode())
    except (OSError, ValueError) as error:
        os.write(report, f"{NOT_EXECUTABLE} cannot run {command[0]}: {error}".encode())
    finally:
        os._exit(NOT_EXECUTABLE)


def _overlay(path: str) -> list[tuple[Path, Path]]:
    """The files of /etc/netns/NAME and what each of them covers."""
    folder = _ETC_NETNS / Path(path).name
    if Path(path).resolve().parent != FOLDER.resolve() or not folder.is_dir():
        return []
    return [
        (file, Path("/etc") / file.name)
        for file in sorted(folder.iterdir())
        if (Path("/etc") / file.name).exists()
    ]


def _lay_over(overlay: list[tuple[Path, Path]]) -> None:
    _call("unshare", _CLONE_NEWNS)
    # Mounts of the host still arrive, ours don't leave.
    _call("mount", b"", b"/", b"none", _MS_SLAVE | _MS_REC, None)
    for source, target in overlay:
        _call("mount", bytes(source), bytes(target), b"none", _MS_BIND, None)


def _call(name: str, *arguments: object) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _attend(child: int) -> int:
    """Waits for the child, passing signals on; returns its exit code.

    What a terminal sends (Ctrl-C) has reached the command already, which is in the same process group.
    """
    while True:
        received = signal.sigwaitinfo(_AWAITED)
        if received.si_signo != signal.SIGCHLD:
            if received.si_code <= _SENT_BY_PROCESS:
                os.kill(child, received.si_signo)  # it is not waited for yet, so the number is still its own
            continue
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else KILLED - code
