"""What a right rewrite is, byte for byte.

A packet that goes on is the one that came, but for its MAC addresses, one hop, and what a translation exchanges: addresses, ports or
an echo's identifier, and checksums; of an ICMP error the same in the packet that it quotes. Nothing else differs.

Checksums keep their error. RFC 1071's are sums modulo 0xffff: what the covered words and the sum itself add up to (0 if it is right)
is the same before and after (RFC 1624). SCTP's CRC32c is linear over GF(2): how far off a sum is, as an exclusive or with the right
one, is the same before and after; what other ports do to the right one is computed here as a polynomial's product, in another way
than the programs do. UDP's 0 (none, RFC 768) stays 0, and nothing else becomes 0; SCTP's 0 (RFC 9653) stays 0.

Where a packet goes follows from what was seen: as its flow went before, or as an answer to a flow that was seen; or, of a new flow, to
a backend of the service that is asked for, under an address that it may have.
"""

from __future__ import annotations

from collections import Counter

from attrs import define, field, frozen
from headers import HEADER, ICMP, SCTP, SIZE, TCP, UDP, Flow, Reading, read, reverse

FIRST_PORT, LAST_PORT = 1024, 29999
POLYNOMIAL = 0x82F63B78


@frozen
class Served:
    """A service: its backends, and whether a backend elsewhere answers the client itself."""

    backends: frozenset[tuple[bytes, int]]
    direct: bool = False


@define
class Oracle:
    """Knows one family's world, and what every packet has told so far.

    :ivar workloads: MAC addresses of the workloads of this node, its own after theirs, by address.
    :ivar inside: services as workloads see them; `outside`, as those outside do.
    :ivar handed: the MAC addresses of what XDP sends on.
    """

    family: int
    node: bytes
    loopback: bytes
    workloads: dict[bytes, bytes]
    native: frozenset[bytes]
    inside: dict[tuple[bytes, int, int], Served]
    outside: dict[tuple[bytes, int, int], Served]
    handed: bytes
    seen: Counter[str] = field(factory=Counter)
    _onward: dict[Flow, Flow] = field(factory=dict)
    #: Flows whose entries may be others by now, or gone; and all that came in, with the point.
    _over: set[Flow] = field(factory=set)
    _heard: dict[Flow, str] = field(factory=dict)
    _fragments: dict[tuple[bytes, bytes, int, int], set[tuple[int, int]]] = field(factory=dict)

    def judge(self, point: str, before: bytes, after: bytes, *, sent_on: bool) -> None:
        """Raises `AssertionError` unless what became of a packet is right.

        :param sent_on: it went out of a device or to a workload; otherwise it is for the node's stack.
        """
        found = read(before)
        if before == after and not sent_on:
            self._unchanged(point, before, found)
            return
        assert len(before) == len(after), "longer or shorter"
        assert found is not None, "no IP packet, but changed"
        assert not found.routed, "its destination is but its next stop"
        expected = bytearray(before)
        self._hop(point, expected, after, found, sent_on=sent_on)
        self._exchange(expected, after, found)
        if found.quoted is not None:
            self._exchange(expected, after, found.quoted)
        assert expected == after, "something else was changed"
        self._sums(before, after, found)
        self._goes(point, before, after, found)

    def _unchanged(self, point: str, before: bytes, found: Reading | None) -> None:
        """For the stack as it came: nothing that a workload asks a service for, unless its time is up."""
        self.seen[f"{point} untouched"] += 1
        if point == "from_workload" and found is not None and found.ports and not found.routed:
            flow = found.flow(before)
            assert (flow[1], flow[4], flow[2]) not in self.inside or _hops(before, found) <= 1, (
                "not translated"
            )

    def _hop(self, point: str, expected: bytearray, after: bytes, found: Reading, *, sent_on: bool) -> None:
        at, size = found.ip + (8 if self.family == 4 else 7), SIZE[self.family]
        destination = after[found.addresses + size : found.addresses + 2 * size]
        if not sent_on:
            return
        if point != "to_workload":
            assert expected[at] > 1, "its time was up"
            expected[at] -= 1
        if point == "xdp_network":
            expected[:12] = self.handed
        elif destination in self.workloads:
            expected[:12] = self.workloads[destination]

    def _exchange(self, expected: bytearray, after: bytes, found: Reading) -> None:
        """What a translation may change, as it is afterwards."""
        places = [(found.addresses, 2 * SIZE[self.family])]
        if self.family == 4:
            places.append((found.ip + 10, 2))
        places += [each for each in (found.ports, found.sum) if each is not None]
        for at, size in places:
            expected[at : at + size] = after[at : at + size]

    # Checksums.

    def _sums(self, before: bytes, after: bytes, found: Reading) -> None:
        for one in (found, found.quoted):
            if one is None:
                continue
            if self.family == 4:
                end = one.ip + HEADER[4]
                assert _words(before[one.ip : end]) == _words(after[one.ip : end]), "the IP header's sum"
            if one.sum is not None and not one.error:
                self._transport_sum(before, after, one, found)
            elif one is found and found.ports is not None:  # SCTP without the end of its header
                at, size = found.ports
                assert before[at : at + size] == after[at : at + size], "ports, but no sum"
        if found.error:
            covered = _words(before[found.transport :]), _words(after[found.transport :])
            if self.family == 6:
                covered = tuple(  # type: ignore[assignment]
                    total + _words(each[found.addresses : found.addresses + 32])
                    for total, each in zip(covered, (before, after), strict=True)
                )
            assert covered[0] % 0xFFFF == covered[1] % 0xFFFF, "the error's sum"

    def _transport_sum(self, before: bytes, after: bytes, one: Reading, found: Reading) -> None:
        assert one.sum is not None
        at, size = one.sum
        old, new = before[at : at + size], after[at : at + size]
        none = not any(old)
        if one.later or (none and one.protocol in (UDP, SCTP)):
            assert old == new, "none"
            return
        assert any(new) or one.protocol != UDP, "a sum became none"
        if one.protocol == SCTP:
            bits = int.from_bytes(before[one.transport : one.transport + 4], "little")
            bits ^= int.from_bytes(after[one.transport : one.transport + 4], "little")
            if one is not found and (one.length < 12 or one.fragment is not None):
                bits = 0  # quoted, and nothing says how long it was
            off = int.from_bytes(old, "little") ^ int.from_bytes(new, "little")
            assert off == (crc_of_zeros(bits, one.length) if bits else 0), "the CRC"
            return
        assert self._pseudo(before, one) == self._pseudo(after, one), "the transport's sum"

    def _pseudo(self, frame: bytes, one: Reading) -> int:
        """Of all that changes and is covered; the rest is the same."""
        assert one.sum is not None
        total = _words(frame[one.sum[0] : one.sum[0] + 2])
        if one.ports is not None:
            total += _words(frame[one.ports[0] : one.ports[0] + one.ports[1]])
        if one.protocol != ICMP[4]:
            total += _words(frame[one.addresses : one.addresses + 2 * SIZE[self.family]])
        return total % 0xFFFF

    # Ways.

    def _datagram(self, found: Reading, frame: bytes) -> tuple[bytes, bytes, int, int]:
        assert found.fragment is not None
        return (*found.flow(frame)[:2], found.protocol, found.fragment)

    def hear(self, point: str, frame: bytes) -> None:
        """This comes in, whatever becomes of it: also what is dropped may open a connection, or say the ports of a datagram."""
        found = read(frame)
        if found is None or found.later or (flow := _asked(found, frame)) is None:
            return
        self._heard[flow] = point
        if found.fragment is not None:
            self._fragments.setdefault(self._datagram(found, frame), set()).add(flow[3:])
        if found.protocol == TCP and frame[found.transport + 13 : found.transport + 14] != b"\x10":
            self._over |= {flow, reverse(self._onward.get(flow, flow))}

    def _goes(self, point: str, before: bytes, after: bytes, found: Reading) -> None:
        if found.error:
            self._error_goes(point, before, after, found)
            return
        was, now = found.flow(before), found.flow(after)
        if found.later:
            self._later_goes(point, before, was, now, found)
            return
        translates = self._translates(was)
        if was != now and not (found.protocol == TCP and before[found.transport + 13] & 7):
            self._over -= {was, reverse(now)}
        if self._onward.get(was) == now:
            self.seen[f"{point} known"] += 1
            return
        assert not translates, "of a translated flow, and not as it was"
        kind = self._unknown(point, was, now)
        self.seen[f"{point} {kind}"] += 1
        if kind != "direct":
            self._onward[was] = now
            self._onward[reverse(now)] = reverse(was)

    def _unknown(self, point: str, was: Flow, now: Flow) -> str:
        try:
            return self._new(point, was, now)
        except AssertionError:
            asked = self._heard.get(reverse(now))
            if asked is None:
                raise
        self._new(asked, reverse(now), reverse(was))
        return "answer"  # to a question that did not go on itself, but opened the connection

    def _translates(self, flow: Flow) -> bool:
        """It was translated, and nothing ended or began it since."""
        return self._onward.get(flow, flow) != flow and flow not in self._over

    def _later_goes(self, point: str, before: bytes, was: Flow, now: Flow, found: Reading) -> None:
        if was == now:
            self.seen[f"{point} later as it came"] += 1
            return
        # Of several first ones, some were too broken for the program to hear.
        told = self._fragments.get(self._datagram(found, before), set())
        assert told, "nobody knows its ports"
        ways = [self._onward.get((*was[:3], *ports)) for ports in told]
        if not any(way is not None and way[:2] == now[:2] for way in ways):
            self._opened_unseen(point, [(*was[:3], *ports) for ports in told], now)
        self.seen[f"{point} later"] += 1

    def _opened_unseen(self, point: str, flows: list[Flow], now: Flow) -> None:
        """By a first fragment that opened the connection, but was too short to be sent on, or at its last hop."""
        services = self.inside if point == "from_workload" else self.outside
        assert any(self._may_go(point, was, now, services.get((was[1], was[4], was[2]))) for was in flows), (
            "elsewhere than its first fragment"
        )

    def _may_go(self, point: str, was: Flow, now: Flow, served: Served | None) -> bool:
        if served is None:
            return point == "from_workload" and now[:2] == (self.node, was[1])
        allowed = self.loopback if now[1] == was[0] else was[0] if now[1] in self.native else self.node
        return now[0] == allowed and now[1] in {address for address, _ in served.backends}

    def _error_goes(self, point: str, before: bytes, after: bytes, found: Reading) -> None:
        if before[found.ip + HEADER[self.family] :] == after[found.ip + HEADER[self.family] :]:
            assert found.flow(before)[:2] == found.flow(after)[:2], "an error's envelope alone"
            about = found.quoted and found.quoted.ports and reverse(found.quoted.flow(before))
            assert not about or not self._translates(about), "about a translated flow, and not translated"
            self.seen[f"{point} error as it came"] += 1
            return
        quoted = found.quoted
        assert quoted is not None, "what it quotes cannot be read"
        assert quoted.ports is not None, "what it quotes has no ports"
        was, now = reverse(quoted.flow(before)), reverse(quoted.flow(after))
        if self._onward.get(was) != now:
            assert was in self._heard or reverse(now) in self._heard, "about a packet that nobody sent"
            self._unknown(self._heard.get(was, point), was, now)
        outer, outer_now = found.flow(before), found.flow(after)
        assert (outer[1], outer_now[1]) == (was[1], now[1]), "to somebody else"
        assert outer_now[0] == (now[0] if outer[0] == was[0] else outer[0]), "from somebody else"
        self.seen[f"{point} error"] += 1

    def _new(self, point: str, was: Flow, now: Flow) -> str:
        """How a new flow goes, if it may."""
        source, destination, protocol, _, dport = was
        services = self.inside if point == "from_workload" else self.outside
        served = services.get((destination, dport, protocol))
        if served is not None and point != "to_workload":
            if was == now:
                assert served.direct, "to a service, and not translated"
                assert point != "from_workload"
                return "direct"
            assert (now[1], now[4]) in served.backends, "none of its backends"
            self._source_of_served(point, was, now)
            return "service"
        if was == now:
            return "as it came"
        identifier = protocol == ICMP[self.family]
        assert now[1] == destination, "to somebody else"
        assert identifier or now[4] == dport, "to another port"
        if now[0] == source:  # its answers could not be told from another's
            assert point == "from_workload"
            taken = self._onward.get(reverse(was))
            assert taken is not None, "another source port without need"
            assert taken != reverse(was), "another source port without need"
            assert FIRST_PORT <= now[3] <= LAST_PORT
            return "other port"
        assert point == "from_workload", "nobody asked for it"
        assert destination not in self.native, "a workload is reached under one's own address"
        self._as_the_node(now)
        return "masquerade"

    def _source_of_served(self, point: str, was: Flow, now: Flow) -> None:
        if now[1] == was[0]:
            assert now[0] == self.loopback, "to itself under its own address"
            return
        if now[0] == was[0]:
            assert now[1] in self.native, "its answers would not come back"
            assert now[3] == was[3] or FIRST_PORT <= now[3] <= LAST_PORT
            return
        assert now[1] not in self.native, "a workload sees its client's own address"
        self._as_the_node(now)

    def _as_the_node(self, now: Flow) -> None:
        assert now[0] == self.node, "under an address that is not the node's"
        assert FIRST_PORT <= now[3] <= LAST_PORT, "a port that is not given out"


def _asked(found: Reading, frame: bytes) -> Flow | None:
    """A packet's flow, also if it is cut off behind what says the ports."""
    head = frame[found.transport : found.transport + 8]
    size = 14 if found.protocol == TCP else 8
    if len(frame) < found.transport + size or found.error:
        return None
    at = (4, 4) if found.protocol == ICMP[found.family] else (0, 2)
    ports = tuple(int.from_bytes(head[start : start + 2], "big") for start in at)
    return (*found.flow(frame)[:3], ports[0], ports[1])


def _hops(frame: bytes, found: Reading) -> int:
    return frame[found.ip + (8 if found.family == 4 else 7)]


def _words(data: bytes) -> int:
    """The sum of big-endian words, modulo 0xffff: 2^16 is 1 there."""
    return int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big") % 0xFFFF


def _times(one: int, other: int) -> int:
    """Product of two polynomials modulo Castagnoli's; the highest bit is the constant."""
    product = 0
    for bit in range(31, -1, -1):
        if one >> bit & 1:
            product ^= other
        other = other >> 1 ^ (POLYNOMIAL if other & 1 else 0)
    return product


def crc_of_zeros(register: int, size: int) -> int:
    """What the register becomes when so many zero bytes are counted: it is multiplied by x^8 for each."""
    power, result = 1 << 23, register  # x^8
    while size:
        if size & 1:
            result = _times(result, power)
        power, size = _times(power, power), size >> 1
    return result
