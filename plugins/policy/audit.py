"""Policies that are rehearsed: what they would deny is noted beside the decision that holds.

A direction's policy is then a pair: what is enforced, of all policies that are not rehearsed, and what would be, of all. The
first one decides. Where it allows what the second one denies, the verdict says which rule that would have been. So a
rehearsed policy neither closes nor opens anything, whatever it says.
"""

from __future__ import annotations

from collections.abc import Iterable

from attrs import define, evolve, field

from axoneme.plugins.policy.blocks import Block, covers
from axoneme.plugins.policy.filters import DirectionPolicy
from axoneme.plugins.policy.resolve import Decisions, Difference, Resolver, inside_order, packed_row
from axoneme.plugins.policy.statements import Verdict


def paired(enforced: DirectionPolicy, rehearsed: DirectionPolicy) -> DirectionPolicy:
    """The enforced policy, with the other one to be rehearsed beside it."""
    peers = {peer.text: peer for peer in (*enforced.peers, *rehearsed.peers)}
    return evolve(enforced, peers=tuple(peers[text] for text in sorted(peers)), rehearsed=rehearsed)


def resolver_of(policy: DirectionPolicy) -> Resolver | RehearsingResolver:
    return Resolver(policy) if policy.rehearsed is None else RehearsingResolver(policy, policy.rehearsed)


@define
class RehearsingResolver:
    """Resolves the classes of a pair of policies; the same face as `Resolver`."""

    policy: DirectionPolicy
    _rehearsed: DirectionPolicy
    default: Decisions = field(init=False)
    _resolvers: tuple[Resolver, Resolver] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._resolvers = Resolver(self.policy), Resolver(self._rehearsed)
        self.default = self.decisions(())

    def decisions(self, texts: Iterable[str]) -> Decisions:
        """The decisions for identities that exactly these selectors select."""
        selected = tuple(texts)
        enforced, rehearsed = (one.decisions(selected) for one in self._resolvers)
        return combined(enforced, rehearsed)

    def difference(self, texts: Iterable[str]) -> Difference:
        """In what the decisions for these selectors' identities differ from the default ones."""
        found, default = self.decisions(texts), self.default
        changes: dict[Block, Verdict | None] = {
            block: found.get(block) for block in {*found, *default} if found.get(block) != default.get(block)
        }
        return Difference(changes, [], [packed_row(block, verdict) for block, verdict in changes.items()])


def combined(enforced: Decisions, rehearsed: Decisions) -> Decisions:
    """Both in one: for each block the enforced verdict, with the denial that would take its place."""
    decided: dict[Block, Verdict] = {}
    nesting: list[tuple[Block, Verdict, Verdict, Verdict]] = []
    for block in sorted({*enforced, *rehearsed}, key=inside_order):
        while nesting and not covers(nesting[-1][0], block):
            nesting.pop()
        around = nesting[-1] if nesting else None
        holds = enforced[block] if around is None else enforced.get(block, around[1])
        would = rehearsed[block] if around is None else rehearsed.get(block, around[2])
        verdict = evolve(holds, would=would) if holds.allow and not would.allow else holds
        if around is None or verdict != around[3]:
            decided[block] = verdict
        nesting.append((block, holds, would, verdict))
    return decided
