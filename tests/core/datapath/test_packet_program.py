"""The generated part of a packet program: which steps, in which order, in which function."""

from __future__ import annotations

import re
from itertools import combinations

import pytest

from axoneme.core.datapath.attach import ATTACH_POINTS
from axoneme.core.datapath.packet_program import CUTS, PacketPrograms, Step, packet_programs
from axoneme.core.records import Phase, Runs, Stage

POINT = ATTACH_POINTS["from_workload"]
STEPS = [
    Step.of_stage("p", Stage(name=f"{runs}_{phase}", source="", attach=(), phase=phase, runs=runs))
    for phase in Phase
    for runs in Runs
    if runs is Runs.EVERY or phase is not Phase.CLASSIFY
]


def calls(lines: tuple[str, ...]) -> list[str]:
    return [found[1] for line in lines if (found := re.match(r"\s*STEP\((\w+)\)", line))]


def made(point: str = "from_workload", *cuts: str) -> PacketPrograms:
    return packet_programs(ATTACH_POINTS[point], STEPS, frozenset(cuts))


def paths(programs: PacketPrograms) -> tuple[list[str], list[str]]:
    """What is called on the established path, and on the path of a packet that is decided."""
    lines = tuple(line for segment in programs.segments for line in segment)
    start = next(i for i, line in enumerate(lines) if "p->established" in line)
    end = lines.index("}", start)
    return calls(lines[:start]) + calls(lines[start:end]), calls(lines[:start]) + calls(lines[end:])


def test_established_packets_meet_only_stages_for_every_packet() -> None:
    established, _ = paths(made())
    assert established == [
        "classify", "p_every_classify", "p_every_translate", "track", "p_every_track",
        "p_every_decide", "p_every_authenticate", "p_every_redirect", "p_every_encrypt", "p_every_deliver",
        "p_every_observe", "rewrite",
    ]  # fmt: skip


def test_first_packets_meet_all() -> None:
    _, first = paths(made())
    assert set(first) == {step.function for step in STEPS} | {
        "classify", "track", "recollect", "resolve", "commit", "rewrite",
    }  # fmt: skip
    assert len(first) == len(set(first))
    assert first.index("track") < first.index("p_first_track") < first.index("recollect")
    assert first.index("recollect") < first.index("p_first_translate") < first.index("resolve")
    assert first.index("resolve") < first.index("p_first_decide") < first.index("p_first_authenticate")
    assert first.index("p_every_encrypt") < first.index("commit") < first.index("p_first_deliver")


@pytest.mark.parametrize("cuts", [c for size in (1, 2, 6) for c in combinations(CUTS, size)])
def test_cuts_change_no_order(cuts: tuple[str, ...]) -> None:
    assert paths(made("from_workload", *cuts)) == paths(made())
    programs = made("from_workload", *cuts)
    assert len(programs.segments) == 1 + len(cuts)
    assert len(programs.names) == 1 + 2 * len(cuts)


def test_the_established_path_never_crosses_a_cut() -> None:
    first = made("from_workload", *CUTS).segments[0]
    established = first[next(i for i, line in enumerate(first) if "established" in line) :]
    assert "\treturn F(deliver)(p);" in established
    assert established[-1].startswith("return F(jump)(p, 0")


def test_each_jump_goes_to_the_next_program_of_its_family() -> None:
    programs = made("from_workload", "track", "decide")
    jumps = [line for segment in programs.segments for line in segment if "F(jump)" in line]
    assert jumps == [f"return F(jump)(p, {index} + (FAMILY == 6));" for index in (0, 2)]
    assert programs.names[1:] == tuple(
        f"from_workload_{index}_{family}" for index in (1, 2) for family in (4, 6)
    )


def test_where_packets_leave_nothing_is_tracked_but_all_stages_run() -> None:
    (segment,) = made("to_network", *CUTS).segments
    assert calls(segment) == [step.function for step in STEPS if step.function != "p_first_translate"]
    assert segment[-1] == "return PASS;"


@pytest.mark.parametrize("point", ["from_network", "to_network"])
def test_on_the_nodes_devices_what_is_not_understood_passes(point: str) -> None:
    lines = made(point).segments[0]
    at = lines.index("if (F(classify)(p))")
    assert lines[at + 1] == "\treturn PASS;"


@pytest.mark.parametrize("point", ["from_workload", "to_workload", "from_network", "to_network"])
def test_other_link_layers(point: str) -> None:
    text = made(point).entry_text()
    assert ("REASON_UNSUPPORTED_L2_PROTOCOL" in text) is point.endswith("_workload")


def test_a_plugins_name_becomes_an_identifier() -> None:
    stage = Stage(name="count", source="", attach=(), phase=Phase.OBSERVE)
    assert Step.of_stage("packet-counter", stage).function == "packet_counter_count"
