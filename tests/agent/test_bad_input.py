"""What users get wrong: each mistake is told with what, where and what to do, and nothing else is lost by it."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from scenes import CLOSED, OPEN, Scene, policy

from axoneme.core.errors import KernelError
from axoneme.core.testing.agent import AgentKit
from axoneme.core.testing.fake_kernel import FakeKernel
from axoneme.core.testing.namespaces import reachable
from axoneme.core.testing.node import Node, NodeError

pytestmark = pytest.mark.kernel

GOOD = textwrap.dedent(
    """\
    apiVersion: cilium.io/v2
    kind: CiliumNetworkPolicy
    metadata: {name: other}
    spec:
      endpointSelector: {matchLabels: {app: other}}
      ingress:
      - fromEndpoints:
        - {}
        toPorts:
        - ports:
          - port: '80'
            protocol: TCP
    """
)

#: What is wrong, how the good text becomes it, and words of the message, which also has the place.
WRONG = {
    "malformed": ("ingress:", "ingress: [", "bad.yaml:7", "malformed YAML"),
    "unknown-kind": ("CiliumNetworkPolicy", "CiliumNetworkPolcy", "bad.yaml:2", "CiliumNetworkPolicy"),
    "unknown-version": ("cilium.io/v2", "cilium.io/v9", "bad.yaml:1", "cilium.io/v2"),
    "unknown-field": ("ingress:", "ingres:", "bad.yaml:6 (spec.ingres)", "ingress"),
    "unknown-label-field": ("matchLabels", "matchLables", "bad.yaml:5", "matchLabels"),
    "wrong-type": ("port: '80'", "port: [80]", "bad.yaml:11 (spec.ingress[0].toPorts[0].ports[0].port)", "must be a string, not a list"),
    "wrong-value": ("protocol: TCP", "protocol: TPC", "bad.yaml:12", "TCP"),
    "impossible-port": ("port: '80'", "port: '80000'", "bad.yaml:11", "80000"),
    "no-name": ("metadata: {name: other}", "metadata: {}", "bad.yaml:3", "name"),
    "duplicate-key": ("spec:", "kind: CiliumNetworkPolicy\nspec:", "bad.yaml:4", "kind"),
    "no-object": (GOOD, "just words", "bad.yaml:1", "mapping"),
    "not-text": (GOOD, "\x00\x01", "bad.yaml", ""),
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def flowing(scene: Scene) -> Iterator[None]:
    """Traffic around all of it. At its end nothing may have failed, got lost or got through."""
    with scene.traffic():
        yield


def told(scene: Scene, *words: str) -> str:
    """What the status says about resources, once it says these words."""
    last = ""

    def problem() -> bool:
        nonlocal last
        checks = scene.node.status()["checks"]
        last = next(row["reason"] for row in checks if (row["plugin"], row["check"]) == ("core", "resources"))
        return bool(last) and all(word in last for word in words)

    with contextlib.suppress(NodeError):
        scene.node.until(problem, "the status says it", seconds=5)
    assert all(word in last for word in words), last
    return last


@contextlib.contextmanager
def mended(scene: Scene, *files: Path) -> Iterator[None]:
    """Removes these files afterwards, and waits until all is well again."""
    try:
        yield
    finally:
        for file in files:
            file.unlink(missing_ok=True)
        scene.node.until(lambda: not scene.node.problems(), "all is well again")


def closed(scene: Scene) -> bool:
    return not any(reachable(scene.client.netns, a, CLOSED, timeout=0.1) for a in scene.server.addresses)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_file_is_explained_and_the_others_count(scene: Scene, kind: str) -> None:
    old, new, where, words = WRONG[kind]
    assert old in GOOD
    file = scene.node.resource("bad.yaml", GOOD.replace(old, new, 1))
    told(scene, str(file.with_name(where)), words)
    assert closed(scene)


def test_the_command_says_it_too_and_all_is_well_when_the_file_is_gone(scene: Scene) -> None:
    file = scene.node.resource("bad.yaml", GOOD.replace("spec:", "spce:"))
    with mended(scene, file):
        told(scene, "spce")
        done = scene.node.axoneme("status", code=1)
        assert f"{file}:4" in done.stdout
    assert closed(scene)


def test_a_good_file_that_becomes_wrong_stays_in_force_as_it_was(scene: Scene) -> None:
    """The policy that all this traffic depends on."""
    node = scene.node
    file = node.resources / "policy.yaml"
    text = file.read_text()
    wrongs = {
        "malformed YAML": text.replace("ingress:", "ingress: ["),
        "prots": text.replace("ports:", "prots:"),
        "there is no object in it": "",
        "control characters are not allowed": "\x00",
        "mapping": "[]",
    }
    try:
        for words, wrong in wrongs.items():
            file.write_text(wrong)
            told(scene, str(file), words)
            rows = [row for row in node.call("resource.list", problems=True) if row["name"] == "server"]
            assert [row["status"] for row in rows] == ["stale"]
            assert closed(scene)
    finally:
        with mended(scene):
            file.write_text(text)


def test_the_same_object_in_two_files(scene: Scene) -> None:
    """The later file is told about both places; the object stays as it is."""
    file = scene.node.resource("zzz.yaml", policy(OPEN, CLOSED))
    with mended(scene, file):
        first = scene.node.resources / "policy.yaml"
        told(scene, f"{file}:1", f"is also in {first}:1, which counts (remove one of them)")
        assert closed(scene)


def test_a_file_of_five_megabytes(scene: Scene) -> None:
    file = scene.node.resource("large.yaml", GOOD + "#" * (5 << 20))
    with mended(scene, file):
        told(scene, f"{file}: the file has 5,243,", "bytes, the limit is ", "split it into several files")
        assert closed(scene)


def test_an_alias_bomb(scene: Scene) -> None:
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n"
    for here, before in zip("bcdefghi", "abcdefgh", strict=True):
        text += f"{here}: &{here} [{', '.join([f'*{before}'] * 9)}]\n"
    file = scene.node.resource("bomb.yaml", text)
    with mended(scene, file):
        told(scene, str(file))
        assert closed(scene)


def test_files_that_vanish_while_they_are_read(scene: Scene) -> None:
    """Made, replaced, moved and removed as fast as it goes: no name stays behind, and no error."""
    node = scene.node
    for number in range(300):
        file = node.resources / f"gone{number % 7}.yaml"
        file.write_text(GOOD.replace("name: other", f"name: other{number % 3}"))
        if number % 2:
            file.rename(file.with_name("moved.yaml")).unlink()
        else:
            file.unlink()
    node.until(lambda: len(node.call("resource.list")) == 2, "only what is there is left")
    node.until(lambda: not node.problems(), "nothing is wrong")
    assert closed(scene)


def test_what_only_looks_like_a_file(scene: Scene) -> None:
    """A pipe that would block the reader, a folder, and a link to nothing."""
    pipe, folder, link = (scene.node.resources / f"{name}.yaml" for name in ("pipe", "folder", "link"))
    os.mkfifo(pipe)
    with mended(scene, pipe):
        told(scene, f"{pipe}: not a regular file")
    folder.mkdir()
    try:
        told(scene, f"{folder}: a folder, which is not looked into")
    finally:
        folder.rmdir()
    link.symlink_to("/nowhere")
    with mended(scene, link):
        told(scene, "a symbolic link to nothing")


# The configuration, and what the agent stands on


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("datapath: {conntrack_entires: 5}", ["conntrack_entires", "config.yaml:1", "conntrack_entries"]),
        ("datpath: {}", ["datpath", "config.yaml:1", "datapath"]),
        ("agent:\n  log: {level: loud}", ["config.yaml:2 (agent.log.level)", "debug", "warning"]),
        ("datapath: {conntrack_entries: many}", ["config.yaml:1 (datapath.conntrack_entries)", "number"]),
        ("datapath: {conntrack_entries: 7}", ["config.yaml:1 (datapath.conntrack_entries)", "1024"]),
        ("pools: {ipv4: 10.0.0.300/8}", ["config.yaml:1 (pools.ipv4)"]),
        ("plugins: {enabled: [polcy]}", ["polcy", "config.yaml:1", "policy"]),
        ("plugins: {enabled: [policy], policy: {enforcment: always}}", ["enforcment", "enforcement"]),
        ("agent: [", ["config.yaml:1"]),
        ("- a\n- b", ["config.yaml:1", "mapping"]),
        ("agent: {}\nagent: {}", ["config.yaml:2", "agent"]),
    ],
)
def test_a_configuration_that_is_wrong(make: type[Node], text: str, words: list[str]) -> None:
    """The agent does not start; it says what, where and what was probably meant, without a traceback."""
    node = make()
    node.config.write_text(text)
    folders = (
        f"--set=agent.{key}={value}" for key, value in node.values["agent"].items() if key != "watch_config"
    )
    done = node.axoneme(*folders, "agent", code=1)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr
    assert not node.socket.exists()
    assert not node.bpffs.exists(), "it was refused before anything was made"


def test_a_configuration_that_is_not_there(make: type[Node]) -> None:
    done = make().axoneme("--config", "/nowhere/config.yaml", "agent", code=1)
    assert "cannot read the configuration: No such file or directory" in done.stderr
    assert "where: /nowhere/config.yaml" in done.stderr


def test_unknown_keys_from_the_environment_and_the_command_line(make: type[Node]) -> None:
    node = make()
    done = node.axoneme("config", "check", code=1, AXONEME_AGENT__NAEM="x")
    assert "environment AXONEME_AGENT__NAEM" in done.stderr
    assert "name" in done.stderr
    done = node.axoneme("--set", "datapath.strategi=single", "config", "check", code=1)
    assert "--set datapath.strategi" in done.stderr
    assert "strategy" in done.stderr


def test_a_second_agent_on_the_same_state_folder(scene: Scene) -> None:
    """It is refused, and the first one has its socket, its pins and its traffic as before."""
    node = scene.node
    done = node.axoneme("--set", f"agent.run_dir={node.folder}/other", "agent", code=1)
    assert f"another agent, process {node.pid}, uses this state folder" in done.stderr
    assert f"where: {node.folder}/state" in done.stderr
    assert "to do: stop it, or give this one an agent.state_dir of its own" in done.stderr
    done = node.axoneme("agent", code=1)
    assert "another agent" in done.stderr
    assert node.status()["agent"]["pid"] == node.pid


def unprivileged(node: Node, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command as nobody."""
    drop = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--"]
    return subprocess.run(
        [*drop, *node.program, *arguments],
        env={**node.environment, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd="/",
    )


def test_without_root(make: type[Node], tmp_path_factory: pytest.TempPathFactory) -> None:
    node = make()
    node.folder.chmod(0o755)
    done = unprivileged(node, "agent")
    assert done.returncode == 1, done.stderr
    assert f"where: {node.folder}/state" in done.stderr
    assert "cannot make the folder: Permission denied" in done.stderr
    assert "to do: run the agent as root" in done.stderr
    for name in ("state", "run", "cache"):
        (node.folder / name).mkdir()
        os.chown(node.folder / name, 65534, 65534)
    done = unprivileged(node, "agent", AXONEME_AGENT__CACHE_DIR=str(node.folder / "cache"))
    assert done.returncode == 1
    assert "the agent needs CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN" in done.stderr
    assert "to do: run it as root (sudo), or with these capabilities" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_user_who_may_not_ask_the_agent(scene: Scene) -> None:
    mode = stat.S_IMODE(scene.node.folder.stat().st_mode)
    scene.node.folder.chmod(0o755)
    try:
        done = unprivileged(scene.node, "status")
    finally:
        scene.node.folder.chmod(mode)
    assert done.returncode == 3
    assert "the agent does not answer" in done.stderr
    assert "sudo" in done.stderr


async def test_a_kernel_that_is_too_old() -> None:
    """One that knows no ring buffers, as before 5.8."""
    import errno

    kit = AgentKit()
    kernel: FakeKernel = kit.platform.fake_kernel
    kernel.fail("map_create", errno.EINVAL)
    with pytest.raises(KernelError) as raised:
        async with kit:
            pass
    assert "lacks ring buffer (Linux 5.8)" in raised.value.message
    assert raised.value.hint
    assert kernel.open_fds == 0
    assert not kernel.links
