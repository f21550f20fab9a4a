"""The unit for systemd: accepted by it, and not stricter than the agent can bear."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from axoneme.core.settings import CAPABILITIES

UNIT = Path(__file__).parents[2] / "contrib" / "systemd" / "axoneme.service"

#: Any of these gives the service a mount namespace of its own. What it mounts, such as the network namespaces of
#: workloads, would then be there for nobody else, and not for its next start. See PrivateMounts= in systemd.exec(5).
OWN_VIEW = (
    "BindPaths", "BindReadOnlyPaths", "DynamicUser", "ExecPaths", "InaccessiblePaths", "MountFlags", "NoExecPaths",
    "PrivateDevices", "PrivateIPC", "PrivateMounts", "PrivateNetwork", "PrivateTmp", "ProcSubset", "ProtectControlGroups",
    "ProtectHome", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables",
    "ProtectProc", "ProtectSystem", "ReadOnlyPaths", "ReadWritePaths", "RootDirectory", "RootImage", "TemporaryFileSystem",
)  # fmt: skip


def settings() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize(
    "unit", [UNIT, UNIT.with_name("axoneme-hubble-relay.service")], ids=lambda unit: unit.stem
)
def test_systemd_accepts_it(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("needs systemd-analyze")
    copy = tmp_path / unit.name
    copy.write_text(unit.read_text().replace("/usr/local/bin/axoneme", sys.executable))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_it_leaves_the_agent_all_capabilities_that_it_keeps() -> None:
    allowed = " ".join(settings()["CapabilityBoundingSet"]).split()
    assert {f"CAP_{name.upper()}" for name in CAPABILITIES} <= set(allowed)
    assert "CAP_SETPCAP" in allowed  # to give up the others for what it starts


def test_what_it_mounts_is_there_for_everybody() -> None:
    assert not set(settings()) & set(OWN_VIEW)


def test_stopping_it_leaves_what_the_next_start_takes_over() -> None:
    made = settings()
    assert made["Type"] == ["notify"]
    assert made["RuntimeDirectoryPreserve"] == ["yes"]
    assert made["StateDirectory"] == made["CacheDirectory"] == made["RuntimeDirectory"] == ["axoneme"]
