"""One agent per state folder: a lock that the kernel gives back when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final

from axoneme.core.errors import AxonemeError, LockedError, Where

FILE: Final = "agent.lock"


class StateLock:
    """The lock of a state folder, held until closed.

    :raises LockedError: when somebody holds it; the message names the process.
    :raises AxonemeError: when the lock's file cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AxonemeError(
                f"cannot lock the state folder: {error.strerror}",
                where=Where(str(self.path)),
                hint="run the agent as root, or give it a folder of its own in which it can write: agent.state_dir",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(descriptor)
            raise LockedError(
                f"another agent, process {holder}, uses this state folder",
                where=Where(str(folder)),
                hint="stop it, or give this one an agent.state_dir of its own",
            ) from None
        self._descriptor = descriptor
        with contextlib.suppress(OSError):  # the disk is full: only others would like to know who we are
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Lets others in. The file stays: removing it would let two hold a lock each."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
