"""A machine of its own for a whole agent on the real kernel, as far as the agent can tell.

    with Node({"plugins": {"enabled": ["policy"]}}) as node:
        node.start()
        web = node.workload("web", app="web")
        node.kill9()
        node.start()

The host is a network namespace, in which `axoneme agent` runs as a process. State, socket, pins, resources and plugins
are in folders of its own, and so is its name; only compiled programs are shared with other nodes. Everything is gone
afterwards. Waiting is for what the agent tells systemd, never for time to pass.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import yaml
from attrs import field, frozen

from axoneme.core.api.client import Client
from axoneme.core.datapath.bpffs import STANDARD as BPFFS
from axoneme.core.datapath.placement import cgroup_root
from axoneme.core.errors import KernelError
from axoneme.core.net import namespaces
from axoneme.core.testing.datapath import program_cache
from axoneme.core.testing.namespaces import Namespaces, unique

#: Seconds that a start, a stop or a reload may take before the test gives up. No figure, only an end.
PATIENCE = 60.0

_PROGRAM = (sys.executable, "-c", "from axoneme.core.cli.main import main; main()")


class NodeError(AssertionError):
    """An agent that did not do what the test needs; has the end of its log."""


@frozen(kw_only=True)
class Placed:
    """A workload of a node.

    :ivar row: its endpoint, as the API shows it.
    """

    name: str
    netns: str
    ipv4: str
    ipv6: str
    row: dict[str, Any] = field(repr=False)

    @property
    def addresses(self) -> tuple[str, str]:
        return self.ipv4, self.ipv6


class Node:
    """A host with an agent that can be started, killed, and started again.

    :param values: the configuration beyond the folders, as a mapping like the file's content.
    :param cache: the folder of compiled programs; None for the one that all tests share.
    :param name: the agent's name; None for one that no other test uses.
    """

    def __init__(
        self, values: Mapping[str, Any] | None = None, *, cache: Path | None = None, name: str | None = None
    ) -> None:
        self.name = name or unique("node")
        self.folder = Path(tempfile.mkdtemp(prefix=f"axoneme-{self.name}-"))
        self.bpffs = BPFFS / f"axoneme-test-{self.name}"
        self.cgroup = self._cgroup()
        self.config = self.folder / "config.yaml"
        self.resources = self.folder / "resources"
        self.log = self.folder / "log"
        self.values: dict[str, Any] = {}
        self.process: subprocess.Popen[bytes] | None = None
        self.netns = ""
        self._cache = cache or program_cache()
        self._owned = ExitStack()
        self._told = b""
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._log_read = 0
        self._own = {
            "name": self.name,
            "state_dir": str(self.folder / "state"),
            "run_dir": str(self.folder / "run"),
            "cache_dir": str(self._cache),
            "bpffs": str(self.bpffs),
            "resources": str(self.resources),
        }
        self.configure(values or {})

    # Its life

    def __enter__(self) -> Self:
        try:
            self._prepare()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            error.add_note(f"the agent's log ended with\n{self.log_end()}")
        self._remove()

    def _prepare(self) -> None:
        self.resources.mkdir()
        if self.cgroup:
            self.cgroup.mkdir()
        (self.folder / "site").mkdir()
        self._notices.bind(str(self.folder / "notify"))
        self.netns = self._owned.enter_context(Namespaces()).make("axh")

    def _remove(self) -> None:
        """Takes everything away; goes on whatever goes wrong."""
        with ExitStack() as steps:
            steps.callback(shutil.rmtree, self.folder, ignore_errors=True)
            steps.callback(self._notices.close)
            steps.callback(self._owned.close)
            steps.callback(self._remove_pins)
            steps.callback(self._remove_cgroup)
            steps.callback(self._remove_namespaces)
            steps.callback(self.kill9)

    def _remove_namespaces(self) -> None:
        for name in namespaces.names():
            if name.startswith(f"axo-{self.name}-"):
                namespaces.delete(name)

    @property
    def _sockets(self) -> dict[str, str]:
        """Programs of sockets see those of this cgroup alone, and not every process of the machine."""
        return {"cgroup": str(self.cgroup)} if self.cgroup else {}

    def _cgroup(self) -> Path | None:
        with suppress(KernelError):
            return cgroup_root() / f"axoneme-test-{self.name}"
        return None

    def _remove_cgroup(self) -> None:
        if self.cgroup and self.cgroup.exists():
            self.cgroup.rmdir()

    def _remove_pins(self) -> None:
        if self.bpffs.exists():
            shutil.rmtree(self.bpffs)

    # The agent

    @property
    def program(self) -> tuple[str, ...]:
        """How a command of `axoneme` begins."""
        return _PROGRAM

    @property
    def pid(self) -> int:
        assert self.process is not None, "no agent was started"
        return self.process.pid

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "axoneme.sock"

    @property
    def environment(self) -> dict[str, str]:
        """What commands and the agent have in their environment: plugins of this node are found."""
        paths = [str(self.folder / "site"), os.environ.get("PYTHONPATH", "")]
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "AXONEME_CONFIG": str(self.config),
        }

    def configure(self, values: Mapping[str, Any]) -> None:
        """Writes the configuration file, in one step. Values are merged over the folders of this node."""
        self.values = {
            **values,
            "agent": {"watch_config": False, **self._own, **dict(values.get("agent", {}))},
            "datapath": {**self._sockets, **dict(values.get("datapath", {}))},
        }
        new = self.config.with_suffix(".new")
        new.write_text(yaml.safe_dump(self.values))
        new.replace(self.config)

    def start(self, *, wait: bool = True, **environment: str) -> None:
        """Starts the agent, and waits until it says that it is ready.

        :raises NodeError: when it ends instead.
        """
        assert self.process is None or self.process.poll() is not None, "the agent runs already"
        self._forget_notices()
        with open(self.log, "ab") as log:
            self._log_read = log.tell()
            self.process = self.spawn("agent", log, NOTIFY_SOCKET=str(self.folder / "notify"), **environment)
        if wait:
            self.wait_told(b"READY=1")

    def spawn(self, command: str, output: IO[bytes], **environment: str) -> subprocess.Popen[bytes]:
        """Starts a command of `axoneme` in this host."""
        return subprocess.Popen(  # noqa: S603 - a command of ours
            self._command(*command.split()),
            env=self.environment | environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )

    def _command(self, *arguments: str) -> list[str]:
        # Not `ip netns exec`: it mounts another /sys, in which there are no pins.
        return ["nsenter", f"--net={namespaces.locate(self.netns)}", *_PROGRAM, *arguments]

    def kill9(self) -> None:
        """As when the kernel runs out of memory, or somebody out of patience."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(PATIENCE)

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def reload(self) -> None:
        """SIGHUP; waits until the agent says that it is ready again, with the new configuration or the old one."""
        assert self.process is not None
        self._forget_notices()
        self.process.send_signal(signal.SIGHUP)
        self.wait_told(b"RELOADING=1")
        self.wait_told(b"READY=1")

    def wait_end(self) -> int:
        """Waits until the agent ends by itself; returns the exit code."""
        assert self.process is not None
        return self.process.wait(PATIENCE)

    def wait_told(self, line: bytes, seconds: float = PATIENCE) -> None:
        """Waits until the agent tells systemd this. Each line counts once."""
        deadline = time.monotonic() + seconds
        while line not in self._told.splitlines():
            if not self._listen(deadline - time.monotonic()):
                self._give_up(f"the agent did not say {line.decode()}")
        _, _, self._told = self._told.partition(line)

    def _listen(self, seconds: float) -> bool:
        """Takes the next notice; False when the agent ended, or time did."""
        watched = os.pidfd_open(self.pid) if self.process and self.process.poll() is None else -1
        try:
            waiting: list[Any] = [self._notices, *([watched] if watched >= 0 else [])]
            heard = select.select(waiting, [], [], max(0.0, seconds) if watched >= 0 else 0)[0]
        finally:
            if watched >= 0:
                os.close(watched)
        if self._notices in heard:
            self._told += self._notices.recv(4096) + b"\n"
            return True
        return watched in heard and self._listen(0)

    def _forget_notices(self) -> None:
        self._told = b""
        with contextlib.suppress(BlockingIOError):
            while self._notices.recv(4096, socket.MSG_DONTWAIT):
                pass

    def _give_up(self, what: str) -> None:
        code = self.process.poll() if self.process else None
        raise NodeError(f"{what} (exit code {code}); its log:\n{self.log_end()}")

    def log_end(self, lines: int = 40) -> str:
        """The last lines of the log."""
        return "\n".join(self.log_text(whole=True).splitlines()[-lines:])

    def log_text(self, *, whole: bool = False) -> str:
        """What the agent logged since it was started last, or all of it."""
        try:
            text = self.log.read_bytes()
        except FileNotFoundError:
            return ""
        return text[0 if whole else self._log_read :].decode(errors="replace")

    # Talking to it

    @contextlib.contextmanager
    def client(self) -> Iterator[Client]:
        with Client(self.socket) as client:
            yield client

    def call(self, method: str, /, **arguments: Any) -> Any:
        """One answer of its API. Raises what the agent raised."""
        with self.client() as client:
            return client.call(method, **arguments)

    def stream(self, method: str, /, **arguments: Any) -> Iterator[Any]:
        """Answers of its API as they come."""
        with self.client() as client:
            yield from client.stream(method, **arguments)

    def axoneme(
        self, *arguments: str, code: int | None = 0, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of `axoneme` as a user of this host would; None as `code` accepts every exit code."""
        done = subprocess.run(  # noqa: S603 - a command of ours
            self._command(*arguments),
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if code is not None and done.returncode != code:
            raise NodeError(
                f"axoneme {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}{done.stdout}"
            )
        return done

    def until(self, reached: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
        """Asks again and again until the answer is true, and returns it."""
        deadline = time.monotonic() + seconds
        while not (answer := reached()):
            if time.monotonic() > deadline:
                self._give_up(f"waited in vain: {what}")
            time.sleep(0.02)
        return answer

    def wait_logged(self, words: str) -> None:
        """Waits until this is in the log of the agent that was started last."""
        self.until(lambda: words in self.log_text(), f"{words!r} in the log")

    def workload(self, name: str, *, namespace: str = "default", **labels: str) -> Placed:
        """Adds a workload in a network namespace of its own."""
        row = self.call("workload.add", name=name, namespace=namespace, labels=labels)
        return Placed(name=name, netns=row["netns"], ipv4=row["ipv4"], ipv6=row["ipv6"], row=row)

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.call("status")
        return found

    def problems(self) -> list[str]:
        """What the status says that is not well."""
        status = self.status()
        return [
            f"{row['plugin']}: {row['reason']}"
            for row in (*status["services"], *status["checks"])
            if row["level"] != "ok"
        ]

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return float(sum(row["value"] for row in self.call("metrics") if row["name"] == name))

    # What it reads

    def resource(self, name: str, text: str) -> Path:
        """Puts a file into the watched folder, in one step."""
        path = self.resources / name
        new = self.folder / f"{name}.new"
        new.write_text(text)
        return new.replace(path)

    def install(self, plugin: str, source: str, files: Mapping[str, str] | None = None) -> Path:
        """Installs a plugin as a package of a third party, as pip would; returns the folder of its module."""
        module = plugin.replace("-", "_")
        site = self.folder / "site"
        shutil.rmtree(
            site / module, ignore_errors=True
        )  # what Python compiled is told from the new one by seconds only
        for name, text in {"__init__.py": source, **(files or {})}.items():
            path = site / module / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        metadata = site / f"{module}-1.0.dist-info"
        metadata.mkdir(exist_ok=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {plugin}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[axoneme.plugins]\n{plugin} = {module}\n")
        return site / module
