"""The embedding example runs as it is, and so do the ten lines of its README."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from axoneme.core.testing.agent import AgentKit
from axoneme.core.testing.namespaces import Namespaces, within

FOLDER = Path(__file__).parents[2] / "contrib" / "embedding"


@pytest.mark.slow
@pytest.mark.kernel
def test_the_example_runs_and_leaves_nothing(namespaces: Namespaces) -> None:
    host = namespaces.make("axh")  # the node of its agent: nothing of it meets this machine's own network
    command = ["nsenter", f"--net=/run/netns/{host}", sys.executable, str(FOLDER / "embedding.py")]
    before = set(os.listdir("/sys/fs/bpf"))
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines() == [
        "client to server, port 8080: answered",
        "client to server, port 23: no answer",
        "the kernel says: this port is not spoken to",
    ]
    assert not {name for name in set(os.listdir("/sys/fs/bpf")) - before if "embedding" in name}
    assert not [name for name in os.listdir("/run/netns") if "embedding" in name]
    assert [name for _, name in within(host, socket.if_nameindex)] == ["lo"]


def test_the_lines_of_the_readme_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = re.findall(r"```python\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)
    kit = AgentKit()
    agent = kit.agent
    monkeypatch.setattr("axoneme.core.agent.Agent", lambda config, plugins: agent)
    try:
        exec(compile(text, "README.md", "exec"), {"__name__": "readme"})
    finally:
        kit._remove()
    assert re.search(r"10\.244\.\d+\.\d+ fd00:244::\w+ ready\n", capsys.readouterr().out)
