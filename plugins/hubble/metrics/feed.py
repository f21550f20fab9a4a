"""From observed flows to counted ones, in bulk: flows that are alike are looked at once.

What handlers look at of a flow is mixed into one number. A direct-mapped table knows the plan for each number, so that a
batch of flows that were seen before costs a few array operations and one addition for each distinct flow.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from attrs import define

from axoneme.plugins.hubble.columns import Array, Has, Protocol, Reply, View
from axoneme.plugins.hubble.filters.compiler import Filter
from axoneme.plugins.hubble.metrics.names import POLICY_VERDICT
from axoneme.plugins.hubble.metrics.registry import Metrics, Plan
from axoneme.plugins.hubble.mixing import Mixer
from axoneme.plugins.hubble.observer import Batch
from axoneme.plugins.hubble.proto.flow_pb2 import Flow

#: Distinct flows that are remembered; then it begins anew.
_PLANS: Final = 65_536
_BITS: Final = 16
#: Plans that are made before it is looked again whether there is room for more.
_AT_ONCE: Final = 256

#: What is packed into one word, with the bits that it takes there.
_SMALL: Final = (
    ("event_type", 8), ("sub_type", 16), ("tcp_flags", 16), ("verdict", 4), ("protocol", 4), ("reply", 2),
    ("direction", 2), ("ip_version", 2), ("type", 2),
)  # fmt: skip


class Feed:
    """Counts batches of flows.

    :param wanted: which of them; None: all.
    """

    def __init__(self, metrics: Metrics, wanted: Filter | None = None) -> None:
        self._metrics = metrics
        self._wanted = wanted
        self._needs = _Needs(metrics)
        self._mixer, self._rough_mixer = Mixer(9), Mixer(4)
        self._generation = (0, 0, 0)
        self._forget()

    def _forget(self) -> None:
        self._plans: list[Plan] = []
        self._numbers: dict[int, int] = {}
        self._rough: dict[int, _Rough] = {}
        self._keys = np.zeros(1 << _BITS, np.uint64)
        self._known = np.full(1 << _BITS, -1, np.int64)

    def add(self, batch: Batch) -> None:
        """Counts all flows of a batch."""
        view = batch.view
        rules = batch.rules if self._needs.rules else 0
        generation = (self._metrics.generation, view.names.generation, rules)
        if generation != self._generation or len(self._plans) > _PLANS:
            self._forget()
            self._generation = generation
        made = view["has"] & Has.MESSAGE != 0
        wanted = np.ones(len(view), bool) if self._wanted is None else self._wanted.mask(view)
        if made.any():
            self._add_messages(batch, np.flatnonzero(made & wanted))
            self._add_rows(batch, np.flatnonzero(~made & wanted))
        else:
            self._add_rows(batch, None if self._wanted is None else np.flatnonzero(wanted))

    def _add_messages(self, batch: Batch, places: Array) -> None:
        """Flows that others made: layer 7, each with a latency of its own."""
        for flow in batch.flows(places):
            self._metrics.add(flow)

    def _add_rows(self, batch: Batch, places: Array | None) -> None:
        keys = self._mixer.mix(self._needs.words(batch.view))
        if places is not None:
            keys = keys[places]
        if not len(keys):
            return
        numbers = self._look_up(keys, batch, places)
        for number, times in enumerate(np.bincount(numbers).tolist()):
            if times:
                self._plans[number].apply(times, 0.0)

    def _look_up(self, keys: Array, batch: Batch, places: Array | None) -> Array:
        """The number of each flow's plan."""
        slots = keys >> np.uint64(64 - _BITS)
        numbers = self._known[slots]
        misses = np.flatnonzero((self._keys[slots] != keys) | (numbers < 0))
        if len(misses):
            distinct, first, back = np.unique(keys[misses], return_index=True, return_inverse=True)
            examples = misses[first] if places is None else places[misses[first]]
            found = self._plan(distinct.tolist(), batch, examples)
            numbers[misses] = found[back]
            self._keys[slots[misses]] = keys[misses]
            self._known[slots[misses]] = numbers[misses]
        result: Array = numbers
        return result

    def _plan(self, keys: list[int], batch: Batch, examples: Array) -> Array:
        """The numbers of plans; those that are missing are made, each of one flow that stands for all like it."""
        found = np.array([self._numbers.get(key, -1) for key in keys], np.int64)
        missing = np.flatnonzero(found < 0)
        if not len(missing):
            return found
        rough = self._rough_mixer.mix(
            [word[examples] for word in self._needs.rough_words(batch.view)]
        ).tolist()
        for begin in range(0, len(missing), _AT_ONCE):
            exact = []
            for index in missing[begin : begin + _AT_ONCE].tolist():
                found[index] = self._overflow(rough[index])
                if found[index] < 0:
                    exact.append(index)
            for index, flow in zip(exact, batch.flows(examples[exact]) if exact else (), strict=True):
                found[index] = self._numbers[keys[index]] = len(self._plans)
                self._plans.append(self._metrics.plan(flow))
                if rough[index] not in self._rough:
                    self._rough[rough[index]] = _Rough(flow)
        return found

    def _overflow(self, key: int) -> int:
        """The number of the plan for flows that differ from known ones only in what finds no room any more; -1 if some does.

        So a flood of ever new addresses costs little, and is remembered nowhere. What was counted before is looked up
        by its own plan, and there is time to make these anew after everything was forgotten.
        """
        rough = self._rough.get(key)
        if rough is None:
            return -1
        if rough.number < 0:
            plan, families = (
                self._metrics.rough_plan(rough.flow)
                if len(self._plans) >= self._metrics.limit
                else (None, ())
            )
            if plan is None or not families or not all(family.full for family in families):
                return -1
            rough.number = len(self._plans)
            self._plans.append(plan)
        return rough.number


@define
class _Rough:
    """A flow that stands for all that differ from it in addresses, names and ports; and their plan, once there is no room."""

    flow: Flow
    number: int = -1


class _Needs:
    """Which columns the handlers look at."""

    def __init__(self, metrics: Metrics) -> None:
        contexts = [handler.options.contexts for handler in metrics.handlers]
        identifiers = {i for c in contexts for side in ("source", "destination") for i in c.identifiers(side)}
        labels = {label for context in contexts for label in context.labels}
        self._ips = "ip" in identifiers or bool(labels & {"source_ip", "destination_ip"})
        self._names = "dns" in identifiers
        self.rules = any(handler.name == "policy" for handler in metrics.handlers)
        self._ports = any(handler.name == "port-distribution" for handler in metrics.handlers)
        self._all_ports = any("port" in handler.options.flags for handler in metrics.handlers)

    def words(self, view: View) -> list[Array]:
        """The columns, packed into words of 64 bits."""
        wide = np.uint64
        small, shift = np.zeros(len(view), wide), 0
        for name, bits in _SMALL:
            small |= view[name].astype(wide) << wide(shift)
            shift += bits
        words = [
            small,
            view["drop_reason"].astype(wide) << wide(32) | self._port(view),
            view["source"].astype(wide) << wide(32) | view["destination"],
        ]
        if self._ips:
            words += [view[f"{end}_{half}"] for end in ("source", "destination") for half in ("high", "low")]
        if self._names:
            words.append(view["source_names"].astype(wide) << wide(32) | view["destination_names"])
        if self.rules:  # what matched is told by the rule
            rules = view["egress_rule"].astype(wide) << wide(32) | view["ingress_rule"]
            words.append(np.where(view["event_type"] == POLICY_VERDICT, rules, wide(0)))
        return words

    def rough_words(self, view: View) -> list[Array]:
        """The same without addresses, names and ports, but with what ICMP has in their place."""
        words = self.words(view)
        protocol = view["protocol"]
        icmp = (protocol == Protocol.ICMPV4) | (protocol == Protocol.ICMPV6)
        words[1] = np.where(icmp, words[1], words[1] & np.uint64(0xFFFFFFFF00000000))
        return [*words[:3], *words[-1:]] if self.rules else words[:3]

    def _port(self, view: View) -> Array:
        """ICMP's type and code; else the destination port where a handler may ask for it: never that of a reply.

        A scan of ports is one flow, unless somebody wants its ports.
        """
        protocol = view["protocol"]
        icmp = (protocol == Protocol.ICMPV4) | (protocol == Protocol.ICMPV6)
        port = view["destination_port"].astype(np.uint64)
        asked = icmp
        if self._all_ports:
            asked = icmp | (view["reply"] != Reply.YES)
        elif self._ports:
            asked = icmp | (view["reply"] == Reply.NO)
        kind = np.where(icmp, view["source_port"], 0).astype(np.uint64) << np.uint64(16)
        result: Array = np.where(asked, port, 0).astype(np.uint64) | kind
        return result
