"""Building, swapping and restoring programs; on the kernel in memory and on the running one."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from axoneme.core.datapath.composer import Composition, Constants
from axoneme.core.datapath.datapath import Datapath
from axoneme.core.datapath.kernel import Kernel
from axoneme.core.datapath.layout import Struct, u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.datapath.pins import Pins
from axoneme.core.datapath.placement import cgroup_root
from axoneme.core.errors import CompileError, KernelError, PluginError, VerifierError
from axoneme.core.net.devices import Device
from axoneme.core.records import Phase, Runs, Stage
from axoneme.core.settings import DatapathSettings, Strategy
from axoneme.core.testing.datapath import program_cache

SETTINGS = DatapathSettings(conntrack_entries=1024, event_buffer=1 << 16)


def stage(text: str = "STAGE(mark)\n{\n\tp->mark = 7;\n\treturn NEXT;\n}\n", name: str = "mark") -> Stage:
    return Stage(name=name, source=text, attach=("from_workload",), phase=Phase.DECIDE, runs=Runs.FIRST)


def make(kernel: Kernel, pins: Pins, settings: DatapathSettings = SETTINGS) -> Datapath:
    datapath = Datapath(
        kernel, root=pins.root, cache=program_cache(), settings=settings, constants=Constants()
    )
    datapath.open()
    return datapath


def program_ids(datapath: Datapath) -> dict[str, int]:
    return {
        each.name: getattr(datapath.links.info(each.name), "program_id", 0) for each in datapath.attachments()
    }


async def test_a_build_runs_nowhere_until_it_is_activated(
    kernel: Kernel, pins: Pins, interface: Callable[[], int]
) -> None:
    datapath = make(kernel, pins)
    datapath.attach_workload(1, interface())
    build = await datapath.build(datapath.blueprint([], []))
    assert datapath.links.names() == []
    assert datapath.activate(build)
    assert datapath.links.names() == ["from_workload-1"]
    assert program_ids(datapath)["from_workload-1"] == build.programs["from_workload"].main.info.id
    datapath.close()


async def test_the_next_agent_adopts_programs_and_maps(
    kernel: Kernel, pins: Pins, interface: Callable[[], int]
) -> None:
    ifindex = interface()
    first = make(kernel, pins)
    first.attach_workload(1, ifindex)
    first.activate(await first.build(first.blueprint([], [])))
    before, revision = program_ids(first), first.raise_revision()
    first.close()

    second = make(kernel, pins)
    second.attach_workload(1, ifindex)
    build = await second.build(second.blueprint([], []))
    assert all(each.adopted for each in build.maps.values())
    assert not second.activate(build), "nothing had to be swapped"
    assert program_ids(second) == before
    assert second.raise_revision() == revision + 1
    second.close()


async def test_a_stage_more_swaps_the_program_and_a_stage_less_gives_the_old_one_back(
    kernel: Kernel, pins: Pins, interface: Callable[[], int]
) -> None:
    datapath = make(kernel, pins)
    datapath.attach_workload(1, interface())
    plain = await datapath.build(datapath.blueprint([], []))
    datapath.activate(plain)
    digest, revision = plain.digests, datapath.raise_revision()
    with_stage = await datapath.build(datapath.blueprint([("one", stage())], []))
    assert with_stage.digests["from_workload"] != digest["from_workload"]
    assert with_stage.programs["to_workload"] is plain.programs["to_workload"], "untouched points are kept"
    assert datapath.activate(with_stage)
    assert datapath.raise_revision() == revision + 2, "a swap makes cached verdicts stale"
    without = await datapath.build(datapath.blueprint([], []))
    assert without.digests == digest, "a disabled plugin leaves no trace"
    datapath.activate(without)
    datapath.close()


async def test_a_failed_build_leaves_what_runs(
    kernel: Kernel, pins: Pins, interface: Callable[[], int]
) -> None:
    datapath = make(kernel, pins)
    datapath.attach_workload(1, interface())
    datapath.activate(await datapath.build(datapath.blueprint([], [])))
    before, maps = program_ids(datapath), pins.names("maps")
    broken = stage("STAGE(mark)\n{\n\treturn nonsense;\n}\n")
    with pytest.raises(CompileError) as error:
        await datapath.build(datapath.blueprint([("one", broken)], []))
    assert error.value.where is not None
    assert (error.value.where.file, error.value.where.line) == ("one/mark", 3)
    assert program_ids(datapath) == before
    assert pins.names("maps") == maps
    datapath.close()


@pytest.mark.kernel
async def test_the_verifier_s_refusal_names_plugin_file_and_line(
    running_kernel: Kernel, real_pins: Pins
) -> None:
    datapath = make(running_kernel, real_pins)
    text = """
STAGE(mark)
{
	u32 key = p->skb->ifindex;
	struct endpoint *e = links_lookup(&key);

	p->mark = e->identity;
	return NEXT;
}
"""
    with pytest.raises(VerifierError) as error:
        await datapath.build(datapath.blueprint([("one", stage(text))], []))
    assert str(error.value).startswith("one/mark:7: the verifier rejects from_workload")
    assert "map_value_or_null" in error.value.log
    datapath.close()


async def test_an_attachment_that_fails_gives_the_others_their_old_program_back(
    pins: Pins, kernel: Kernel, interface: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    datapath = make(kernel, pins)
    for number in (1, 2, 3):
        datapath.attach_workload(number, interface())
    datapath.activate(await datapath.build(datapath.blueprint([], [])))
    before = program_ids(datapath)
    build = await datapath.build(datapath.blueprint([("one", stage())], []))
    attach, calls = datapath.links.attach, []

    def fails_at_the_third(name: str, *rest: object) -> object:
        calls.append(name)
        if len(calls) == 3:
            raise KernelError("no")
        return attach(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(datapath.links, "attach", fails_at_the_third)
    with pytest.raises(KernelError):
        datapath.activate(build)
    monkeypatch.undo()
    assert program_ids(datapath) == before
    datapath.close()


@pytest.mark.kernel
async def test_a_program_over_its_budget_is_cut(running_kernel: Kernel, real_pins: Pins) -> None:
    settings = attrs.evolve(SETTINGS, max_verified_instructions=12_000)
    datapath = make(running_kernel, real_pins, settings)
    build = await datapath.build(datapath.blueprint([("one", stage())], []))
    program = build.programs["from_workload"]
    assert program.composition.strategy == "tailcalls"
    assert len(program.programs) == 7
    program_id = program.main.info.id
    datapath.activate(build)
    assert any(name.startswith("jumps_from_workload_") for name in real_pins.names("maps"))
    datapath.close()

    after = make(running_kernel, real_pins, settings)
    compiled: list[Composition] = []
    after.compiler.on_compile = compiled.append
    kept = (await after.build(after.blueprint([("one", stage())], []))).programs["from_workload"]
    assert (kept.main.info.id, compiled) == (program_id, []), (
        "what is too large is not tried again, but taken over"
    )
    after.close()

    again = make(running_kernel, real_pins, attrs.evolve(settings, strategy=Strategy.TAILCALLS))
    adopted = await again.build(again.blueprint([("one", stage())], []))
    assert adopted.maps[adopted.programs["from_workload"].composition.jumps.name].adopted  # type: ignore[union-attr]
    again.close()


async def test_a_plugin_s_map_comes_and_goes_with_it(kernel: Kernel, pins: Pins) -> None:
    datapath = make(kernel, pins)
    spec = MapSpec("extra", MapKind.HASH, u32, u32, 16)
    datapath.activate(await datapath.build(datapath.blueprint([], [spec])))
    datapath.map("extra").update(1, 2)
    assert any(name.startswith("extra@") for name in pins.names("maps"))
    datapath.activate(await datapath.build(datapath.blueprint([], [])))
    assert not any(name.startswith("extra@") for name in pins.names("maps"))
    with pytest.raises(PluginError, match="no map 'extra'"):
        datapath.map("extra")
    datapath.close()


async def test_a_map_of_another_layout_is_never_reinterpreted(kernel: Kernel, pins: Pins) -> None:
    datapath = make(kernel, pins)
    old = MapSpec("extra", MapKind.HASH, u32, Struct("extra_value", {"a": u32, "b": u32}), 16)
    new = MapSpec("extra", MapKind.HASH, u32, Struct("extra_value", {"b": u32, "a": u32}), 16)
    datapath.activate(await datapath.build(datapath.blueprint([], [old])))
    datapath.map("extra").update(1, {"a": 5})
    datapath.activate(await datapath.build(datapath.blueprint([], [new])))
    assert datapath.map("extra").lookup(1) is None
    datapath.close()


async def test_an_unknown_attach_point_is_named(kernel: Kernel, pins: Pins) -> None:
    datapath = make(kernel, pins)
    wrong = attrs.evolve(stage(), attach=("from_wrkload",))
    with pytest.raises(PluginError, match="from_wrkload"):
        await datapath.build(datapath.blueprint([("one", wrong)], []))
    datapath.close()


async def test_remove_leaves_nothing(kernel: Kernel, pins: Pins, interface: Callable[[], int]) -> None:
    datapath = make(kernel, pins)
    ifindex = interface()
    datapath.attach_workload(1, ifindex)
    datapath.activate(await datapath.build(datapath.blueprint([], [])))
    datapath.close()
    datapath.remove()
    assert pins.names("links") == pins.names("maps") == pins.names("programs") == []
    pins.prepare()


@pytest.mark.kernel
async def test_clsact_when_it_is_forced(
    running_kernel: Kernel, real_pins: Pins, real_interface: Callable[[], int]
) -> None:
    from axoneme.core.settings import AttachMode

    settings = attrs.evolve(SETTINGS, attach_mode=AttachMode.CLSACT)
    datapath = make(running_kernel, real_pins, settings)
    datapath.attach_workload(1, real_interface())
    first = await datapath.build(datapath.blueprint([], []))
    datapath.activate(first)
    assert program_ids(datapath)["from_workload-1"] == first.programs["from_workload"].main.info.id
    second = await datapath.build(datapath.blueprint([("one", stage())], []))
    datapath.activate(second)
    assert program_ids(datapath)["from_workload-1"] == second.programs["from_workload"].main.info.id
    datapath.detach_workload(1)
    assert datapath.links.names() == []
    datapath.close()


@pytest.mark.kernel
async def test_a_socket_program_rules_over_its_cgroup_and_no_other(
    running_kernel: Kernel, real_pins: Pins, real_cgroup: Path
) -> None:
    text = "STAGE(refuse)\n{\n\treturn TAKEN(0);\n}\n"
    refuse = Stage(name="refuse", source=text, attach=("sock_connect4",), phase=Phase.DECIDE)
    datapath = make(running_kernel, real_pins, attrs.evolve(SETTINGS, cgroup=real_cgroup))
    datapath.activate(await datapath.build(datapath.blueprint([("one", refuse)], [])))
    assert datapath.links.names() == ["sock_connect4-cgroup"]
    assert await connect(real_cgroup) == "PermissionError"
    datapath.activate(await datapath.build(datapath.blueprint([], [])))
    assert datapath.links.names() == []
    assert await connect(real_cgroup) == "ConnectionRefusedError"
    datapath.close()


async def connect(cgroup: Path) -> str:
    """What becomes of a connect() to a closed local port by a process in that cgroup."""
    script = (
        f"import socket; open({str(cgroup / 'cgroup.procs')!r}, 'w').write('0')\n"
        "try: socket.create_connection(('127.0.0.1', 1))\n"
        "except OSError as error: print(type(error).__name__)"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    return out.decode().strip()


@pytest.mark.kernel
async def test_devices_get_their_programs_and_lose_them_while_it_runs(
    running_kernel: Kernel, real_pins: Pins, real_interface: Callable[[], int]
) -> None:
    one, other = (
        Device(ifindex=index, name=socket.if_indextoname(index), used=True, why="", named=True)
        for index in (real_interface(), real_interface())
    )
    datapath = make(running_kernel, real_pins, attrs.evolve(SETTINGS, devices=("some*",)))
    datapath.use_devices([one])
    datapath.activate(await datapath.build(datapath.blueprint([], [])))
    assert datapath.links.names() == [f"from_network-{one.ifindex}"]
    assert datapath.map("devices").items()[0].tolist() == [one.ifindex]
    revision = datapath.raise_revision()
    datapath.use_devices([other])
    assert datapath.links.names() == [f"from_network-{other.ifindex}"]
    assert datapath.map("devices").items()[0].tolist() == [other.ifindex]
    datapath.use_devices([other])
    assert datapath.raise_revision() == revision + 2, "only a change makes cached verdicts stale"
    datapath.close()


@pytest.mark.kernel
async def test_as_long_as_nobody_says_which_devices_there_are_nothing_is_detached(
    running_kernel: Kernel, real_pins: Pins, real_interface: Callable[[], int]
) -> None:
    """An agent that starts again does not know yet; nor does one that cannot ask the kernel."""
    device = Device(ifindex=real_interface(), name="a", used=True, why="", named=True)
    settings = attrs.evolve(SETTINGS, devices=("a",))
    first = make(running_kernel, real_pins, settings)
    first.use_devices([device])
    first.activate(await first.build(first.blueprint([], [])))
    first.close()
    second = make(running_kernel, real_pins, settings)
    second.activate(await second.build(second.blueprint([], [])))
    assert second.links.names() == [f"from_network-{device.ifindex}"]
    assert second.map("devices").items()[0].tolist() == [device.ifindex]
    second.use_devices([])
    assert second.links.names() == []
    second.close()


async def test_automatic_devices_need_somebody_who_has_something_to_do_there(
    kernel: Kernel, pins: Pins, interface: Callable[[], int]
) -> None:
    """Or else packets would pass the host's own filters for nothing."""
    datapath = make(kernel, pins)
    device = Device(ifindex=interface(), name="a", used=True, why="")
    datapath.use_devices([device])
    idle, busy = stage(), attrs.evolve(stage(), devices=True)
    for one, names in ((idle, []), (busy, [f"from_network-{device.ifindex}"]), (idle, [])):
        datapath.activate(await datapath.build(datapath.blueprint([("one", one)], [])))
        assert datapath.links.names() == names
        assert len(datapath.map("devices").items()[0]) == len(names)
    datapath.close()


def test_the_cgroup_hierarchy_is_found(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("tmpfs /run tmpfs rw 0 0\ncgroup2 /sys/fs/cgroup/uni\\040fied cgroup2 rw 0 0\n")
    assert cgroup_root(mounts) == Path("/sys/fs/cgroup/uni fied")
    mounts.write_text("tmpfs /run tmpfs rw 0 0\n")
    with pytest.raises(KernelError, match="no cgroups of version 2"):
        cgroup_root(mounts)
