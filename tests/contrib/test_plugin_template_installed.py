"""Axoneme and the template as wheels in a fresh environment: installed, enabled, used with real traffic, switched off.

The agent gets a network namespace for its host and folders of its own, so that nothing of it meets this machine's.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from axoneme.core.api.client import Client
from axoneme.core.testing.namespaces import Namespaces, ask, ping, unique, within

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "contrib" / "plugin-template"
PLUGIN = "packet-counter"

pytestmark = [pytest.mark.slow, pytest.mark.kernel, pytest.mark.timeout(300)]


def run(*command: object, environment: dict[str, str] | None = None, timeout: float = 240) -> str:
    """The standard output of a command that must succeed."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The `bin` folder of an environment into which both wheels were installed, with what they depend on."""
    folder = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--wheel-dir", folder / "wheels", ROOT, TEMPLATE)
    # bcc is not on PyPI: the environment sees the system's packages, of the system's Python.
    run("/usr/bin/python3", "-m", "venv", "--system-site-packages", "--without-pip", folder / "venv")
    wheels = sorted((folder / "wheels").glob("*.whl"))
    assert [wheel.name.split("-")[0] for wheel in wheels] == ["axoneme", "axoneme_packet_counter"]
    run(*pip, "--python", folder / "venv" / "bin" / "python", "install", *wheels)
    yield folder / "venv" / "bin"
    shutil.rmtree(folder)


class Installation:
    """An agent of the installed package. Closing it removes all that it made, whatever became of it."""

    def __init__(self, bin_: Path, folder: Path, host: str) -> None:
        self.bin, self.folder, self.host = bin_, folder, host
        self.name = unique("x").lower()
        self.bpffs = Path("/sys/fs/bpf") / f"axoneme-{self.name}"
        self.agent: subprocess.Popen[bytes] | None = None
        self.plugins: list[str] = []
        self.configure()

    def configure(self, *plugins: str) -> None:
        self.plugins = list(plugins)
        names = ("state_dir", "run_dir", "cache_dir", "resources")
        folders = {name: str(self.folder / name) for name in names}
        agent = {"name": self.name, "bpffs": str(self.bpffs), "watch_config": False, **folders}
        section = {PLUGIN: {"workloads": 8}} if plugins else {}
        config = {"agent": agent, "plugins": {"enabled": self.plugins, **section}}
        (self.folder / "resources").mkdir(exist_ok=True)
        (self.folder / "config.yaml").write_text(json.dumps(config))

    @property
    def environment(self) -> dict[str, str]:
        """That of these tests without what would lead Python back to the checkout."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AXONEME"))
        }
        return kept | {"AXONEME_CONFIG": str(self.folder / "config.yaml")}

    def axoneme(self, *arguments: str, inside: bool = False) -> str:
        """What a command prints. `inside`: it runs in the host's namespace, as those have to that need no agent."""
        enter = ("nsenter", f"--net=/run/netns/{self.host}") if inside else ()
        return run(*enter, self.bin / "axoneme", *arguments, environment=self.environment, timeout=60)

    def answer(self, *arguments: str) -> Any:
        return json.loads(self.axoneme(*arguments, "-o", "json"))

    def call(self, method: str, **arguments: Any) -> Any:
        with Client(self.folder / "run_dir" / "axoneme.sock") as client:
            return client.call(method, **arguments)

    def start(self) -> None:
        """Returns when the agent says that it is ready."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            told.bind(str(self.folder / "notify"))
            told.settimeout(60)
            self.agent = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.host}", str(self.bin / "axoneme"), "agent"],
                env=self.environment | {"NOTIFY_SOCKET": str(self.folder / "notify")},
                cwd="/",
                stderr=(self.folder / "log").open("wb"),
            )
            try:
                while b"READY=1" not in told.recv(4096):
                    pass
            except TimeoutError:
                pytest.fail((self.folder / "log").read_text())

    def stop(self) -> None:
        if self.agent is not None:
            self.agent.send_signal(signal.SIGTERM)
            try:
                self.agent.wait(20)
            except subprocess.TimeoutExpired:
                self.agent.kill()
                self.agent.wait()
            self.agent = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        # What is pinned outlives its agent, which is the point of it; without its pins it is gone.
        shutil.rmtree(self.bpffs, ignore_errors=True)


@pytest.fixture
def installation(installed: Path, tmp_path: Path, namespaces: Namespaces) -> Iterator[Installation]:
    with Installation(installed, tmp_path, namespaces.make("axh")) as made:
        yield made
    assert not made.bpffs.exists()


def programs(installation: Installation) -> dict[str, tuple[str, int]]:
    """Digest and instructions by attach point."""
    return {
        row["attach_point"]: (row["digest"], sum(program["instructions"] for program in row["programs"]))
        for row in installation.call("datapath.show")
    }


def counts(installation: Installation) -> dict[str, dict[str, int]]:
    return {row.pop("workload"): row for row in installation.answer(PLUGIN, "top")}


def entries(installation: Installation) -> list[Any]:
    with Client(installation.folder / "run_dir" / "axoneme.sock") as client:
        return [entry for part in client.stream("bpf.map.dump", name="packet_counts") for entry in part]


def test_it_is_found_without_being_enabled(installation: Installation) -> None:
    (row,) = [row for row in installation.answer("plugin", "list") if row["name"] == PLUGIN]
    assert row["state"] == "available"
    assert "axoneme-packet-counter" in str(row)
    assert PLUGIN in installation.axoneme("plugin", "list")


def test_it_counts_real_traffic_and_leaves_nothing(
    installation: Installation, namespaces: Namespaces
) -> None:
    installation.start()
    before = programs(installation)
    client, server = namespaces.make(), namespaces.make()
    rows = {
        name: installation.call("workload.add", name=name, netns=place)
        for name, place in (("client", client), ("server", server))
    }

    installation.configure(PLUGIN)
    installation.call("reload")
    with_it = programs(installation)
    assert all(with_it[point][1] > before[point][1] for point in before)

    # As many packets as the kernel likes to send: what one end sends is what the other gets.
    service = namespaces.serve_tcp(server, 8080, lambda data: data * 100)
    for family in ("ipv4", "ipv6"):
        assert ask(client, rows["server"][family], service.port, b"hello")
    first = counts(installation)
    assert first.keys() == {"default/client", "default/server"}
    for sent, got in (("client", "server"), ("server", "client")):
        assert first[f"default/{sent}"]["out_packets"] == first[f"default/{got}"]["in_packets"] >= 8
        assert first[f"default/{sent}"]["out_bytes"] == first[f"default/{got}"]["in_bytes"]
    # A known number of packets of a known size.
    for family in ("ipv4", "ipv6"):
        for _ in range(5):
            assert ping(client, rows["server"][family], data=bytes(100))
    second = counts(installation)
    for way in ("in", "out"):
        more = {
            what: second["default/client"][f"{way}_{what}"] - first["default/client"][f"{way}_{what}"]
            for what in ("packets", "bytes")
        }
        assert more == {"packets": 10, "bytes": 5 * (14 + 20 + 8 + 100) + 5 * (14 + 40 + 8 + 100)}

    table = installation.axoneme(PLUGIN, "top", "--count", "1")
    assert "default/" in table
    assert len(table.splitlines()) == 2
    assert "axoneme_packet_counter_packets_total" in installation.axoneme("metrics")
    shown = {row["attach_point"]: row["steps"] for row in installation.answer("datapath", "show")}
    assert {step["step"] for point in before for step in shown[point] if step["plugin"] == PLUGIN} == {
        "count"
    }

    installation.call("workload.remove", name="server")
    assert counts(installation).keys() == {"default/client"}
    while [entry["key"] for entry in entries(installation)] != [rows["client"]["id"]]:
        pass  # the service that forgets is about to; the test's time-out says when it did not

    installation.configure()
    installation.call("reload")
    assert programs(installation) == before
    assert "packet_counts" not in [row["name"] for row in installation.answer("bpf", "map", "list")]
    installation.stop()
    installation.axoneme("cleanup", "--yes", inside=True)
    assert not installation.bpffs.exists()
    assert [name for _, name in within(installation.host, socket.if_nameindex)] == ["lo"]
