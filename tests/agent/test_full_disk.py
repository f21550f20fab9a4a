"""No room on the disk: under the compile cache, and under the state folder. What runs goes on, and people are told."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenes import ENFORCED, OPEN, Scene, furnish, policy

from axoneme.core.errors import AxonemeError
from axoneme.core.net import namespaces
from axoneme.core.testing.namespaces import ask
from axoneme.core.testing.node import Node

pytestmark = pytest.mark.kernel


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int, more: str = "mode=0700") -> Iterator[Path]:
    """A file system of its own, of this size."""
    folder.mkdir(parents=True)
    options = f"size={kilobytes}k,{more}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Takes all the room that there is."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    return filler


def own_namespaces(node: Node) -> list[str]:
    """Those of the node's workloads: other tests make theirs meanwhile."""
    return sorted(name for name in namespaces.names() if node.name in name)


@pytest.fixture
def node() -> Iterator[Node]:
    with Node(ENFORCED) as made:
        made.resource("policy.yaml", policy(OPEN))
        yield made


def test_no_room_for_compiled_programs(node: Node) -> None:
    """Everything works; only the next start has to compile again, unless the programs are pinned."""
    with small_disk(node.folder / "cache", 16) as cache:
        fill(cache)
        node.configure({**ENFORCED, "agent": {"cache_dir": str(cache)}})
        node.start()
        assert f"the compile cache {cache} cannot be written: No space left on device" in node.log_text()
        assert "programs are compiled again at the next start" in node.log_text()
        assert sorted(path.name for path in cache.iterdir()) == ["filler"], "half an entry is none"
        scene = furnish(node)
        with scene.traffic() as traffic:
            traffic.more(20)
            node.kill9()
            node.start()
            assert "cannot be written" not in node.log_text(), "the pinned programs are adopted"
            traffic.more(20)
        node.stop()


@pytest.fixture
def cramped(node: Node) -> Iterator[tuple[Scene, Path]]:
    """A scene whose state folder is on a small disk, still with room."""
    with small_disk(node.folder / "state", 256) as state:
        node.start()
        yield furnish(node), state
        node.kill9()


def test_no_room_for_state(cramped: tuple[Scene, Path]) -> None:
    scene, state = cramped
    node = scene.node
    with scene.traffic() as traffic:
        guest = node.workload("guest", app="client")
        filler = fill(state)
        before = (own_namespaces(node), node.call("endpoint.list"), files(state))

        # Nothing new, and nothing half done.
        with pytest.raises(AxonemeError, match="No space left on device") as raised:
            node.workload("newcomer", app="client")
        assert str(state) in str(raised.value)
        assert (own_namespaces(node), node.call("endpoint.list"), files(state)) == before

        # What is there goes on, policies take effect, and a workload may leave.
        node.resource("policy.yaml", policy(OPEN, 8000))
        node.until(lambda: "'8000/" in str(node.call("policy.get")), "the new policy")
        assert ask(guest.netns, scene.server.ipv4, OPEN) == b"hello"
        node.call("workload.remove", name="guest")
        fill(state)  # what it left is taken as well
        traffic.more(20)

        # An agent that dies now comes back.
        node.kill9()
        node.start()
        assert {row["name"]: row["state"] for row in node.call("endpoint.list")} == dict.fromkeys(
            ("client", "server"), "ready"
        )
        traffic.more(20)

        # And with room again, everything is as ever.
        filler.unlink()
        newcomer = node.workload("newcomer", app="client")
        assert ask(newcomer.netns, scene.server.ipv4, OPEN) == b"hello"
        node.kill9()
        node.start()
        assert ask(newcomer.netns, scene.server.ipv6, OPEN) == b"hello"
        node.call("workload.remove", name="newcomer")
        traffic.more(20)
    assert node.problems() == []


def files(folder: Path) -> list[tuple[str, bytes]]:
    """All but the events, which are recorded as long as there is room."""
    return [
        (str(path.relative_to(folder)), path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "filler" and path.parent.name != "events"
    ]


def test_a_first_start_without_any_room(node: Node) -> None:
    """Nothing has to be written before the first workload. That one is refused until there is room."""
    with small_disk(node.folder / "state", 64) as state:
        filler = fill(state)
        node.start()
        assert node.status()["agent"]["ready"]
        with pytest.raises(AxonemeError, match="No space left on device"):
            node.workload("early", app="client")
        assert node.call("endpoint.list") == []
        filler.unlink()
        assert node.workload("early", app="client").row["state"] == "ready"
        node.stop()


def test_a_state_folder_in_which_nothing_can_be_made(node: Node) -> None:
    """Without a lock there is no start, and the message says where and what to do."""
    with small_disk(node.folder / "state", 64, "nr_inodes=1") as state:
        node.start(wait=False)
        assert node.wait_end() == 1
        log = node.log_text()
        assert "error: cannot lock the state folder: No space left on device" in log
        assert f"where: {state}/agent.lock" in log
        assert "in which it can write: agent.state_dir" in log
        assert "Traceback" not in log
        assert not node.socket.exists()
