"""From the kernel's records to flows: who, where to, by which rule, all in bulk.

What a record is to the API follows Cilium's own rules, of which the names of its event types come:

    NEW         a `trace` at the connection's first packet, and before it a `policy-verdict` per direction that a rule decided
    DROP        a `drop`, and before it the `policy-verdict`s, when it was a policy that denied
    UPDATE      a `trace` of an established connection
    CLOSE       the same with the flags that ended it, told from the side that opened the connection
    TRANSLATE   a `trace-sock`
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from axoneme.core.datapath.abi import EventFlag, EventType, NextHop
from axoneme.core.events.clock import wall_offset
from axoneme.plugins.hubble.columns import HAS_FLAGS, Array, Has, Protocol, Reply, empty
from axoneme.plugins.hubble.ring import rising

#: CiliumEventType.type
DROP, TRACE, POLICY_VERDICT, TRACE_SOCK = 1, 4, 5, 7
#: Its sub_type for traces: where the packet was seen.
TO_ENDPOINT, TO_PROXY, TO_STACK, TO_NETWORK = 0, 1, 3, 11
_POST_FORWARD = 2
_FORWARDED, _DROPPED, _AUDIT, _REDIRECTED, _TRANSLATED = 1, 2, 4, 5, 7
_INGRESS, _EGRESS = 1, 2
_L3_L4, _SOCK = 1, 3
_NEW, _ESTABLISHED, _REPLY = 1, 2, 3
_FROM_WORKLOAD = 1

#: Reasons of drops that are a policy's verdict: no rule allows it, a rule denies it.
POLICY_REASONS: Final = (133, 181)

_FIN, _RST, _ACK = 1, 4, 16
_MOST_LIFT: Final = np.uint64(0xFFFFFFFF)

_PROTOCOLS = np.zeros(256, np.uint8)
for _number, _kind in (
    (6, Protocol.TCP), (17, Protocol.UDP), (1, Protocol.ICMPV4), (58, Protocol.ICMPV6), (132, Protocol.SCTP),
):  # fmt: skip
    _PROTOCOLS[_number] = _kind

#: The authentication modes of policies (0 none, 1 disabled, 2 required, 3 always-fail) as `flow.AuthType`.
_AUTH = np.array([0, 0, 1, 2] + [0] * 252, np.uint8)

Columns = dict[str, Array]


class Join:
    """Keys (u64) to numbers (u32), each distinct key resolved once, by `resolve`.

    A direct-mapped table in front of a dictionary: a batch costs a few array operations, whatever it holds.
    """

    def __init__(self, resolve: Callable[[int], int], bits: int = 14) -> None:
        self._resolve = resolve
        self._shift = np.uint64(64 - bits)
        self._known: dict[int, int] = {}
        # No slot holds what it would be asked for: the key 0 belongs into slot 0 alone.
        self._keys = np.full(1 << bits, 0, np.uint64)
        self._keys[0] = 1
        self._numbers = np.zeros(1 << bits, np.uint32)

    def __call__(self, keys: Array) -> Array:
        slots = (keys * np.uint64(0x9E3779B97F4A7C15)) >> self._shift
        numbers = self._numbers[slots]
        misses = np.flatnonzero(self._keys[slots] != keys)
        if len(misses):
            distinct, back = np.unique(keys[misses], return_inverse=True)
            found = np.array([self._number(key) for key in distinct.tolist()], np.uint32)
            numbers[misses] = found[back]
            self._keys[slots[misses]] = keys[misses]
            self._numbers[slots[misses]] = numbers[misses]
        result: Array = numbers
        return result

    def _number(self, key: int) -> int:
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._resolve(key)
        return known

    def forget(self) -> None:
        self._known.clear()
        self._keys[:] = 0
        self._keys[0] = 1


class Enricher:
    """Makes columns of records (`abi.EVENT`).

    :param endpoints: resolves `endpoint id << 32 | identity`.
    :param interfaces: resolves an interface's index.
    :param node: the number of this node.
    :param fill: what else knows columns, given the records.
    :param policy_verdicts: whether verdicts of policies are flows of their own.
    """

    def __init__(
        self,
        endpoints: Join,
        interfaces: Join,
        node: int,
        *,
        fill: Sequence[Callable[[Columns, Array], None]] = (),
        policy_verdicts: bool = True,
    ) -> None:
        self._endpoints, self._interfaces = endpoints, interfaces
        self._fill = fill
        self._node = node
        self._policy_verdicts = policy_verdicts

    def columns(self, records: Array, after: int = 0, *, offset: int | None = None) -> Columns:
        """The flows of some records, in their order.

        :param after: the time (ns since 1970) that all of them are later than.
        :param offset: what to add to the records' times to get ns since 1970; None: as the clocks are now.
        """
        if offset is None:
            offset = wall_offset()
        made = self._ends(records, offset)
        kind = records["type"]
        made["type"][:] = _L3_L4
        self._traces(made, records, kind)
        self._drops(made, records, np.flatnonzero(kind == EventType.DROP))
        _translations(made, np.flatnonzero(kind == EventType.TRANSLATE))
        if self._policy_verdicts:
            made = _with_verdicts(made, records)
        times = rising(made["time"], after)
        made["lift"][:] = np.minimum(times - made["time"], _MOST_LIFT)
        made["time"] = times
        return made

    def _ends(self, records: Array, offset: int) -> Columns:
        """What is the same for all types: time, addresses, ports, and who they belong to."""
        made = empty(len(records))
        made["time"][:] = records["time"] + np.uint64(offset)
        self._addresses(made, records)
        for end in ("source", "destination"):
            identity = records[f"{end}_identity"].astype(np.uint64)
            key = records[f"{end}_endpoint"].astype(np.uint64) << np.uint64(32) | identity
            made[end] = self._endpoints(key)
        # Of a close that a reply brought about, the ends are the reply's: people want to read who called whom.
        turned = np.flatnonzero((records["type"] == EventType.CLOSE) & (records["reply"] != 0))
        if len(turned):
            for name in ("{}_high", "{}_low", "{}", "{}_port"):
                one, other = made[name.format("source")], made[name.format("destination")]
                one[turned], other[turned] = other[turned], one[turned]
        made["egress_rule"][:], made["ingress_rule"][:] = records["egress_rule"], records["ingress_rule"]
        made["interface"] = self._interfaces(records["ifindex"].astype(np.uint64))
        made["node"][:] = self._node
        for fill in self._fill:
            fill(made, records)
        return made

    def _addresses(self, made: Columns, records: Array) -> None:
        for end, field in (("source", "saddr"), ("destination", "daddr")):
            # By value: numpy turns big-endian words round when it puts arrays together.
            one, two, three, four = (records[field][:, word].astype(np.uint64) for word in range(4))
            made[f"{end}_high"] = one << np.uint64(32) | two
            made[f"{end}_low"] = three << np.uint64(32) | four
        protocol = made["protocol"] = _PROTOCOLS[records["protocol"]]
        made["ip_version"][:] = np.where(records["family"] == 6, 2, 1)
        ports = protocol != Protocol.NONE
        made["source_port"][:] = np.where(ports, records["sport"], 0)
        made["destination_port"][:] = np.where(ports, records["dport"], 0)
        made["has"][:] = Has.SOURCE_IP | Has.DESTINATION_IP | Has.EVENT_TYPE | Has.PORTS
        icmp = np.flatnonzero((protocol == Protocol.ICMPV4) | (protocol == Protocol.ICMPV6))
        if len(icmp):
            made["source_port"][icmp] = records["icmp_type"][icmp]
            made["destination_port"][icmp] = records["tcp_flags"][icmp]
        tcp = protocol == Protocol.TCP
        made["tcp_flags"][:] = np.where(tcp, records["tcp_flags"].astype(np.uint16) | np.uint16(HAS_FLAGS), 0)

    def _traces(self, made: Columns, records: Array, kind: Array) -> None:
        """What all but drops and translations are; those are written over."""
        reply = (records["reply"] != 0) & (kind != EventType.CLOSE)
        local = np.where(
            (kind == EventType.CLOSE) & (records["reply"] != 0),
            records["source_endpoint"], records["destination_endpoint"],
        ) != 0  # fmt: skip
        device, proxy = (records["next_hop"] == hop for hop in (NextHop.DEVICE, NextHop.PROXY))
        made["event_type"][:] = TRACE
        made["sub_type"][:] = np.where(local, TO_ENDPOINT, np.where(device, TO_NETWORK, TO_STACK))
        made["sub_type"][proxy] = TO_PROXY
        local = np.where(proxy, records["attach_point"] != _FROM_WORKLOAD, local)
        made["verdict"][:] = _FORWARDED
        made["reply"][:] = np.where(reply, Reply.YES, Reply.NO)
        made["direction"][:] = np.where(local != reply, _INGRESS, _EGRESS)
        new = kind == EventType.NEW
        made["trace_reason"][:] = np.where(reply, _REPLY, np.where(new, _NEW, _ESTABLISHED))
        # The entry knows every flag that it ever saw. Those of a close are those that ended it.
        later = np.flatnonzero(~new & (made["protocol"] == Protocol.TCP) & (kind != EventType.DROP))
        if len(later):
            ended = made["tcp_flags"][later] & np.uint16(_FIN | _RST)
            made["tcp_flags"][later] = ended | np.uint16(_ACK | HAS_FLAGS)

    def _drops(self, made: Columns, records: Array, drops: Array) -> None:
        if not len(drops):
            return
        reason = records["reason"][drops]
        made["event_type"][drops] = DROP
        made["sub_type"][drops] = made["drop_reason"][drops] = reason
        made["verdict"][drops] = _DROPPED
        made["reply"][drops] = Reply.UNKNOWN
        made["trace_reason"][drops] = 0
        policy = _policy(reason)
        ingress = np.where(
            policy, records["ingress_rule"][drops], records["attach_point"][drops] != _FROM_WORKLOAD
        )
        made["direction"][drops] = np.where(ingress != 0, _INGRESS, _EGRESS)


def _policy(reasons: Array) -> Array:
    """Which reasons are a policy's verdict."""
    allowed_by_none, denied = POLICY_REASONS
    mask: Array = (reasons == allowed_by_none) | (reasons == denied)
    return mask


def _translations(made: Columns, rows: Array) -> None:
    if not len(rows):
        return
    made["event_type"][rows], made["sub_type"][rows] = TRACE_SOCK, _POST_FORWARD
    made["verdict"][rows], made["type"][rows] = _TRANSLATED, _SOCK
    made["reply"][rows], made["direction"][rows], made["trace_reason"][rows] = Reply.UNKNOWN, 0, 0
    made["tcp_flags"][rows] = 0


def _with_verdicts(made: Columns, records: Array) -> Columns:
    """The same with a flow for each direction that a policy decided, in front of the one that it led to."""
    new = records["type"] == EventType.NEW
    denied = (made["event_type"] == DROP) & _policy(made["drop_reason"])
    egress = (new | denied) & (made["egress_rule"] != 0)
    ingress = (new | denied) & (made["ingress_rule"] != 0)
    more = egress.astype(np.intp) + ingress
    if not more.any():
        return made
    origin = np.repeat(np.arange(len(records)), more + 1)
    result = {
        name: column.take(origin) if column.any() else np.zeros(len(origin), column.dtype)
        for name, column in made.items()
    }
    last = np.cumsum(more + 1) - 1
    one, other = np.flatnonzero(egress), np.flatnonzero(ingress)
    audited = (records["flags"] & EventFlag.AUDITED) != 0
    # Where both rules are named it is the ingress rule that refuses, or would.
    refusing, would = denied & ~ingress, audited & ~ingress
    _verdict(result, (last - more)[one], records, one, _EGRESS, refusing[one], would[one])
    _verdict(result, (last - 1)[other], records, other, _INGRESS, denied[other], audited[other])
    return result


def _verdict(
    made: Columns, rows: Array, records: Array, of: Array, direction: int, denied: Array, audited: Array
) -> None:
    """Makes rows verdicts of the policy of one direction.

    :param of: the places of their records.
    :param denied: whether it is this direction's rule that refused.
    :param audited: whether it is this direction's rule that is only rehearsed, and would refuse.
    """
    made["event_type"][rows], made["sub_type"][rows] = POLICY_VERDICT, 0
    passed = np.where(records["next_hop"][of] == NextHop.PROXY, _REDIRECTED, _FORWARDED)
    made["verdict"][rows] = np.where(audited, _AUDIT, np.where(denied, _DROPPED, passed))
    made["drop_reason"][rows] = np.where(denied | audited, records["reason"][of], 0)
    made["reply"][rows] = np.where(denied, Reply.UNKNOWN, Reply.NO)
    made["direction"][rows] = direction
    made["trace_reason"][rows] = 0
    made["auth"][rows] = _AUTH[records["auth"][of]]
    made["ingress_rule" if direction == _EGRESS else "egress_rule"][rows] = 0
