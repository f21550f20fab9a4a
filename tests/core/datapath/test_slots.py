"""Who has which words of a connection's entry."""

from __future__ import annotations

import pytest

from axoneme.core.datapath.abi import SLOT_WORDS
from axoneme.core.datapath.slots import Slots, allocate
from axoneme.core.errors import PluginError
from axoneme.core.records import Phase, Stage


def stage(name: str, **slots: int) -> Stage:
    return Stage(name=name, source="", attach=("from_workload",), phase=Phase.OBSERVE, slots=slots)


def test_nobody_wants_any() -> None:
    assert allocate([("a", stage("one"))]) == Slots()


def test_each_slot_has_words_of_its_own_whatever_the_order() -> None:
    stages = [("b-c", stage("one", seen=2)), ("a", stage("two", mine=1)), ("b-c", stage("three", seen=2))]
    slots = allocate(stages)
    assert slots.first == {("a", "mine"): 0, ("b-c", "seen"): 1}
    assert slots == allocate(reversed(stages))
    assert slots.defines == {"SLOT_a_mine": 0, "SLOT_b_c_seen": 1, "SLOT_LAYOUT": slots.layout}
    assert 0 < slots.layout < 256


def test_another_allocation_has_another_name() -> None:
    layouts = {allocate([("a", stage("one", **{name: 1}))]).layout for name in ("x", "y", "z")}
    assert len(layouts) == 3


def test_too_many_are_refused_and_everybody_is_named() -> None:
    with pytest.raises(PluginError, match=r"a \(x: 1\), b \(y: 4\)"):
        allocate([("a", stage("one", x=1)), ("b", stage("two", y=SLOT_WORDS))])


def test_stages_of_a_plugin_that_disagree_are_refused() -> None:
    with pytest.raises(PluginError, match="slot 'x'"):
        allocate([("a", stage("one", x=1)), ("a", stage("two", x=2))])
