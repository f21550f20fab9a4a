"""What changed since the last commit, and the plan that comes of it."""

from __future__ import annotations

from attrs import define, field

from axoneme.plugins.policy.tables import NO_SUBJECT, Plan, Rows, SubjectEntry, Tables


@define
class _Moved:
    """A policy's classes as they are, and for identities that changed what they were before; None for none."""

    classes: dict[int, int]
    before: dict[int, int | None] = field(factory=dict)


@define
class Pending:
    """Collects changes of the tables. A number has one content until the plan is made, so the last word counts."""

    subjects: dict[int, SubjectEntry] = field(factory=dict)
    _classes: dict[int, Rows] = field(factory=dict)
    _dropped_classes: dict[int, Rows] = field(factory=dict)
    _policies: dict[int, dict[int, int]] = field(factory=dict)
    _dropped_policies: set[int] = field(factory=set)
    _moved: dict[int, _Moved] = field(factory=dict)

    def add_class(self, number: int, rows: Rows) -> None:
        self._dropped_classes.pop(number, None)
        self._classes[number] = rows

    def drop_class(self, number: int, rows: Rows) -> None:
        self._classes.pop(number, None)
        self._dropped_classes[number] = rows

    def add_policy(self, number: int, classes: dict[int, int]) -> None:
        """:param classes: stays the policy's own, and may still change."""
        self._policies[number] = classes

    def drop_policy(self, number: int) -> None:
        self._policies.pop(number, None)
        self._dropped_policies.add(number)

    def before_move(self, policy: int, classes: dict[int, int], identity: int) -> None:
        """To be told before an identity's class in a policy changes."""
        if policy not in self._policies:
            moved = self._moved.get(policy)
            if moved is None:
                moved = self._moved[policy] = _Moved(classes)
            moved.before.setdefault(identity, classes.get(identity))

    def settle(self, tables: Tables) -> Plan:
        """Enters the changes in the tables; returns the writes."""
        set_peers: dict[int, dict[int, int]] = {}
        remove_peers: dict[int, tuple[int, ...]] = {}
        for policy, moved in self._moved.items():
            if policy not in self._dropped_policies:
                self._settle_moves(policy, moved, tables, set_peers, remove_peers)
        for policy in self._dropped_policies | self._policies.keys():
            before, now = self._before(policy, tables), self._policies.get(policy, {})
            new = {one: class_ for one, class_ in now.items() if before.get(one) != class_} if before else now
            if new:
                set_peers[policy] = dict(new)
            if gone := tuple(before.keys() - now.keys()):
                remove_peers[policy] = gone
            _put(tables, policy, now)
        subjects = self._settle_subjects(tables)
        verdicts = {number: rows for number, rows in self._classes.items() if number not in tables.verdicts}
        gone_rows = {
            number: tuple(rows) for number, rows in self._dropped_classes.items() if number in tables.verdicts
        }
        tables.verdicts.update(verdicts)
        for number in gone_rows:
            del tables.verdicts[number]
        return Plan(verdicts, set_peers, subjects, remove_peers, gone_rows)

    def _before(self, policy: int, tables: Tables) -> dict[int, int]:
        """What the table had of a policy at the last commit; its dict may have been changed since."""
        known = tables.peers.get(policy, {})
        if policy not in self._moved:
            return known
        restored = {**known, **self._moved[policy].before}
        return {identity: class_ for identity, class_ in restored.items() if class_ is not None}

    @staticmethod
    def _settle_moves(
        policy: int,
        moved: _Moved,
        tables: Tables,
        set_peers: dict[int, dict[int, int]],
        remove_peers: dict[int, tuple[int, ...]],
    ) -> None:
        now = moved.classes
        changed = {one: now.get(one) for one, old in moved.before.items() if now.get(one) != old}
        if new := {one: class_ for one, class_ in changed.items() if class_ is not None}:
            set_peers[policy] = new
        if gone := tuple(one for one, class_ in changed.items() if class_ is None):
            remove_peers[policy] = gone
        _put(tables, policy, now)

    def _settle_subjects(self, tables: Tables) -> dict[int, SubjectEntry]:
        changed = {
            endpoint: entry
            for endpoint, entry in self.subjects.items()
            if tables.subjects.get(endpoint, NO_SUBJECT) != entry
        }
        for endpoint, entry in changed.items():
            if entry == NO_SUBJECT:
                del tables.subjects[endpoint]
            else:
                tables.subjects[endpoint] = entry
        return changed


def _put(tables: Tables, policy: int, classes: dict[int, int]) -> None:
    if classes:
        tables.peers[policy] = classes
    else:
        tables.peers.pop(policy, None)
