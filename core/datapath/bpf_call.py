"""bpf(2) itself, by ctypes: the C library has no function for it."""

from __future__ import annotations

import ctypes
import platform
import resource
from typing import Any, Final

from axoneme.core.datapath.kernel import BpfError
from axoneme.core.datapath.uapi import Command
from axoneme.core.errors import KernelError

#: The system call's number, by machine (`asm/unistd.h`).
_NUMBERS: Final = {
    "x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "s390x": 351, "ppc64le": 361,
}  # fmt: skip


class BpfCall:
    """Raises `KernelError` on a machine where the call's number is not known."""

    def __init__(self) -> None:
        number = _NUMBERS.get(platform.machine())
        if number is None:
            raise KernelError(f"bpf(2) has no known number on {platform.machine()}")
        self._number = number
        # A call on one entry takes less time than giving up the interpreter and getting it back; a call on many does not.
        self._brief = _syscall(ctypes.PyDLL)
        self._long = _syscall(ctypes.CDLL)

    def __call__(self, command: Command, attr: ctypes.Structure, *, brief: bool = False) -> int:
        """The call's result, or minus the errno.

        :param brief: it does not take long: the interpreter waits for it.
        """
        call = self._brief if brief else self._long
        result: int = call(self._number, command, ctypes.byref(attr), ctypes.sizeof(attr))
        return result if result >= 0 else -ctypes.get_errno()

    def checked(self, command: Command, attr: ctypes.Structure, operation: str) -> int:
        """The call's result. Raises `BpfError`, which names the operation."""
        result = self(command, attr)
        if result < 0:
            raise BpfError(operation, -result)
        return result


def _syscall(loader: type[ctypes.CDLL]) -> Any:
    function = loader(None, use_errno=True).syscall
    function.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]
    function.restype = ctypes.c_long
    return function


def lift_memlock() -> None:
    """Before 5.11 maps and programs count as locked memory; elsewhere this changes nothing."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    for limit in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (hard, hard)):
        try:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, limit)
        except (ValueError, OSError):
            continue
        return
