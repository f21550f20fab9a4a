from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from axoneme.core.agent import Agent
from axoneme.core.contributions import CORE
from axoneme.core.errors import AxonemeError, CompileError, ConfigError, LockedError, PluginError, Where
from axoneme.core.testing.agent import AgentKit, FakePlatform

from .sample import Sample


def plugin_values(name: str = "sample", **section: Any) -> dict[str, Any]:
    return {"plugins": {name: section}}


async def test_a_plugin_runs_and_stops_with_the_agent() -> None:
    sample = Sample()
    async with AgentKit([sample]) as kit:
        assert kit.agent.ready
        assert kit.agent.datapath.map("sample_map").lookup(1) == 8
        assert sample.events == ["start 8"]
        assert kit.agent.context("sample") is sample.contexts[0]
        assert list(kit.agent.stages) == [
            "folders", "host", "plugins", "programs", "workloads", "api", "services", "attach",
        ]  # fmt: skip
    assert sample.events == ["start 8", "stop 8"]
    with pytest.raises(AxonemeError, match="not started"):
        _ = kit.agent.state


async def test_embedding_takes_a_mapping(tmp_path: Path) -> None:
    folders = {
        name: str(tmp_path / name) for name in ("state_dir", "run_dir", "cache_dir", "bpffs", "resources")
    }
    async with Agent(
        {"agent": folders | {"ready_timeout": 0.1}}, [Sample()], platform=FakePlatform()
    ) as agent:
        endpoint = await agent.workloads.add("web", labels={"app": "web"})
        assert agent.state.table("endpoints").get(endpoint.id).name == "web"


async def test_an_agent_object_starts_once() -> None:
    async with AgentKit() as kit:
        pass
    with pytest.raises(AxonemeError, match="started before"):
        await kit.agent.start()


async def test_a_second_agent_on_the_same_state_names_the_first(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with AgentKit(folder=tmp_path, platform=platform):
        with pytest.raises(LockedError, match=f"process {os.getpid()}") as caught:
            await AgentKit(folder=tmp_path, platform=platform).agent.start()
        assert caught.value.where is not None
        assert caught.value.where.file == str(tmp_path / "state")
    async with AgentKit(folder=tmp_path, platform=platform) as third:
        assert third.agent.ready


async def test_a_restart_finds_its_maps_with_their_entries(tmp_path: Path) -> None:
    platform = FakePlatform()
    async with AgentKit([Sample()], folder=tmp_path, platform=platform) as kit:
        kit.agent.datapath.map("sample_map").update(7, 77)
        before = kit.agent.datapath.map("sample_map").id
    assert platform.fake_kernel.open_fds == 0
    async with AgentKit([Sample()], folder=tmp_path, platform=platform) as kit:
        assert kit.agent.datapath.map("sample_map").id == before
        assert kit.agent.datapath.map("sample_map").lookup(7) == 77


# Failing starts


async def test_a_failed_start_leaves_nothing_running(tmp_path: Path) -> None:
    platform = FakePlatform()
    sample = Sample(required=True)
    kit = AgentKit([sample], plugin_values(fail="service"), folder=tmp_path, platform=platform)
    with pytest.raises(
        PluginError, match="sample is required and did not start: ValueError: no service today"
    ):
        await kit.agent.start()
    assert platform.fake_kernel.open_fds == 0
    assert not kit.agent.socket.exists()
    async with AgentKit(folder=tmp_path, platform=platform) as again:
        assert again.agent.ready


async def test_a_plugin_whose_hook_raises_is_left_out() -> None:
    async with AgentKit([Sample("bad"), Sample("good")], plugin_values("bad", fail="stages")) as kit:
        manager = kit.agent.generation.assembly.manager  # type: ignore[union-attr]
        assert manager.enabled == ["good"]
        assert manager.failed == {"bad": "ValueError: no stages today"}
        assert kit.agent.datapath.map("good_map").lookup(1) == 8
        with pytest.raises(PluginError, match="there is no map"):
            kit.agent.datapath.map("bad_map")


async def test_a_required_plugin_whose_hook_raises_stops_the_start() -> None:
    with pytest.raises(PluginError, match="bad is required and failed: ValueError: no stages today"):
        async with AgentKit([Sample("bad", required=True)], plugin_values("bad", fail="stages")):
            pass


async def test_a_plugin_whose_c_does_not_compile_is_left_out() -> None:
    platform = FakePlatform()
    platform.compiler.refuse["WRONG"] = Where("bad/count", 3)
    plugins = [Sample("bad"), Sample("good")]
    async with AgentKit(plugins, plugin_values("bad", stage="/* WRONG */"), platform=platform) as kit:
        manager = kit.agent.generation.assembly.manager  # type: ignore[union-attr]
        assert manager.failed == {"bad": "bad/count:3: the compiler refuses it"}
        assert plugins[0].events == []
        assert plugins[1].events == ["start 8"]


async def test_a_plugin_whose_c_breaks_somebody_elses_line_is_found_by_leaving_it_out() -> None:
    platform = FakePlatform()
    platform.compiler.refuse["TOO_MUCH"] = Where("bpf/classify.h", 200)
    plugins = [Sample("bad"), Sample("good"), Sample("worse")]
    values = plugin_values("bad", stage="/* TOO_MUCH */")
    async with AgentKit(plugins, values, platform=platform) as kit:
        manager = kit.agent.generation.assembly.manager  # type: ignore[union-attr]
        assert manager.failed == {"bad": "bpf/classify.h:200: the compiler refuses it"}
        assert manager.enabled == ["good", "worse"]


async def test_a_service_that_fails_does_not_stop_the_others() -> None:
    good = Sample("good")
    async with AgentKit([Sample("bad"), good], plugin_values("bad", fail="service")) as kit:
        assert good.events == ["start 8"]
        assert not kit.agent.ready


async def test_a_section_that_is_wrong_stops_the_start() -> None:
    with pytest.raises(ConfigError, match="unknown key 'szie'"):
        await AgentKit([Sample()], plugin_values(szie=3)).agent.start()


async def test_conflicts_name_every_provider() -> None:
    class Thief(Sample):
        pass

    first, second = Sample("one"), Thief("two")
    second.axoneme_tables = first.axoneme_tables  # type: ignore[method-assign]
    with pytest.raises(PluginError, match="the table one_rows comes from one and two"):
        await AgentKit([first, second]).agent.start()


async def test_no_plugins_starts_the_core_alone() -> None:
    sample = Sample()
    async with AgentKit([sample], no_plugins=True) as kit:
        assert kit.agent.ready
        assert sample.events == []


async def test_a_plugin_that_breaks_early_is_still_required_if_it_said_so(tmp_path: Path) -> None:
    async with AgentKit([Sample("guard", required=True)], folder=tmp_path):
        pass

    class Broken(Sample):
        def axoneme_tables(self) -> Any:  # no longer marked as a hook: it cannot even be registered
            return []

    kit = AgentKit([Broken("guard")], folder=tmp_path)
    with pytest.raises(PluginError, match="guard is required and failed"):
        await kit.agent.start()


# Reloading


async def test_an_unchanged_configuration_is_a_no_op() -> None:
    sample = Sample()
    async with AgentKit([sample]) as kit:
        kit.configure({})
        assert await kit.agent.reload() is False
        assert kit.agent.generation is not None
        assert kit.agent.generation.number == 1
    assert sample.events == ["start 8", "stop 8"]


async def test_only_what_changed_is_started_anew_and_before_the_old_one_stops() -> None:
    one, two = Sample("one"), Sample("two")
    async with AgentKit([one, two]) as kit:
        agent = kit.agent
        context, map_id = agent.context("two"), agent.datapath.map("two_map").id
        told: list[bool] = []
        agent.on_reload.append(lambda: told.append(True))
        kit.configure(plugin_values("one", size=9))
        assert await agent.reload() is True
        assert told == [True]
        assert one.events == ["start 8", "start 9", "stop 8"]
        assert two.events == ["start 8"]
        assert agent.context("two") is context
        assert agent.datapath.map("two_map").id == map_id
        assert agent.datapath.map("one_map").lookup(1) == 9
        assert context.map("one_map") is agent.datapath.map("one_map")
        assert agent.ready


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"fail": "stages"}, "no stages today"),
        ({"fail": "service", "size": 9}, "no service today"),
        ({"stage": "/* WRONG */"}, "the compiler refuses it"),
        ({"szie": 1}, "unknown key 'szie'"),
    ],
)
async def test_a_failed_reload_leaves_everything_as_it_was(section: dict[str, Any], message: str) -> None:
    platform = FakePlatform()
    platform.compiler.refuse["WRONG"] = Where("sample/count", 3)
    sample, other = Sample(), Sample("other")
    async with AgentKit([sample, other], platform=platform) as kit:
        agent = kit.agent
        fds, tables, digest = platform.fake_kernel.open_fds, agent.state.names(), agent.config.digest
        generation = agent.generation
        kit.configure(plugin_values(**section))
        with pytest.raises(AxonemeError, match=message):
            await agent.reload()
        assert agent.generation is generation
        assert agent.config.digest == digest
        assert agent.state.names() == tables
        assert platform.fake_kernel.open_fds == fds
        assert agent.ready
        assert agent.reload_error is not None
        assert [event for event in sample.events if event != "start 9"] == ["start 8"]
        assert other.events == ["start 8"]
        kit.configure(plugin_values(size=10))
        assert await agent.reload() is True
        assert agent.reload_error is None


async def test_a_reload_whose_programs_cannot_be_attached_leaves_everything_as_it_was() -> None:
    platform, sample = FakePlatform(), Sample()
    async with AgentKit([sample], platform=platform) as kit:
        await kit.agent.workloads.add("web")
        fds = platform.fake_kernel.open_fds
        platform.fake_kernel.fail("link_update", 22)
        kit.configure(plugin_values(stage="/* other code */"))
        with pytest.raises(AxonemeError):
            await kit.agent.reload()
        assert kit.agent.ready
        assert platform.fake_kernel.open_fds == fds
        assert sample.events == ["start 8", "start 8", "stop 8"]
        assert await kit.agent.reload() is True


async def test_who_must_be_alone_ends_before_its_successor_and_comes_back_if_that_is_refused() -> None:
    one, other = Sample("one", alone=True), Sample("two", alone=True)
    async with AgentKit([one, other]) as kit:
        kit.configure(plugin_values("one", size=9))
        assert await kit.agent.reload() is True
        assert one.events == ["start 8", "stop 8", "start 9"]
        kit.configure({"plugins": {"one": {"size": 10}, "two": {"fail": "service"}}})
        with pytest.raises(AxonemeError, match="no service today"):
            await kit.agent.reload()
        assert kit.agent.ready
        assert one.events[3:] == ["stop 9", "start 10", "stop 10", "start 9"]
        assert other.events == ["start 8", "stop 8", "start 8", "start 8"]
        assert kit.agent.datapath.map("one_map").lookup(1) == 9
    assert one.events[7:] == ["stop 9"]


async def test_a_plugin_that_had_failed_does_not_keep_others_from_changing() -> None:
    platform = FakePlatform()
    platform.compiler.refuse["WRONG"] = Where("bad/count", 3)
    good = Sample("good")
    values = plugin_values("bad", stage="/* WRONG */")
    async with AgentKit([Sample("bad"), good], values, platform=platform) as kit:
        kit.configure({"plugins": values["plugins"] | {"good": {"size": 9}}})
        assert await kit.agent.reload() is True
        assert good.events == ["start 8", "start 9", "stop 8"]


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"node": {"name": "other"}}, "node.name"),
        ({"pools": {"ipv4": "10.9.0.0/16"}}, "pools.ipv4"),
        ({"agent": {"name": "other"}}, "agent.name"),
        ({"datapath": {"devices": ["eth0"]}}, "datapath.devices"),
    ],
)
async def test_what_only_a_new_start_can_change_is_refused(values: dict[str, Any], name: str) -> None:
    async with AgentKit() as kit:
        kit.configure(values)
        with pytest.raises(ConfigError, match=f"{name} cannot change while the agent runs"):
            await kit.agent.reload()


async def test_plugins_come_and_go_with_their_tables_and_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    from axoneme.core.discovery import Found, Provenance

    sample = Sample()
    found = {"sample": (Found("sample", Provenance(distribution="test"), lambda: sample),)}
    async with AgentKit(found=found) as kit:
        agent = kit.agent
        kit.resource("thing.yaml", "apiVersion: v1\nkind: SampleThing\nmetadata: {name: t}\n")
        kit.configure({"plugins": {"enabled": ["sample"]}})
        assert await agent.reload() is True
        row = agent.state.table("resources").get(("SampleThing", "", "t"))
        assert row is not None
        assert row.parsed == "t"
        assert agent.state.table("sample_rows").all() == []
        kit.configure({})
        assert await agent.reload() is True
        assert "sample_rows" not in agent.state.names()
        assert sample.events == ["start 8", "stop 8"]
        assert list(agent.generation.instances) == [CORE]  # type: ignore[union-attr]


async def test_two_reloads_at_once_follow_each_other() -> None:
    sample = Sample()
    async with AgentKit([sample]) as kit:
        kit.configure(plugin_values(size=9))
        assert sorted(await asyncio.gather(kit.agent.reload(), kit.agent.reload())) == [False, True]
        assert sample.events == ["start 8", "start 9", "stop 8"]


async def test_links_are_attached_with_the_workload_and_detached_with_it() -> None:
    async with AgentKit() as kit:
        endpoint = await kit.agent.workloads.add("web")
        names = [attached.name for attached in kit.agent.datapath.attachments()]
        assert f"from_workload-{endpoint.id}" in names
        await kit.agent.workloads.remove("web")
        assert f"from_workload-{endpoint.id}" not in [a.name for a in kit.agent.datapath.attachments()]


def test_the_compile_error_is_the_plugins_by_its_file() -> None:
    from axoneme.core.lifecycle import blamed

    assert blamed(CompileError("x", where=Where("bad/count.c", 3)), ["bad"]) == "bad"
    assert blamed(PluginError("stage bad.count: no phase"), ["bad"]) == "bad"
    assert blamed(PluginError("plugin bad: stage x"), ["bad"]) == "bad"
    assert blamed(CompileError("x", where=Where("bpf/track.h", 3)), ["bad"]) is None
