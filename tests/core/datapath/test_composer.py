"""One text per attach point: a function of its stages, without a trace of what is not in it."""

from __future__ import annotations

import re

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.datapath.abi import core_maps
from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.composer import Composition, Constants, compose
from axoneme.core.datapath.layout import Struct, u32
from axoneme.core.datapath.maps import MapKind, MapSpec
from axoneme.core.datapath.packet_program import CUTS
from axoneme.core.datapath.reasons import REASONS
from axoneme.core.datapath.stages import place
from axoneme.core.errors import PluginError, Where
from axoneme.core.records import Phase, Runs, Stage

PACKETS = [name for name, point in ATTACH_POINTS.items() if point.packets]
OWN = MapSpec("tally", MapKind.HASH, u32, Struct("tally_value", {"packets": u32}), 16)
UNUSED = MapSpec("aaa_unused", MapKind.HASH, u32, u32, 16)
CORE = core_maps(connections=1024, endpoints=16, ipcache=16, events=4096)
MAPS = {spec.name: spec for spec in [*CORE, OWN, UNUSED]}

BODY = "STAGE(%s)\n{\n\tu32 key = 0;\n\n\ttally_lookup(&key);\n\treturn NEXT;\n}\n"


def stage(name: str, phase: Phase = Phase.DECIDE, runs: Runs = Runs.FIRST, **more: object) -> Stage:
    fields = {"source": BODY % name, "attach": tuple(PACKETS), "maps": ("tally",)} | more
    return Stage(name=name, phase=phase, runs=runs, **fields)  # type: ignore[arg-type]


STAGES = [
    ("policy", stage("decide")),
    ("lb", stage("translate", Phase.TRANSLATE, Runs.EVERY)),
    ("limit", stage("limit", before=("policy.decide",))),
    ("audit-log", stage("observe", Phase.OBSERVE, Runs.EVERY)),
]


def composed(
    stages: list[tuple[str, Stage]],
    point: str = "from_workload",
    cuts: tuple[str, ...] = (),
    *,
    direct: bool = False,
) -> Composition:
    return compose(
        ATTACH_POINTS[point], place(stages), MAPS,
        constants=Constants(direct_routing=direct), reasons=REASONS, cuts=frozenset(cuts),
    )  # fmt: skip


@pytest.mark.parametrize("point", ATTACH_POINTS)
def test_the_same_stages_give_the_same_text(point: str) -> None:
    assert composed([], point).text == composed([], point).text
    assert composed([], point).digest == composed([], point).digest


@settings(deadline=None, max_examples=20)
@given(stages=st.permutations(STAGES), cuts=st.sets(st.sampled_from(CUTS)))
def test_the_order_they_come_in_means_nothing(stages: list[tuple[str, Stage]], cuts: set[str]) -> None:
    assert composed(stages, cuts=tuple(cuts)).text == composed(STAGES, cuts=tuple(sorted(cuts))).text


@pytest.mark.parametrize("removed", range(len(STAGES)))
def test_a_plugin_that_is_off_leaves_no_trace(removed: int) -> None:
    """Not in the text, and so neither in the bytecode nor in what runs: the program is the one without it."""
    name = STAGES[removed][0].replace("-", "_")
    rest = [each for index, each in enumerate(STAGES) if index != removed]
    without = composed(rest)
    assert f"{name}_{STAGES[removed][1].name}" in composed(STAGES).text
    assert not re.search(rf"\b{name}_{STAGES[removed][1].name}\b", without.text)
    assert "PLUGIN " + name not in without.text
    assert without.digest != composed(STAGES).digest


def test_nobodys_maps_are_not_in_it() -> None:
    assert "tally" not in composed([]).text
    assert "aaa_unused" not in composed(STAGES).text
    names = {spec.name for spec in composed(STAGES).tokens.values()}
    assert "tally" in names
    assert names <= set(MAPS)


def test_stages_of_other_attach_points_change_nothing() -> None:
    bench = composed([], "to_workload")
    assert composed([], "to_workload") == bench


def test_the_digest_follows_everything_that_counts() -> None:
    plain = composed(STAGES)
    changed = [
        composed(STAGES, direct=True),
        composed([*STAGES[:3], ("audit-log", attrs.evolve(STAGES[3][1], runs=Runs.FIRST))]),
        composed([*STAGES[:3], ("audit-log", attrs.evolve(STAGES[3][1], defines={"LIMIT": 5}))]),
        composed([*STAGES[:3], ("other", STAGES[3][1])]),
        composed(STAGES, cuts=("track",)),
        composed(STAGES, "to_workload"),
    ]
    assert len({plain.digest, *(each.digest for each in changed)}) == 1 + len(changed)


def test_defines_end_with_their_stage() -> None:
    text = composed([("p", stage("one", defines={"LIMIT": 5, "BURST": 9}))]).text
    assert text.count("#define LIMIT 5") == text.count("#undef LIMIT") == 2, "once per family"
    assert text.index("#define BURST 9") < text.index("#define LIMIT 5")


def test_families_are_written_once_and_instantiated_twice() -> None:
    text = composed(STAGES).text
    assert [int(f) for f in re.findall(r"#define FAMILY (\d)", text)] == [4, 6]
    assert text.count('#line 1 "policy/decide"') == 2
    assert text.count('#line 1 "bpf/track.h"') == 2
    assert text.count('#line 1 "bpf/neighbor.h"') == 1


def test_every_line_knows_where_it_came_from() -> None:
    composition = composed(STAGES)
    lines = composition.text.split("\n")
    body = (BODY % "decide").split("\n")
    at = lines.index("STAGE(decide)")
    for offset in range(len(body) - 1):
        assert composition.origin(at + 1 + offset) == Where("policy/decide", 1 + offset)
    shared = lines.index("INLINE int F(track)(struct F(packet) *p)")
    where = composition.origin(shared + 1)
    assert where.file == "bpf/track.h"
    assert where.line is not None
    path = next(p for p in _shared().splitlines() if p.startswith("INLINE int F(track)"))
    assert _shared().splitlines()[where.line - 1] == path


def _shared() -> str:
    from axoneme.core.datapath.composer import shared_folder

    return (shared_folder() / "track.h").read_text()


def test_the_machines_paths_are_not_in_it() -> None:
    assert str(_root()) not in composed(STAGES).text


def _root() -> object:
    from axoneme.core.datapath.composer import shared_folder

    return shared_folder().resolve().parent


# Errors.


def test_an_undeclared_map_is_named() -> None:
    with pytest.raises(PluginError, match=r"stage p\.one uses the map 'nowhere', which nobody declares"):
        composed([("p", stage("one", maps=("nowhere",)))])


def test_nothing_is_first_before_the_connection_is_known() -> None:
    with pytest.raises(PluginError, match=r"stage p\.one: before the connection is known"):
        composed([("p", stage("one", Phase.CLASSIFY))])


def test_what_translates_first_packets_does_so_where_they_are_known() -> None:
    first = ("p", stage("one", Phase.TRANSLATE))
    steps = [f"{step.plugin}.{step.name}" for step in composed([*STAGES, first]).order]
    assert steps[:5] == ["core.classify", "lb.translate", "core.track", "p.one", "core.resolve"]
    with pytest.raises(PluginError, match=r"stage p\.one: to_network knows no first packet"):
        composed([first], "to_network")


def test_a_phase_that_the_attach_point_lacks_is_an_error() -> None:
    point = attrs.evolve(ATTACH_POINTS["from_workload"], phases=(Phase.DECIDE,))
    with pytest.raises(PluginError, match="from_workload has no phase observe"):
        compose(point, place([STAGES[3]]), MAPS, constants=Constants(), reasons=REASONS)


# What is shown of it.


def test_the_order_is_told_with_the_cores_own_steps() -> None:
    steps = [f"{step.plugin}.{step.name}" for step in composed(STAGES).order]
    assert steps == [
        "core.classify", "lb.translate", "core.track", "core.resolve", "limit.limit", "policy.decide", "core.commit",
        "core.rewrite", "core.deliver", "audit-log.observe", "core.observe",
    ]  # fmt: skip


def test_a_chain_is_its_stages_alone() -> None:
    connect = Stage(
        name="connect",
        source="STAGE(connect)\n{\n\treturn NEXT;\n}\n",
        attach=("sock_connect4",),
        phase=Phase.TRANSLATE,
    )
    composition = composed([("lb", connect)], "sock_connect4")
    assert [step.name for step in composition.order] == ["connect"]
    assert composition.programs == ("sock_connect4",)
    assert composition.tokens == {}
    assert "struct connection4 {" not in composition.text


# Cut into tail calls.


def test_a_cut_program_has_a_map_of_its_own() -> None:
    """Two programs of one attach point may live at the same time, while one is swapped for the other."""
    one, other = composed(STAGES, cuts=("track",)), composed(STAGES[:2], cuts=("track",))
    assert one.strategy == "tailcalls"
    assert one.jumps is not None
    assert other.jumps is not None
    assert one.jumps.name != other.jumps.name
    assert one.programs == ("from_workload", "from_workload_1_4", "from_workload_1_6")
    assert composed(STAGES).jumps is None


@pytest.mark.parametrize("point", ["to_network"])
def test_what_cannot_be_cut_has_one_program(point: str) -> None:
    assert composed(STAGES, point, cuts=CUTS).programs == (point,)
