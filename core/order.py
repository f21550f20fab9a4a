"""From `before` and `after` to one order, or to an error that names the cycle.

The order depends on the constraints and on the names alone, never on the order in which the items came, so that the
same plugins always give the same program.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from attrs import frozen

from axoneme.core.errors import OrderError

T = TypeVar("T")


@frozen(kw_only=True)
class Constraints:
    """What an item says of its place.

    :param name: unique, with dots between its parts: `plugin.stage`.
    :param before: full names, or last parts of names, of items that come later.
    :param after: the same for items that come earlier. Names that no item has are no constraint: a plugin may say
        `after` of another one that is not enabled.
    """

    name: str
    before: Sequence[str] = ()
    after: Sequence[str] = ()


def arrange(items: Iterable[T], constraints: Callable[[T], Constraints], *, what: str = "item") -> list[T]:
    """The items in an order that satisfies all constraints; what they leave open is decided by name.

    Kahn's algorithm with a heap: O((n + e) log n).

    :raises OrderError: two items of one name, or a cycle, which the message names.
    """
    by_name: dict[str, tuple[Constraints, T]] = {}
    for item in items:
        said = constraints(item)
        if said.name in by_name:
            raise OrderError(f"two {what}s are named {said.name}")
        by_name[said.name] = (said, item)
    edges = _edges([said for said, _ in by_name.values()])
    return [by_name[name][1] for name in _sort(sorted(by_name), edges, what)]


def _edges(said: list[Constraints]) -> dict[str, set[str]]:
    """For each name the names that must come later."""
    named: dict[str, list[str]] = defaultdict(list)
    for constraint in said:
        named[constraint.name].append(constraint.name)
        if "." in constraint.name:
            named[constraint.name.rpartition(".")[2]].append(constraint.name)
    later: dict[str, set[str]] = {constraint.name: set() for constraint in said}
    for constraint in said:
        for reference in constraint.before:
            later[constraint.name].update(_others(named, reference, constraint.name))
        for reference in constraint.after:
            for earlier in _others(named, reference, constraint.name):
                later[earlier].add(constraint.name)
    return later


def _others(named: dict[str, list[str]], reference: str, name: str) -> list[str]:
    """Whom a reference means. The short name of several items means the others, the full name of itself a cycle."""
    return [other for other in named.get(reference, ()) if other != name or reference == name]


def _sort(names: list[str], later: dict[str, set[str]], what: str) -> list[str]:
    waiting_for = dict.fromkeys(names, 0)
    for followers in later.values():
        for follower in followers:
            waiting_for[follower] += 1
    free = [name for name in names if not waiting_for[name]]
    done: list[str] = []
    while free:
        name = heapq.heappop(free)
        done.append(name)
        for follower in later[name]:
            waiting_for[follower] -= 1
            if not waiting_for[follower]:
                heapq.heappush(free, follower)
    if len(done) < len(names):
        raise _cycle_error(set(names) - set(done), later, what)
    return done


def _cycle_error(stuck: set[str], later: dict[str, set[str]], what: str) -> OrderError:
    cycle = _find_cycle(stuck, later)
    return OrderError(
        f"the order of {what}s has a cycle: {' before '.join([*cycle, cycle[0]])}",
        hint=f"remove one of these `before` or `after`, or disable one of the {what}s",
    )


def _find_cycle(stuck: set[str], later: dict[str, set[str]]) -> list[str]:
    """One cycle among the items that no order could place, starting at its smallest name.

    Each stuck item waits for another stuck one, so walking backwards must come to a name twice.
    """
    earlier = {name: min(e for e in stuck if name in later[e]) for name in stuck}
    seen: list[str] = []
    name = min(stuck)
    while name not in seen:
        seen.append(name)
        name = earlier[name]
    cycle = seen[seen.index(name) :][::-1]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]
