"""Which names a connection may ask for: rules.dns of the policy that sent it here."""

from __future__ import annotations

import json

from axoneme.core.events.rules import L7Rules
from axoneme.core.state.table import Table
from axoneme.core.workloads.names import name_matches


class Permits:
    """Reads the table `l7_rules`. What it does not know allows nothing."""

    def __init__(self, table: Table[L7Rules]) -> None:
        self._table = table
        self._patterns: dict[int, tuple[L7Rules, tuple[str, ...]]] = {}

    def allows(self, number: int, name: str) -> bool:
        """:param number: of the rules, from the connection's entry."""
        row = self._table.get(number)
        if row is None or row.kind != "dns":
            return False
        return row.wildcard or any(name_matches(pattern, name) for pattern in self._of(row))

    def _of(self, row: L7Rules) -> tuple[str, ...]:
        known = self._patterns.get(row.number)
        if known is None or known[0] is not row:
            patterns = tuple(text for rule in row.rules for text in json.loads(rule).values())
            if len(self._patterns) > 2 * len(self._table):
                self._patterns.clear()
            known = self._patterns[row.number] = (row, patterns)
        return known[1]
