"""Gives up what the agent does not need: capabilities, for itself and for all that it starts.

Done by `axoneme agent` before any other thread exists, because Linux keeps capabilities per thread; an embedding program's
privileges are its own affair. See capabilities(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from axoneme.core.errors import ConfigError, KernelError

#: linux/capability.h, in the order of the bits.
NAMES: Final = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip

_VERSION_3: Final = 0x20080522
_PR_CAPBSET_DROP: Final = 24
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
_LAST: Final = Path("/proc/sys/kernel/cap_last_cap")


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("effective", "permitted", "inheritable")]


def mask(names: Iterable[str]) -> int:
    """The bits of these capabilities; the prefix `cap_` is optional. Raises `ConfigError` for unknown ones."""
    bits = 0
    for name in names:
        short = name.lower().removeprefix("cap_")
        if short not in NAMES:
            raise ConfigError(
                f"there is no capability {name!r}", hint="see capabilities(7); write them like net_admin"
            )
        bits |= 1 << NAMES.index(short)
    return bits


def effective(thread: str = "self") -> int:
    """The capabilities of a thread of this process, as bits."""
    folder = Path("/proc/self") if thread == "self" else Path("/proc/self/task", thread)
    lines = (folder / "status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("CapEff:")).split()[1], 16)


def missing(names: Iterable[str]) -> list[str]:
    """Which of these capabilities this process lacks, as `CAP_…`."""
    have = effective()
    return [f"CAP_{name.upper()}" for name in names if not have & mask([name])]


def drop(keep: Iterable[str]) -> None:
    """Keeps these capabilities (as far as they are there) and loses all others for good, children included.

    :raises ConfigError: an unknown name.
    :raises KernelError: the kernel refuses, or other threads exist, which would keep what they have.
    """
    kept = mask(keep)
    if len(os.listdir("/proc/self/task")) > 1:
        raise KernelError(
            "privileges cannot be dropped: other threads run already",
            hint="report this; see agent.privileges",
        )
    libc = ctypes.CDLL(None, use_errno=True)
    if effective() & mask(["setpcap"]):
        for number in range(int(_LAST.read_text()) + 1):
            if not kept >> number & 1:
                _check(libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0), "bounding set")
    _check(libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient set")
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    _set(libc, kept & effective())


def _set(libc: ctypes.CDLL, bits: int) -> None:
    header = _Header(_VERSION_3, 0)
    low, high = bits & 0xFFFFFFFF, bits >> 32
    words = (_Data * 2)(_Data(low, low, 0), _Data(high, high, 0))
    _check(libc.capset(ctypes.byref(header), words), "capset")


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise KernelError(f"privileges cannot be dropped: {what}: {os.strerror(error)}")
