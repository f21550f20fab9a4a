"""Writes the decision tables into the kernel's maps, in the plan's order, and sees to it that they fit.

Usually a change adds what is new before it takes away what is old, so that nothing is disturbed. Where there is no room for
both, the workloads that change are shut for that moment: new connections to them wait, established ones go on, since the
revision is not raised before all is written. Where there is no room for the result, what is left out is closed (`fit`).
"""

from __future__ import annotations

import time
from collections.abc import Callable

from axoneme.core import logs
from axoneme.core.datapath.kernel import MapFull
from axoneme.plugins.policy.fit import Room, Shortfall, fit, fits, needs
from axoneme.plugins.policy.maps import PolicyMaps
from axoneme.plugins.policy.tables import NO_SUBJECT, Plan, Tables, difference, unused

log = logs.get(__name__)

#: What to do where there is no room.
HINT = "make the maps larger (plugins.policy.peers and verdicts), or the policies fewer"


class MapWriter:
    """:param raise_revision: makes the connections be decided anew.

    :ivar updates: how often something was written, and `writes`: how many entries.
    :ivar synced: the maps have what they should have, but for `shortfall`.
    :ivar fault: why they do not, if not even what should fit does; with the next change it is tried anew.
    """

    updates = writes = 0
    fault = ""
    last_write = 0.0

    def __init__(self, maps: PolicyMaps, raise_revision: Callable[[], None]) -> None:
        self._maps = maps
        self._raise_revision = raise_revision
        self._room = Room(maps.peers.spec.max_entries, maps.verdicts.spec.max_entries)
        self.synced = False
        self.shortfall = Shortfall()

    def write(self, plan: Plan, desired: Tables, closed_rule: int) -> None:
        """Brings the maps up to date.

        :param plan: from what was desired the last time to what is desired now.
        :param closed_rule: the rule id of what is denied for want of room.
        """
        usual = self.synced and not self.shortfall and fits(_peak(plan, desired), self._room)
        if usual:
            self._follow(plan)
        if not usual or not self.synced:
            self._settle(desired, closed_rule)

    def _follow(self, plan: Plan) -> None:
        if plan.is_empty:
            return
        try:
            self._maps.add_verdicts(plan.add_verdicts)
            self._maps.set_peers(plan.set_peers)
        except MapFull as error:  # somebody else's entries, or an account that is wrong
            log.error("policy_maps_full", reason=str(error))
            self.synced = False
            return
        self._maps.set_subjects(plan.set_subjects)
        if plan.decides:
            self._raise_revision()
        self._maps.remove(plan)
        self._count(plan)

    def _settle(self, desired: Tables, closed_rule: int) -> None:
        """From whatever the maps have to as much of the desired tables as there is room for."""
        self._maps.remove(unused(self._maps.read()))
        present = self._maps.read()
        fitting, shortfall = fit(desired, self._room, present, closed_rule)
        plan = difference(present, fitting)
        self.synced, self.fault = fits(_peak(plan, fitting), self._room), ""
        if self.synced:
            self._follow(plan)
        if not self.synced:
            self._replace(plan, fitting)
        self._tell(shortfall)

    def _replace(self, plan: Plan, tables: Tables) -> None:
        """Takes away first, behind closed doors."""
        changing = {
            endpoint: entry
            for endpoint, entry in tables.subjects.items()
            if endpoint in plan.set_subjects or {entry.egress, entry.ingress} & plan.set_peers.keys()
        }
        self._maps.set_subjects(dict.fromkeys(changing, NO_SUBJECT))
        self._maps.remove(plan)
        try:
            self._maps.add_verdicts(plan.add_verdicts)
            self._maps.set_peers(plan.set_peers)
            self._maps.set_subjects(dict(plan.set_subjects) | changing)
            self.synced = True
        except MapFull as error:
            log.error("policy_maps_full", reason=str(error), endpoints=sorted(changing))
            self.synced, self.fault = False, f"{len(changing)} workloads are shut: {error}"
        self._raise_revision()
        self._count(plan)

    def _count(self, plan: Plan) -> None:
        self.updates += 1
        self.writes += plan.size
        self.last_write = time.time()

    def _tell(self, shortfall: Shortfall) -> None:
        if shortfall and shortfall != self.shortfall:
            log.error("policy_maps_full", reason=str(shortfall), room=self._room, hint=HINT)
        elif self.shortfall and not shortfall:
            log.info("policy_maps_have_room")
        self.shortfall = shortfall


def _peak(plan: Plan, desired: Tables) -> Room:
    """What the maps hold when all that is new was added and nothing removed yet."""
    after = needs(desired)
    return Room(
        after.peers + sum(map(len, plan.remove_peers.values())),
        after.verdicts + sum(map(len, plan.remove_verdicts.values())),
    )
