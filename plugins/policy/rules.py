"""Rule ids: the number that every verdict carries, and what it stands for.

An id is a hash of the policy's key, the direction and the rule's path, so it is the same after a restart. Ids of rules
that are gone are remembered for a while, because events that name them may still arrive.
"""

from __future__ import annotations

import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable

from attrs import define, evolve, field, frozen

from axoneme.core.errors import Where
from axoneme.core.events.rules import Rule
from axoneme.plugins.policy.model import Direction, PeerRule, Policy, derived

MAX_RETIRED = 16_384


@frozen
class RuleRef:
    """The name of a rule: which policy, which direction, which of its rules.

    :param path: `spec.ingress[0]`, or for what no written rule says one of the words in `REASONS`.
    """

    policy: str
    direction: str
    path: str
    #: Unique, and what rules are sorted by.
    key: str = derived(lambda ref: f"{ref.policy}|{ref.direction}|{ref.path}")


#: The verdicts that no written rule stands behind, and what they mean.
REASONS = {
    "default-deny": "default deny, turned on by this policy",
    "default-allow": "this policy speaks of the direction without turning default deny on",
    "no-policy": "no policy selects the workload in this direction",
    "enforcement-never": "policy enforcement is switched off",
    "enforcement-always": "default deny, because enforcement is 'always'",
    "init": "default deny, because the workload has no identity yet",
    "allow-localhost": "the host may reach its own workloads",
    "audit": "policies are rehearsed, and enforced by nobody",
    "no-room": "the kernel's tables have no room for what the policies say of this traffic",
    "unresolvable": "the workload's policies contradict each other",
}


def digest32(text: str) -> int:
    """32 bits of BLAKE2b, never 0."""
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")
    return number or 1


@define
class RuleBook:
    """Numbers for rules. Two rules with the same hash get different numbers, the later one by probing."""

    _digest: Callable[[str], int] = digest32
    _numbers: dict[str, int] = field(factory=dict)
    _refs: dict[int, RuleRef] = field(factory=dict)
    _rows: dict[int, Rule] = field(factory=dict)
    _retired: OrderedDict[int, None] = field(factory=OrderedDict)
    _changed: dict[int, None] = field(factory=dict)
    #: How many ids were given up: what was remembered of them may not hold any more.
    forgotten: int = 0

    def number(self, ref: RuleRef) -> int:
        number = self._numbers.get(ref.key)
        if number is None:
            attempt = 0
            number = self._digest(ref.key)
            while number in self._refs:
                attempt += 1
                number = self._digest(f"{ref.key}|{attempt}")
            self._numbers[ref.key], self._refs[number] = number, ref
        return number

    def ref(self, number: int) -> RuleRef | None:
        return self._refs.get(number)

    def row(self, number: int) -> Rule | None:
        return self._rows.get(number)

    def rows(self) -> Iterable[Rule]:
        return self._rows.values()

    def enter(self, ref: RuleRef, rule: PeerRule | None = None, where: Where | None = None) -> Rule:
        """Makes the row of a rule, or refreshes it. Returns it."""
        number = self.number(ref)
        self._retired.pop(number, None)
        kind, namespace, name = ref.policy.split("/", 2) if ref.policy else ("", "", "")
        where = rule.where if rule else where
        row = Rule(
            id=number,
            kind=kind,
            namespace=namespace,
            name=name,
            direction=ref.direction,
            path=ref.path,
            index=_index(ref.path),
            effect=("deny" if rule.deny else "allow") if rule else ref.path,
            text=rule.text if rule else REASONS.get(ref.path, ref.path),
            file=where.file if where else "",
            line=(where.line or 0) if where else 0,
        )
        if self._rows.get(number) != row:
            self._rows[number] = row
            self._changed[number] = None
        return row

    def changes(self) -> tuple[list[Rule], list[int]]:
        """The rows that are new or different since the last call, and the ids that were dropped."""
        self._forget()
        changed, self._changed = self._changed, {}
        rows = [self._rows[number] for number in changed if number in self._rows]
        return rows, [number for number in changed if number not in self._rows]

    def retire(self, ref: RuleRef) -> None:
        """Marks a rule as gone. It stays known until `MAX_RETIRED` later ones are gone too."""
        number = self._numbers.get(ref.key)
        if number is not None and number in self._rows:
            self._rows[number] = evolve(self._rows[number], retired=True)
            self._retired[number] = None
            self._changed[number] = None

    def _forget(self) -> None:
        while len(self._retired) > MAX_RETIRED:
            number, _ = self._retired.popitem(last=False)
            self.forgotten += 1
            del self._numbers[self._refs.pop(number).key], self._rows[number]
            self._changed[number] = None


_POSITION = re.compile(r"gress(?:Deny)?\[(\d+)\]")


def _index(path: str) -> int:
    found = _POSITION.search(path)
    return int(found[1]) if found else -1


def refs_of(policy: Policy) -> Iterable[tuple[RuleRef, PeerRule | None]]:
    """The names of everything in a policy that a verdict can be due to."""
    for direction in Direction:
        rules = [rule for spec in policy.specs for rule in spec.direction(direction).rules]
        for rule in rules:
            yield RuleRef(policy.key, direction.value, rule.path), rule
        if rules:
            for reason in ("default-deny", "default-allow"):
                yield RuleRef(policy.key, direction.value, reason), None
