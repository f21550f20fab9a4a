"""Sysctls of the namespace that the calling thread is in: /proc/sys/net shows each thread its own."""

from __future__ import annotations

from pathlib import Path

from axoneme.core.errors import KernelError

_ROOT = Path("/proc/sys")


def read(name: str) -> str | None:
    """A sysctl's value, None when the kernel has no such one. `name` is a path: `net/ipv4/ip_forward`."""
    try:
        return (_ROOT / name).read_text().strip()
    except FileNotFoundError:
        return None


def write(name: str, value: str | int) -> None:
    """Sets a sysctl. Raises `KernelError` when it is not there or the kernel refuses."""
    try:
        with open(_ROOT / name, "wb", buffering=0) as file:
            file.write(str(value).encode())
    except OSError as error:
        raise KernelError(f"cannot set sysctl {name} to {value}: {error.strerror}") from error


def ensure(name: str, value: str | int) -> bool:
    """Sets a sysctl unless it has the value already; whether it had to be set."""
    if read(name) == str(value):
        return False
    write(name, value)
    return True


def has_ipv6() -> bool:
    return (_ROOT / "net/ipv6").is_dir()
