"""Commands run in the workload's namespace, with their signals and exit codes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from axoneme.core.net import namespaces as ns
from axoneme.core.testing.namespaces import Namespaces
from axoneme.core.workloads.run import RunError, run

pytestmark = pytest.mark.kernel

RUNNER = "import sys; from axoneme.core.workloads.run import run; sys.exit(run(sys.argv[1], sys.argv[2:]))"


@pytest.fixture
def name(namespaces: Namespaces) -> str:
    return namespaces.make()


def start(name: str, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUNNER, name, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_is_in_the_namespace_and_nowhere_else_new(name: str) -> None:
    command = "import os; print(os.stat('/proc/self/ns/net').st_ino, os.stat('/proc/self/ns/mnt').st_ino, os.getcwd())"
    out, error = start(name, sys.executable, "-c", command).communicate(timeout=30)
    identity = ns.identity_of(ns.locate(name))
    assert error == ""
    assert identity is not None
    assert out.split() == [str(identity[1]), str(Path("/proc/self/ns/mnt").stat().st_ino), str(Path.cwd())]


@pytest.mark.parametrize("code", [0, 1, 77])
def test_exit_codes(name: str, code: int) -> None:
    assert run(name, [sys.executable, "-c", f"raise SystemExit({code})"]) == code


def test_killed_by_a_signal(name: str) -> None:
    command = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run(name, [sys.executable, "-c", command]) == 128 + signal.SIGKILL


def test_arguments_meet_no_shell(name: str) -> None:
    odd = ["$HOME", "a b", "*", ";ls", ""]
    out, _ = start(name, sys.executable, "-c", "import sys; print(sys.argv[1:])", *odd).communicate(
        timeout=30
    )
    assert out.strip() == str(odd)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_are_passed_on(name: str, number: int) -> None:
    command = (
        "import signal, sys\n"
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])\n"
        "print('up', flush=True)\n"
        f"sys.exit(40 + signal.sigwait([{int(number)}]))\n"
    )
    process = start(name, sys.executable, "-c", command)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 40 + number


def test_signals_have_their_usual_effect(name: str) -> None:
    """The command starts with the caller's signal mask and dispositions, not with ours."""
    command = "print(*[line for line in open('/proc/self/status') if line[:6] in ('SigBlk', 'SigIgn')])"
    out, _ = start(name, sys.executable, "-c", command).communicate(timeout=30)
    # SIGPIPE and SIGXFSZ are ignored by the Python that looks, whoever started it.
    blocked, ignored = (int(word, 16) for word in out.split()[1::2])
    assert blocked == 0
    mine = next(line for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "SigIgn")
    assert ignored & ~(int(mine.split()[1], 16) | 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1) == 0


@pytest.mark.parametrize(
    ("command", "code"), [("/no/such/command", 127), ("no-such-command", 127), ("/etc", 126)]
)
def test_what_cannot_be_run(name: str, command: str, code: int) -> None:
    with pytest.raises(RunError, match=command) as caught:
        run(name, [command])
    assert caught.value.code == code


def test_no_command_and_no_namespace(name: str) -> None:
    with pytest.raises(RunError, match="no command"):
        run(name, [])
    with pytest.raises(ns.NamespaceError, match="there is no network namespace"):
        run("no-such-namespace", ["true"])


@pytest.fixture
def own_resolver(name: str) -> Iterator[Path]:
    folder = Path("/etc/netns") / name
    there = folder.parent.exists()
    folder.mkdir(parents=True)
    try:
        (folder / "resolv.conf").write_text("nameserver 192.0.2.53\n")
        (folder / "no-such-file-in-etc").write_text("")
        yield folder
    finally:
        for path in (*folder.iterdir(), folder):
            path.unlink() if path.is_file() else path.rmdir()
        if not there:
            folder.parent.rmdir()


def test_files_for_the_namespace_cover_those_in_etc(name: str, own_resolver: Path) -> None:
    before = Path("/etc/resolv.conf").read_text()
    out, error = start(name, sys.executable, "-c", "print(open('/etc/resolv.conf').read())").communicate(
        timeout=30
    )
    assert (out.strip(), error) == ("nameserver 192.0.2.53", "")
    assert Path("/etc/resolv.conf").read_text() == before
