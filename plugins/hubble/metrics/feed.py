"""From observed flows to counted ones, in bulk: flows that are alike are looked at once.

What handlers look at of a flow is mixed into one number. A direct-mapped table knows the plan for each number, so that a
batch of flows that were seen before costs a few array operations and one addition for each distinct flow.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from axoneme.plugins.hubble.columns import Array, Has, Protocol, Reply, View
from axoneme.plugins.hubble.filters.compiler import Filter
from axoneme.plugins.hubble.metrics.names import POLICY_VERDICT
from axoneme.plugins.hubble.metrics.registry import Metrics, Plan
from axoneme.plugins.hubble.mixing import Mixer
from axoneme.plugins.hubble.observer import Batch

#: Distinct flows that are remembered; then it begins anew.
_PLANS: Final = 65_536
_BITS: Final = 16

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
        self._mixer = Mixer(9)
        self._generation = (0, 0)
        self._forget()

    def _forget(self) -> None:
        self._plans: list[Plan] = []
        self._numbers: dict[int, int] = {}
        self._keys = np.zeros(1 << _BITS, np.uint64)
        self._known = np.full(1 << _BITS, -1, np.int64)

    def add(self, batch: Batch) -> None:
        """Counts all flows of a batch."""
        view = batch.view
        generation = (self._metrics.generation, view.names.generation)
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
        """Makes the plans that are missing, each of one flow that stands for all like it."""
        missing = [index for index, key in enumerate(keys) if key not in self._numbers]
        flows = batch.flows(examples[missing]) if missing else []
        for index, flow in zip(missing, flows, strict=True):
            self._numbers[keys[index]] = len(self._plans)
            self._plans.append(self._metrics.plan(flow))
        return np.array([self._numbers[key] for key in keys], np.int64)


class _Needs:
    """Which columns the handlers look at."""

    def __init__(self, metrics: Metrics) -> None:
        contexts = [handler.options.contexts for handler in metrics.handlers]
        identifiers = {i for c in contexts for side in ("source", "destination") for i in c.identifiers(side)}
        labels = {label for context in contexts for label in context.labels}
        self._ips = "ip" in identifiers or bool(labels & {"source_ip", "destination_ip"})
        self._names = "dns" in identifiers
        self._rules = any(handler.name == "policy" for handler in metrics.handlers)
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
        if self._rules:  # what matched is told by the rule
            rules = view["egress_rule"].astype(wide) << wide(32) | view["ingress_rule"]
            words.append(np.where(view["event_type"] == POLICY_VERDICT, rules, wide(0)))
        return words

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
