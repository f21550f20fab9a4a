"""Plugins come, go and fail under traffic. A broken one breaks only itself, and never opens the door."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
import yaml
from scenes import CLOSED, OPEN, Scene

from axoneme.core.testing.namespaces import ask, reachable

pytestmark = pytest.mark.kernel

MODULE = textwrap.dedent(
    '''\
    """A plugin of a third party: a stage that counts packets, and a service."""

    from pathlib import Path

    from axoneme.core.datapath.layout import u32, u64
    from axoneme.core.datapath.maps import MapKind, MapSpec
    from axoneme.core.hooks import hookimpl
    from axoneme.core.records import Phase, PluginInfo, Runs, Service, Stage


    @hookimpl
    def axoneme_info():
        return PluginInfo(name="{name}")


    @hookimpl
    def axoneme_maps(context):
        return [MapSpec("{name}_counts", MapKind.ARRAY, u32, u64, 1)]


    @hookimpl
    def axoneme_stages(context):
        return [
            Stage(
                name="look", source=Path(__file__).parent / "look.c", attach=("from_workload",),
                phase=Phase.OBSERVE, runs=Runs.EVERY, maps=("{name}_counts",),
            )
        ]


    @hookimpl
    def axoneme_services(context):
        async def run(ready):
            ready()

        return [Service(name="idle", run=run)]
    '''
)

STAGE = textwrap.dedent(
    """\
    STAGE(look)
    {{
    \tu32 key = 0;
    \tu64 *count = {name}_counts_lookup(&key);

    \tif (count)
    \t\t__sync_fetch_and_add(count, 1);
    \treturn NEXT;
    }}
    """
)

#: Two ways in which a stage can be wrong: the text to replace, by what, and words and line of the message.
BROKEN = {
    "compiler": ("\treturn NEXT;", "\treturn NEXT", "does not compile: expected ';'", 8),
    "verifier": ("_add(count, 1)", "_add(count + 512, 1)", "outside of the allowed memory range", 7),
}

#: Python that goes wrong at different times.
RAISING = {
    "import": ("from pathlib import Path", "raise RuntimeError('it cannot be imported')", "it cannot be imported"),
    "hook": ("    return [MapSpec", "    raise RuntimeError('no maps today')\n    return [MapSpec", "no maps today"),
    "start": ("        ready()", "        raise RuntimeError('it does not start')", "it does not start"),
}  # fmt: skip


#: The plugin of most tests. One name, so that what it is compiled to is compiled once.
NAME = "counter"


def install(scene: Scene, name: str, *, module: str = MODULE, stage: str = STAGE) -> None:
    scene.node.install(name, module.format(name=name), {"look.c": stage.format(name=name)})


def shown(scene: Scene) -> dict[str, tuple[str, list[str]]]:
    """Digest of the program and names of its stages, by attach point."""
    return {
        row["attach_point"]: (row["digest"], [f"{s['plugin']}.{s['step']}" for s in row["steps"]])
        for row in scene.node.call("datapath.show")
    }


def state_of(scene: Scene, name: str) -> dict[str, Any]:
    (row,) = (row for row in scene.node.call("plugin.list") if row["name"] == name)
    return dict(row)


def programs(scene: Scene) -> dict[str, int]:
    return {row["name"]: row["id"] for row in scene.node.call("bpf.program.list")}


def test_a_foreign_plugin_is_enabled_and_disabled(scene: Scene) -> None:
    install(scene, NAME)
    before = shown(scene)
    with scene.traffic() as traffic:
        assert "enabled now: policy, counter" in scene.node.axoneme("plugin", "enable", NAME).stdout
        assert "counter.look" in shown(scene)["from_workload"][1]
        traffic.more(50)
        (entry,) = next(scene.node.stream("bpf.map.dump", name="counter_counts"))
        assert entry["value"] > 50
        scene.node.axoneme("plugin", "disable", NAME)
        traffic.more(50)
    assert shown(scene) == before, "a plugin that is off costs nothing: the programs are the same ones"
    assert state_of(scene, NAME)["state"] == "available"
    assert scene.node.problems() == []


def test_policy_itself_is_disabled_and_enabled(scene: Scene) -> None:
    node, client, server = scene.node, scene.client, scene.server
    with scene.traffic(closed=False) as traffic:
        node.axoneme("plugin", "disable", "policy")
        for address in server.addresses:
            assert ask(client.netns, address, CLOSED) == b"hello"
        traffic.more(50)
        node.axoneme("plugin", "enable", "policy")
        for address in server.addresses:
            assert not reachable(client.netns, address, CLOSED, timeout=0.3)
        traffic.more(50)
    assert node.problems() == []


@pytest.mark.parametrize("kind", RAISING)
def test_a_plugin_whose_python_raises_is_not_enabled(scene: Scene, kind: str) -> None:
    """The running generation stays, and so does what the file said."""
    name = f"raising{kind}"
    old, new, words = RAISING[kind]
    # With a stage that is attached nowhere: there is nothing to compile.
    module = MODULE.replace('attach=("from_workload",)', "attach=()")
    install(scene, name, module=module.replace(old, new))
    assert "to do: repair or disable it" in refused(scene, name, words)


@pytest.mark.parametrize("kind", BROKEN)
def test_a_plugin_whose_c_is_wrong_is_not_enabled(scene: Scene, kind: str) -> None:
    """The message names its file and line; the programs that run stay."""
    old, new, words, line = BROKEN[kind]
    install(scene, NAME, stage=STAGE.replace(old, new))
    assert f"{NAME}/look.c:{line}" in refused(scene, NAME, words)


def refused(scene: Scene, name: str, words: str) -> str:
    """Tries to enable a plugin under traffic; returns what the user is told."""
    node = scene.node
    before, text = programs(scene), yaml.safe_load(node.config.read_text())
    with scene.traffic() as traffic:
        done = node.axoneme("plugin", "enable", name, code=1)
        traffic.more(50)
    assert words in done.stderr
    assert programs(scene) == before
    assert yaml.safe_load(node.config.read_text()) == text
    assert name not in [row["name"] for row in node.call("plugin.list") if row["state"] != "available"]
    return done.stderr


@pytest.mark.parametrize("kind", [*RAISING, *BROKEN])
def test_a_start_with_a_broken_plugin(scene: Scene, kind: str) -> None:
    """The others start, the traffic flows, denied traffic does not, and the status says which plugin failed and why."""
    node, old_values, name = scene.node, scene.node.values, NAME
    table = {**RAISING, **BROKEN}
    old, new, words = table[kind][:3]
    wrong_c = kind in BROKEN
    install(
        scene,
        name,
        module=MODULE if wrong_c else MODULE.replace(old, new),
        stage=STAGE.replace(old, new) if wrong_c else STAGE,
    )
    with scene.traffic() as traffic:
        node.stop()
        node.configure({**old_values, "plugins": {"enabled": ["policy", name]}})
        node.start()
        traffic.more(20)
        status = node.status()
        told = [row["reason"] for row in (*status["checks"], *status["services"]) if row["plugin"] == name]
        assert any(words in reason for reason in told), told
        assert state_of(scene, "policy")["state"] == "enabled"
        # Repaired, it takes part: a reload is enough.
        install(scene, name)
        if kind not in ("hook", "start"):  # a module that was imported stays what it was
            node.axoneme("reload")
            assert "look" in str(shown(scene)["from_workload"])
        node.configure(old_values)
        node.reload()
        traffic.more(20)
    assert node.problems() == []


def test_a_required_plugin_that_fails_stops_the_start_and_opens_nothing(scene: Scene) -> None:
    node, old_values = scene.node, scene.node.values
    module = MODULE.replace('PluginInfo(name="{name}")', 'PluginInfo(name="{name}", required=True)')
    install(
        scene, NAME, module=module.replace("        ready()", "        raise RuntimeError('no guard today')")
    )
    with scene.traffic() as traffic:
        node.stop()
        node.configure({**old_values, "plugins": {"enabled": ["policy", NAME]}})
        node.start(wait=False)
        assert node.wait_end() == 1
        assert f"the plugin {NAME} is required and did not start" in node.log_text()
        assert "no guard today" in node.log_text()
        traffic.more(20)
        assert ask(scene.client.netns, scene.server.ipv4, OPEN) == b"hello"
        node.configure(old_values)
        node.start()
        traffic.more(20)
    assert node.problems() == []
