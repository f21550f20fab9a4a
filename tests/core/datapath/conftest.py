"""Two kernels: the one in memory and the running one. A test that takes `kernel` runs on both and so proves their parity."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from axoneme.core.datapath.kernel import Kernel
from axoneme.core.datapath.pins import Pins
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
    from axoneme.core.datapath.links import Links

    root = tmp_path / "bpf"
    if not isinstance(kernel, FakeKernel):
        root = Path("/sys/fs/bpf") / f"axoneme-test-{os.getpid()}-{next(_numbers)}"
    made = Pins(kernel, root)
    made.prepare()
    yield made
    Links(made).prune(())
    made.remove()
    assert not root.exists()


@pytest.fixture
def interface(kernel: Kernel) -> Iterator[Callable[[], int]]:
    """Makes interfaces (one end of a veth pair each) and gives their indexes; they go after the test."""
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
    from pyroute2 import IPRoute

    with IPRoute() as route:
        route.link("add", ifname=name, kind="veth", peer=f"{name}p")
        made.append(name)
        return int(route.link_lookup(ifname=name)[0])


def _remove(name: str) -> None:
    from pyroute2 import IPRoute

    with IPRoute() as route:
        for index in route.link_lookup(ifname=name):
            route.link("del", index=index)


@pytest.fixture
def remove_interface(kernel: Kernel) -> Callable[[int], None]:
    """Removes an interface by its index."""

    def remove(ifindex: int) -> None:
        if isinstance(kernel, FakeKernel):
            kernel.vanish(ifindex)
            return
        from pyroute2 import IPRoute

        with IPRoute() as route:
            route.link("del", index=ifindex)

    return remove


@pytest.fixture
def cgroup(kernel: Kernel, tmp_path: Path) -> Iterator[Path]:
    """A cgroup (version 2) of the test's own; a plain folder for the kernel in memory."""
    if isinstance(kernel, FakeKernel):
        (tmp_path / "cgroup").mkdir()
        yield tmp_path / "cgroup"
        return
    mounts = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    root = next(Path(fields[1]) for fields in mounts if fields[2] == "cgroup2")
    folder = root / f"axoneme-test-{os.getpid()}-{next(_numbers)}"
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
