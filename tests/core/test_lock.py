from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from axoneme.core.errors import AxonemeError, LockedError
from axoneme.core.lock import FILE, StateLock


def test_the_holder_is_named_and_closing_lets_others_in(tmp_path: Path) -> None:
    lock = StateLock(tmp_path)
    with pytest.raises(LockedError, match=f"another agent, process {os.getpid()}, uses this state folder"):
        StateLock(tmp_path)
    lock.close()
    lock.close()
    StateLock(tmp_path).close()


def test_a_holder_that_was_killed_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time; from axoneme.core.lock import StateLock;"
        "lock = StateLock(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(LockedError, match=f"process {holder.pid}"):
        StateLock(tmp_path)
    holder.kill()
    holder.wait()
    holder.stdout.close()
    StateLock(tmp_path).close()
    assert (tmp_path / FILE).stat().st_mode & 0o777 == 0o600


def test_who_cannot_write_the_number_still_holds_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no reason not to run."""

    def full(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    lock = StateLock(tmp_path)
    with pytest.raises(LockedError, match="another agent, process unknown"):
        StateLock(tmp_path)
    lock.close()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(AxonemeError, match="cannot lock the state folder: No such file or directory"):
        StateLock(tmp_path / "nowhere")
