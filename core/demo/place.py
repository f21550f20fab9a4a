"""Where a demo lives: one folder, which one demo at a time holds, and which goes with everything that the demo made."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from attrs import field, frozen

from axoneme.core import config as configuration
from axoneme.core.config import Config
from axoneme.core.demo.machine import UPLINK
from axoneme.core.errors import AxonemeError, KernelError, LockedError, Where

ROOT: Final = Path("/run")
BPFFS: Final = Path("/sys/fs/bpf")

#: Not the agent's default pools, so that nobody takes the one's workloads for the other's.
POOLS: Final = {"ipv4": "10.201.0.0/24", "ipv6": "fd00:201::/64"}

_NAME: Final = re.compile(r"demo(-[a-z0-9]{1,12})?")

_CONFIG: Final = """\
# The configuration of `axoneme demo`. It is written at each start and goes with the demo.
agent:
  name: {name}
  state_dir: {folder}/state
  run_dir: {folder}/run
  bpffs: {bpffs}
  resources: {folder}/resources
node:
  name: {name}
pools:
  ipv4: {ipv4}
  ipv6: {ipv6}
datapath:
  devices: [{uplink}]
  cgroup: {cgroup}
plugins:
  enabled: [policy, lb, hubble]
  lb:
    at_sockets: {at_sockets}
  hubble:
    ui:
      listen: 127.0.0.1:{page}
"""


class DemoError(AxonemeError):
    """A demo that cannot be shown."""


@frozen
class Place:
    """The folder of a demo.

    :param name: of its agent: `demo`, or `demo-` and something, so that it never is that of a real agent.
    """

    name: str = "demo"
    root: Path = ROOT
    bpffs_root: Path = field(default=BPFFS)

    def __attrs_post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise DemoError(f"{self.name!r} is no name for a demo", hint="demo, or demo-1, demo-test …")

    @property
    def folder(self) -> Path:
        return self.root / f"axoneme-{self.name}"

    @property
    def bpffs(self) -> Path:
        return self.bpffs_root / f"axoneme-{self.name}"

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def resources(self) -> Path:
        return self.folder / "resources"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Makes the folder and keeps others out of it; removes it in the end, if `clean` has left nothing in it.

        :raises LockedError: another demo runs.
        """
        descriptor = self._lock()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                self.folder.rmdir()
            os.close(descriptor)

    def _lock(self) -> int:
        """The lock is on the folder itself, which ends with the demo: so one has to look whether it is still the same."""
        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_ino == self.folder.stat().st_ino:
                    return descriptor
            except BlockingIOError:
                os.close(descriptor)
                raise LockedError(
                    "a demo runs already",
                    where=Where(str(self.folder)),
                    hint="stop it with Ctrl-C, or give this one another name: --name demo-2",
                ) from None
            except FileNotFoundError:
                pass
            os.close(descriptor)

    def _open(self) -> int:
        try:
            self.folder.mkdir(mode=0o755, exist_ok=True)
            return os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise DemoError(
                f"cannot make the folder: {error.strerror}", where=Where(str(self.folder))
            ) from error

    def configure(self, sets: Sequence[str] = (), *, cgroup: Path | None = None, page: int = 12000) -> Config:
        """Writes the configuration file and reads it, with what the environment and `--set` say.

        Folders, devices and cgroup are the demo's own, whatever they say: all that is in the folders goes with it, and nothing
        of the machine is to be touched.

        :param cgroup: whose sockets are seen; None: none are, and services are for packets alone.
        :param page: the port of Hubble's page.
        """
        self.resources.mkdir(exist_ok=True)
        own = (*self._own(), f"datapath.devices=[{UPLINK}]", f"datapath.cgroup={cgroup or 'null'}")
        kept = {
            "cgroup": str(cgroup or "null"),
            "at_sockets": str(cgroup is not None).lower(),
            "page": str(page),
        }
        self._write(kept | POOLS)
        pools = configuration.load(self.config_file, sets=(*sets, *own)).settings.pools
        # Those that are in use are written down: whoever cleans up has to know them.
        self._write(kept | {"ipv4": str(pools.ipv4 or "null"), "ipv6": str(pools.ipv6 or "null")})
        return configuration.load(self.config_file, sets=(*sets, *own))

    def _write(self, values: Mapping[str, str]) -> None:
        written = _CONFIG.format(
            name=self.name, folder=self.folder, bpffs=self.bpffs, uplink=UPLINK, **values
        )
        self.config_file.write_text(written)

    def _own(self) -> list[str]:
        folders = {
            "name": self.name,
            "state_dir": self.folder / "state",
            "run_dir": self.folder / "run",
            "bpffs": self.bpffs,
            "resources": self.resources,
        }
        return [f"agent.{key}={value}" for key, value in folders.items()]

    def clean(self) -> list[str]:
        """Removes everything that this demo, or one that was killed in this place, made; says what.

        :raises ExceptionGroup: with what could not be removed; the rest is gone, and the next demo tries again.
        """
        from axoneme.core import cleanup

        said = list(cleanup.run(self._left())) if self.used() else []
        self.config_file.unlink(missing_ok=True)
        shutil.rmtree(self.resources, ignore_errors=True)
        return said

    def used(self) -> bool:
        """Whether there is anything of a demo here."""
        return (self.folder / "state").exists() or self.bpffs.exists()

    def _left(self) -> Config:
        """The configuration of what is here, by the file that it left; without the environment's part in it."""
        try:
            return configuration.load(self.config_file, environ={}, sets=self._own())
        except AxonemeError:
            pairs = (text.removeprefix("agent.").split("=", 1) for text in self._own())
            return configuration.from_values({"agent": dict(pairs), "pools": dict(POOLS)})


def check_privileges() -> None:
    """Raises `KernelError` unless this process may do what a demo needs."""
    from axoneme.core import privileges
    from axoneme.core.platform import NEEDED

    if lacking := privileges.missing(NEEDED):
        raise KernelError(
            f"the demo loads programs into the kernel and makes network namespaces: it needs {', '.join(lacking)}",
            hint="run it as root: sudo axoneme demo",
        )
