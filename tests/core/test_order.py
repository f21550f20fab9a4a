from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.errors import OrderError
from axoneme.core.order import Constraints, arrange


def names(*said: Constraints) -> list[str]:
    return [item.name for item in arrange(said, lambda item: item, what="stage")]


def test_what_nothing_orders_is_ordered_by_name() -> None:
    assert names(Constraints(name="b.x"), Constraints(name="a.x")) == ["a.x", "b.x"]


def test_before_and_after_by_full_and_by_short_name() -> None:
    first = Constraints(name="z.count", before=["verdict"])
    second = Constraints(name="policy.verdict")
    third = Constraints(name="a.mark", after=["policy.verdict"])
    assert names(third, second, first) == ["z.count", "policy.verdict", "a.mark"]


def test_a_name_that_nobody_has_is_no_constraint() -> None:
    assert names(Constraints(name="a", after=["absent"]), Constraints(name="b")) == ["a", "b"]


def test_a_short_name_that_several_share_means_the_others() -> None:
    assert names(Constraints(name="a.x", after=["x"]), Constraints(name="b.x")) == ["b.x", "a.x"]


def test_a_cycle_is_named_and_nothing_else_is() -> None:
    with pytest.raises(OrderError, match=r"a\.x before b\.y before c\.z before a\.x") as caught:
        names(
            Constraints(name="c.z", before=["a.x"]),
            Constraints(name="a.x", before=["b.y"]),
            Constraints(name="b.y", before=["c.z", "d.innocent"]),
            Constraints(name="d.innocent"),
        )
    assert "innocent" not in str(caught.value)


def test_an_item_before_itself_is_a_cycle() -> None:
    with pytest.raises(OrderError, match=r"a\.x before a\.x"):
        names(Constraints(name="a.x", before=["a.x"]))


def test_two_items_of_one_name() -> None:
    with pytest.raises(OrderError, match=r"two stages are named a\.x"):
        names(Constraints(name="a.x"), Constraints(name="a.x"))


@st.composite
def acyclic(draw: st.DrawFn) -> list[Constraints]:
    """Constraints that a hidden order satisfies: every edge goes forward in it."""
    size = draw(st.integers(1, 12))
    hidden = draw(st.permutations([f"p.s{i}" for i in range(size)]))
    before: dict[str, list[str]] = {name: [] for name in hidden}
    after: dict[str, list[str]] = {name: [] for name in hidden}
    for i, j in draw(st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)))):
        if i < j and draw(st.booleans()):
            before[hidden[i]].append(hidden[j])
        elif i < j:
            after[hidden[j]].append(hidden[i])
    return [Constraints(name=name, before=before[name], after=after[name]) for name in hidden]


@given(acyclic(), st.randoms())
def test_every_constraint_holds_and_the_input_order_does_not_matter(said, random) -> None:
    result = names(*said)
    place = {name: i for i, name in enumerate(result)}
    assert sorted(result) == sorted(item.name for item in said)
    for item in said:
        assert all(place[item.name] < place[later] for later in item.before)
        assert all(place[earlier] < place[item.name] for earlier in item.after)
    random.shuffle(said)
    assert names(*said) == result
