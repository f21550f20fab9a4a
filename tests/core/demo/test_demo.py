"""The demo as people start it, on the real kernel, in a network namespace that plays the host."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from axoneme.core.datapath.placement import cgroup_root
from axoneme.core.demo.place import BPFFS, ROOT
from axoneme.core.net import namespaces as netns
from axoneme.core.net import sysctl
from axoneme.core.testing.datapath import program_cache
from axoneme.core.testing.namespaces import Namespaces, within

pytestmark = pytest.mark.kernel

#: Seconds that anything may take before the test gives up. No figure, only an end.
PATIENCE = 90.0

MAIN = "from axoneme.core.cli.main import main; main()"
#: Says that the frontend must not reach the cache, which nobody forbids.
WRONG = """
from axoneme.core.demo import article
forbidden = article.Statement("l4-lb-policy.yaml", "cache", "ingress", frozenset({("backend-service", 6379)}))
article.STATEMENTS = (*article.STATEMENTS, forbidden)
"""


class Machine:
    """A host of its own, and a demo of its own name on it."""

    def __init__(self, namespaces: Namespaces) -> None:
        self.netns = namespaces.make("axd")
        self.name = f"demo-{os.getpid():x}"
        self.folder, self.bpffs = ROOT / f"axoneme-{self.name}", BPFFS / f"axoneme-{self.name}"
        self.environment = {**os.environ, "AXONEME_AGENT__CACHE_DIR": str(program_cache())}

    def command(self, *options: str, before: str = "") -> list[str]:
        # Not `ip netns exec`, which hides the bpf file system behind a /sys of its own.
        enter = [shutil.which("nsenter") or "nsenter", f"--net={netns.locate(self.netns)}"]
        return [*enter, sys.executable, "-c", before + MAIN, "demo", "--name", self.name, *options]

    def run(self, *options: str, before: str = "") -> subprocess.CompletedProcess[str]:
        command = self.command(*options, before=before)
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env=self.environment, check=False
        )

    def start(self, *options: str) -> Running:
        return Running(netns.locate(self.netns), self.command(*options), self.environment)

    def left(self) -> list[str]:
        """Everything of the demo that is still there."""
        links = within(self.netns, lambda: os.listdir("/proc/sys/net/ipv4/conf"))
        found = [name for name in links if name.startswith("axo")]
        found += [name for name in netns.names() if name.startswith(f"axo-{self.name}-")]
        cgroup = cgroup_root() / f"axoneme-{self.name}"
        return found + [str(path) for path in (self.folder, self.bpffs, cgroup) if path.exists()]


class Running:
    """A demo in the background."""

    def __init__(self, netns: str, command: list[str], environment: dict[str, str]) -> None:
        self.netns = netns
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
        )
        self.said = ""

    def until(self, pattern: str) -> str:
        """What it said, once it said something like this."""
        assert self.process.stdout is not None
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, self.said):
            assert select.select([self.process.stdout], [], [], max(0.0, end - time.monotonic()))[0], (
                self.said
            )
            more = os.read(self.process.stdout.fileno(), 65536)
            assert more, f"it ended without {pattern!r}:\n{self.said}"
            self.said += more.decode()
        return self.said

    def end(self, *signals: signal.Signals) -> int:
        for number in signals:
            self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=PATIENCE)
        self.said += out.decode()
        return self.process.returncode

    def curl(self, app: str, to: str) -> subprocess.CompletedProcess[str]:
        """Executes the command that it proposes for this workload and server."""
        line = next(line for line in self.said.splitlines() if f"-{app} curl" in line and to in line)
        command = line.partition("#")[0].split()
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)

    def page(self) -> str:
        """What a browser of the machine gets for the address that `axoneme ui` prints."""
        [line] = [line for line in self.said.splitlines() if " ui " in line]
        command = [sys.executable, "-m", "axoneme.core.cli", *line.partition("#")[0].split()[1:]]
        address = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
        browser = [shutil.which("curl") or "curl", "-sS", "-m", "5", address.strip()]
        enter = [shutil.which("nsenter") or "nsenter", f"--net={self.netns}"]
        return subprocess.run(
            [*enter, *browser], capture_output=True, text=True, timeout=PATIENCE, check=True
        ).stdout


@pytest.fixture
def machine(namespaces: Namespaces) -> Iterator[Machine]:
    made = Machine(namespaces)
    yield made
    if made.left():
        made.run()  # cleans up what an earlier one left, whatever this test did
    assert made.left() == []


def test_the_kernel_does_what_the_article_says(machine: Machine) -> None:
    done = machine.run("-o", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["ok"]
    assert report["counts"] == {"requests": 362, "allowed": 242, "dropped": 120, "differing": 0}
    by_flow = {
        (row["source"], row["destination"], row["port"], row["family"]): row
        for row in report["requests"]
        if row["way"] in ("direct", "packet")
    }
    allowed = by_flow["api-gateway", "backend-service", 9090, "IPv6"]
    assert [rule["path"] for rule in allowed["rules"]] == ["spec.ingress[0]"]
    refused = by_flow["backend-service", "frontend", 8080, "IPv4"]
    assert refused["reason"] == "Policy denied"
    assert [(rule["direction"], rule["effect"]) for rule in refused["rules"]] == [("egress", "default-deny")]
    assert by_flow["frontend", "cache", 6379, "IPv4"]["decided_by"] == "no policy"
    assert {row["file"]: row["waits_for"] for row in report["resources"]}["l7-rate-limiting.yaml"] == [
        "envoy"
    ]
    assert {(row["source"], row["way"]): row["seen"] for row in report["services"]} == {
        ("frontend", "socket"): {"api-service-v1": 18, "api-service-v2": 2},
        ("frontend", "packet"): {"api-service-v1": 18, "api-service-v2": 2},
        ("outside", "packet"): {"frontend": 5},
        ("payment-service", "direct"): {"outside": 5},
    }
    assert {row["family"] for row in report["services"]} == {"IPv4", "IPv6"}
    assert report["flows"]["FORWARDED"] >= 242
    assert report["flows"]["DROPPED"] >= 120
    assert machine.left() == []


def test_a_difference_is_an_exit_code_and_is_repeated(machine: Machine) -> None:
    within(machine.netns, lambda: sysctl.write("net/ipv4/ip_forward", 0))
    done = machine.run(before=WRONG)
    assert done.returncode == 1, done.stderr
    repeated = done.stdout.partition("These differ:")[2]
    assert re.search(r"frontend +cache +6379 +4 6 +direct +dropped +allowed +no policy", repeated)
    assert within(machine.netns, lambda: sysctl.read("net/ipv4/ip_forward")) == "0", "the machine is touched"
    assert machine.left() == []


@pytest.mark.parametrize(
    "moment", ["is starting", "ready after", "listens on 5432", "in force", "ANSWERED BY"]
)
def test_interrupted_at_any_moment_it_leaves_nothing(machine: Machine, moment: str) -> None:
    demo = machine.start()
    demo.until(moment)
    assert demo.end(signal.SIGINT, signal.SIGINT, signal.SIGTERM) == 128 + signal.SIGINT, demo.said
    assert "Traceback" not in demo.said
    assert machine.left() == []


def test_kept_it_goes_on_until_it_is_told_to_end(machine: Machine) -> None:
    demo = machine.start("--keep")
    demo.until("Ctrl-C removes everything")
    assert re.match(
        r"backend-service answers 10.201.0.\d+ on port 8080", demo.curl("api-gateway", ":8080/").stdout
    )
    assert demo.curl("frontend", ":8080/").returncode == 28
    assert demo.curl("frontend", "10.96.0.10/").stdout.startswith("api-service-v")
    assert demo.curl("outside", ":30080/").stdout == "frontend answers 192.0.2.2 on port 8080\n"
    assert "<title>" in demo.page()
    second = machine.run()
    assert second.returncode == 1
    assert "a demo runs already" in second.stderr
    assert demo.end(signal.SIGTERM) == 0, demo.said
    assert machine.left() == []


def test_what_a_killed_one_left_goes_with_the_next(machine: Machine) -> None:
    demo = machine.start("--keep")
    demo.until("Ctrl-C removes everything")
    demo.end(signal.SIGKILL)
    assert machine.left()
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "left by an earlier demo, now removed: workload production/cache" in done.stdout
    assert machine.left() == []


def test_it_takes_overrides(machine: Machine) -> None:
    enter, rest = machine.command()[:-3], machine.command()[-3:]
    done = subprocess.run(
        [*enter, "--set", "datapath.attach_mode=clsact", *rest],
        capture_output=True, text=True, timeout=PATIENCE, env=machine.environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_cold_cache_is_told(machine: Machine, tmp_path: Path) -> None:
    machine.environment["AXONEME_AGENT__CACHE_DIR"] = str(tmp_path / "cache")
    demo = machine.start()
    demo.until("compile +from_workload")
    assert demo.end(signal.SIGINT) == 128 + signal.SIGINT
    assert machine.left() == []
