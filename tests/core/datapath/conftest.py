"""Two kernels: the one in memory and the running one. A test that takes `kernel` runs on both and so proves their parity."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axoneme.core.datapath.kernel import Kernel
from axoneme.core.datapath.pins import Pins
from axoneme.core.datapath.placement import cgroup_root
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.testing.fake_kernel import FakeKernel

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def running_kernel() -> SyscallKernel:
    return SyscallKernel()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.kernel)])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return FakeKernel() if request.param == "fake" else request.getfixturevalue("running_kernel")


@pytest.fixture
def pins(kernel: Kernel, tmp_path: Path) -> Iterator[Pins]:
    """A pin folder of the test's own, with nothing left in it afterwards."""
    yield from _pins(kernel, tmp_path / "bpf" if isinstance(kernel, FakeKernel) else None)


@pytest.fixture
def real_pins(running_kernel: Kernel) -> Iterator[Pins]:
    """The same, for tests that only the running kernel can serve."""
    yield from _pins(running_kernel, None)


def _pins(kernel: Kernel, root: Path | None) -> Iterator[Pins]:
    from axoneme.core.datapath.links import Links

    root = root or Path("/sys/fs/bpf") / f"axoneme-test-{os.getpid()}-{next(_numbers)}"
    made = Pins(kernel, root)
    made.prepare()
    yield made
    Links(made).prune(())
    made.remove()
    assert not root.exists()


@pytest.fixture
def real_interface(running_kernel: Kernel) -> Iterator[Callable[[], int]]:
    """`interface` for tests that only the running kernel can serve."""
    yield from _interfaces(running_kernel)


@pytest.fixture
def interface(kernel: Kernel) -> Iterator[Callable[[], int]]:
    """Makes interfaces (one end of a veth pair each) and gives their indexes; they go after the test."""
    yield from _interfaces(kernel)


def _interfaces(kernel: Kernel) -> Iterator[Callable[[], int]]:
    made: list[str] = []

    def make() -> int:
        number = next(_numbers)
        if isinstance(kernel, FakeKernel):
            kernel.interfaces = (kernel.interfaces or set()) | {number}
            return number
        return _veth(f"axk{os.getpid() % 100000}n{number}", made)

    yield make
    for name in made:
        _remove(name)


def _veth(name: str, made: list[str]) -> int:
    peer = f"{name}p"
    subprocess.run(["ip", "link", "add", name, "type", "veth", "peer", "name", peer], check=True)
    made.append(name)
    return socket.if_nametoindex(name)


def _remove(name: str) -> None:
    subprocess.run(["ip", "link", "delete", name], check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def remove_interface(kernel: Kernel) -> Callable[[int], None]:
    """Removes an interface by its index."""

    def remove(ifindex: int) -> None:
        if isinstance(kernel, FakeKernel):
            kernel.vanish(ifindex)
        else:
            _remove(socket.if_indextoname(ifindex))

    return remove


@pytest.fixture
def cgroup(kernel: Kernel, tmp_path: Path) -> Iterator[Path]:
    """A cgroup (version 2) of the test's own; a plain folder for the kernel in memory."""
    if isinstance(kernel, FakeKernel):
        (tmp_path / "cgroup").mkdir()
        yield tmp_path / "cgroup"
    else:
        yield from _cgroup()


@pytest.fixture
def real_cgroup(running_kernel: Kernel) -> Iterator[Path]:
    """`cgroup` for tests that only the running kernel can serve."""
    yield from _cgroup()


def _cgroup() -> Iterator[Path]:
    folder = cgroup_root() / f"axoneme-test-{os.getpid()}-{next(_numbers)}"
    folder.mkdir()
    yield folder
    folder.rmdir()


@pytest.fixture
def compiler() -> str:
    """A C compiler, to ask it about layouts."""
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler")
    return found
