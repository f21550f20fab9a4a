"""Bytecode and maps become programs in the kernel, and a refusal names the plugin's file and line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from axoneme.core.datapath import asm
from axoneme.core.datapath.abi import core_maps
from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.cache import Cache
from axoneme.core.datapath.compiler import Bytecode, Compiler
from axoneme.core.datapath.composer import Composition, Constants, compose
from axoneme.core.datapath.kernel import Kernel
from axoneme.core.datapath.layout import u32
from axoneme.core.datapath.loader import load
from axoneme.core.datapath.maps import Map, MapKind, MapSpec
from axoneme.core.datapath.reasons import REASONS
from axoneme.core.datapath.stages import place
from axoneme.core.datapath.syscall import SyscallKernel
from axoneme.core.errors import VerifierError, Where
from axoneme.core.records import Phase, Stage
from axoneme.core.testing.datapath import program_cache
from axoneme.core.testing.fake_kernel import FakeKernel

SWITCH = MapSpec("switch", MapKind.HASH, u32, u32, 4)
CORE = core_maps(connections=1024, endpoints=16, ipcache=16, events=4096)
SPECS = {spec.name: spec for spec in [*CORE, SWITCH]}

#: Reads a map's value without asking whether there is one: the verifier wants that question.
CARELESS = """/* A stage that forgets something. */
STAGE(careless)
{
	u32 zero = 0;
	u32 *value = switch_lookup(&zero);

	return *value ? DROP(REASON_POLICY_DENIED) : NEXT;
}
"""
BAD_LINE = 7


def composed(
    source: Path | str, point: str = "from_workload", cuts: frozenset[str] = frozenset()
) -> Composition:
    phase = Phase.AUTHENTICATE if ATTACH_POINTS[point].packets else Phase.TRANSLATE
    stage = Stage(name="careless", source=source, attach=(point,), phase=phase, maps=("switch",))
    return compose(
        ATTACH_POINTS[point],
        place([("sample", stage)]),
        SPECS,
        constants=Constants(),
        reasons=REASONS,
        cuts=cuts,
    )


@contextlib.contextmanager
def opened(kernel: Kernel, composition: Composition) -> Iterator[Mapping[str, Map]]:
    with contextlib.ExitStack() as stack:
        specs = composition.tokens.values()
        yield {spec.name: stack.enter_context(Map.create(kernel, spec)) for spec in specs}


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler(Cache(program_cache()))


class Nowhere:
    """Stands for the compiler where nothing is compiled."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def locate(self, composition: Composition, program: str, instruction: int) -> Where | None:
        self.asked.append((program, instruction))
        return Where("sample/careless", BAD_LINE)


def handmade(composition: Composition) -> Bytecode:
    text = asm.load_map(1, 1) + asm.returning(0)
    return Bytecode(programs=dict.fromkeys(composition.programs, text), cached=False)


@pytest.mark.kernel
@pytest.mark.parametrize("point", ["from_workload", "to_network", "xdp_network", "sock_connect4"])
@pytest.mark.parametrize("cuts", [frozenset(), frozenset({"track"})])
async def test_the_verifiers_refusal_names_the_plugins_line(
    compiler: Compiler, tmp_path: Path, point: str, cuts: frozenset[str]
) -> None:
    if cuts and not point.startswith("from"):
        return
    source = tmp_path / "stages" / "careless.c"
    source.parent.mkdir()
    source.write_text(CARELESS)
    composition = composed(source, point, cuts)
    kernel = SyscallKernel()
    (bytecode,) = await compiler.compile([composition])
    with opened(kernel, composition) as maps, pytest.raises(VerifierError) as told:
        await load(kernel, composition, bytecode, maps, compiler)
    assert told.value.where == Where("sample/stages/careless.c", BAD_LINE)
    assert "map_value_or_null" in told.value.message
    assert "\n" not in str(told.value)
    assert str(told.value).startswith(f"sample/stages/careless.c:{BAD_LINE}: the verifier rejects {point}")
    assert "processed" in told.value.log, "the whole log, for those who ask"


@pytest.mark.kernel
async def test_tail_calls_are_linked(compiler: Compiler) -> None:
    kernel = SyscallKernel()
    composition = composed(CARELESS.replace("*value ?", "value && *value ?"), cuts=frozenset({"track"}))
    (bytecode,) = await compiler.compile([composition])
    with opened(kernel, composition) as maps:
        loaded = await load(kernel, composition, bytecode, maps, compiler)
        assert len(loaded.programs) == len(composition.programs) == 3
        assert composition.jumps is not None
        jumps = maps[composition.jumps.name]
        assert [jumps.lookup(index) for index in (0, 1)] == [
            program.info.id for program in loaded.programs[1:]
        ]
        assert loaded.main is loaded.programs[0]
        assert loaded.verified == max(info.verified for info in loaded.infos) > 1000
        loaded.close()


async def test_refusals_close_what_was_loaded_before() -> None:
    """The third program is refused: the two that were loaded go, and nothing is linked."""
    loaded: list[Any] = []

    def refuse(attributes: Any) -> str | None:
        loaded.append(attributes.name)
        return "0: (95) exit\nR0 !read_ok\nprocessed 1 insns" if len(loaded) == 3 else None

    kernel, locator = FakeKernel(refuse=refuse), Nowhere()
    composition = composed("", cuts=frozenset({"track"}))
    with opened(kernel, composition) as maps:
        before = kernel.open_fds
        with pytest.raises(
            VerifierError, match=r"sample/careless:7: the verifier rejects from_workload_1_6: R0 !read_ok"
        ):
            await load(kernel, composition, handmade(composition), maps, locator)
        assert kernel.open_fds == before
        assert composition.jumps is not None
        assert maps[composition.jumps.name].lookup(0) is None
    assert locator.asked == [("from_workload_1_6", 0)]


async def test_a_failing_map_update_closes_all() -> None:
    kernel = FakeKernel()
    composition = composed("", cuts=frozenset({"track"}))
    with opened(kernel, composition) as maps:
        before = kernel.open_fds
        kernel.fail("map_update", 12, nth=2)
        with pytest.raises(Exception, match="made to fail"):
            await load(kernel, composition, handmade(composition), maps, Nowhere())
        assert kernel.open_fds == before


async def test_classifiers_serve_every_way_of_attaching() -> None:
    """No expected attach type: the same program goes to a TCX link and to a filter."""
    kernel = FakeKernel()
    for point in ("from_workload", "sock_connect4"):
        composition = composed("", point)
        with opened(kernel, composition) as maps:
            loaded = await load(kernel, composition, _without_maps(composition), maps, Nowhere())
            attributes = kernel.programs[loaded.main.info.id].attributes
            expected = None if point == "from_workload" else ATTACH_POINTS[point].attach
            assert attributes.expected_attach == expected
            assert attributes.type is ATTACH_POINTS[point].program
            loaded.close()


def _without_maps(composition: Composition) -> Bytecode:
    return Bytecode(programs=dict.fromkeys(composition.programs, asm.returning(0)), cached=False)


async def test_long_names_are_cut_for_the_kernel() -> None:
    kernel = FakeKernel()
    composition = composed("", "sock_getpeername4")
    with opened(kernel, composition) as maps:
        loaded = await load(kernel, composition, _without_maps(composition), maps, Nowhere())
        assert kernel.programs[loaded.main.info.id].attributes.name == "sock_getpeernam"
