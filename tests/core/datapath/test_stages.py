"""The order of stages follows from what they say, and from nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.datapath.stages import place
from axoneme.core.errors import OrderError, PluginError
from axoneme.core.records import Phase, Stage


def stage(name: str, phase: Phase = Phase.DECIDE, source: Path | str = "", **more: tuple[str, ...]) -> Stage:
    return Stage(name=name, source=source, attach=("from_workload",), phase=phase, **more)  # type: ignore[arg-type]


STAGES = [
    ("policy", stage("decide")),
    ("lb", stage("translate", Phase.TRANSLATE)),
    ("limit", stage("limit", before=("policy.decide",))),
    ("audit", stage("audit", after=("decide", "limit"))),
    ("audit", stage("observe", Phase.OBSERVE)),
    ("spire", stage("auth", Phase.AUTHENTICATE)),
    ("alpha", stage("free")),
]


@given(st.permutations(STAGES))
def test_the_order_they_come_in_means_nothing(stages: list[tuple[str, Stage]]) -> None:
    assert [placed.name for placed in place(stages)] == [
        "lb.translate", "alpha.free", "limit.limit", "policy.decide", "audit.audit", "spire.auth", "audit.observe",
    ]  # fmt: skip


def test_a_constraint_across_phases_is_none() -> None:
    late, early = stage("late", Phase.OBSERVE, before=("early",)), stage("early", Phase.CLASSIFY)
    assert [placed.name for placed in place([("p", late), ("p", early)])] == ["p.early", "p.late"]


def test_a_cycle_is_named() -> None:
    with pytest.raises(OrderError, match=r"p\.one before p\.two before p\.one|cycle"):
        place([("p", stage("one", before=("two",))), ("p", stage("two", before=("one",)))])


def test_two_stages_of_one_name_are_an_error() -> None:
    with pytest.raises(OrderError, match=r"p\.one"):
        place([("p", stage("one")), ("p", stage("one"))])


def test_a_file_is_read_and_shown_below_its_plugin(tmp_path: Path) -> None:
    source = tmp_path / "stages" / "count.c"
    source.parent.mkdir()
    source.write_text("/* text */")
    (placed,) = place([("counter", stage("count", source=source))])
    assert (placed.file, placed.text) == ("counter/stages/count.c", "/* text */")


def test_a_text_is_shown_by_its_stage() -> None:
    (placed,) = place([("counter", stage("count", source="/* text */"))])
    assert (placed.file, placed.text) == ("counter/count", "/* text */")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path, content: bytes | None) -> None:
    source = tmp_path / "count.c"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(PluginError, match=r"plugin counter: stage count: .*count\.c cannot be read"):
        place([("counter", stage("count", source=source))])
