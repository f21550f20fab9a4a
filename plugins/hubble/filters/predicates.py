"""Filter fields that columns alone can answer: masks over a view."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from axoneme.plugins.hubble.columns import HAS_FLAGS, Array, Has, Protocol, Reply, View
from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.names import Interned

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import EventTypeFilter, Flow, TCPFlags

#: A mask of the flows of a view that match.
Predicate = Callable[[View], Array]
#: The flows at places of a view, as messages.
Decode = Callable[[View, Array], "list[Flow]"]

_DROPPED: Final = 2
_PROTOCOLS: Final = {
    "icmp": (Protocol.ICMPV4, Protocol.ICMPV6), "icmpv4": (Protocol.ICMPV4,), "icmpv6": (Protocol.ICMPV6,),
    "tcp": (Protocol.TCP,), "udp": (Protocol.UDP,), "sctp": (Protocol.SCTP,),
}  # fmt: skip
#: The numbers of the fields of `flow.Layer7`, less 99; 0 in the column `l7` is none.
L7: Final = {"dns": 1, "http": 2, "kafka": 3}


class ByName:
    """A test of what the numbers of a column stand for, made once per distinct value.

    :param part: the attribute of `Names` that the column's numbers are of.
    """

    def __init__(self, part: str, column: str, test: Callable[[Any], bool]) -> None:
        self._part, self._column, self._test = part, column, test
        self._answers = np.zeros(1, bool)
        self._of: tuple[Interned[Any], int] | None = None

    def __call__(self, view: View) -> Array:
        interned: Interned[Any] = getattr(view.names, self._part)
        if self._of is None or self._of[0] is not interned or self._of[1] != interned.generation:
            self._of = (interned, interned.generation)
            self._answers = np.zeros(1, bool)
        if len(self._answers) < len(interned):
            more = [
                value is not None and self._test(value) for value in interned.values[len(self._answers) :]
            ]
            self._answers = np.concatenate([self._answers, np.array(more, bool)])
        mask: Array = self._answers.take(view[self._column])
        return mask


def equal(column: str, values: Iterable[int]) -> Predicate:
    """The column has one of these values; those that do not fit into it are in no flow."""
    wanted = sorted(set(values))

    def mask(view: View) -> Array:
        found, most = view[column], np.iinfo(view[column].dtype).max
        return any_of([found == value for value in wanted if 0 <= value < most], len(view))

    return mask


def any_of(masks: Sequence[Array], count: int) -> Array:
    if not masks:
        return np.zeros(count, bool)
    result = masks[0]
    for mask in masks[1:]:
        result = result | mask
    return result


def ip_version(values: Iterable[int]) -> Predicate:
    return equal("ip_version", values)


def drop_reason(values: Iterable[int]) -> Predicate:
    reason, dropped = equal("drop_reason", values), equal("verdict", [_DROPPED])
    return lambda view: reason(view) & dropped(view)


def reply(values: Iterable[bool]) -> Predicate:
    """Drops do not know; for them it counts as no."""
    wanted = set(values)

    def mask(view: View) -> Array:
        found = view["reply"]
        masks = [found == Reply.YES] if True in wanted else []
        if False in wanted:
            masks += [found == Reply.NO, (found == Reply.UNKNOWN) & (view["verdict"] == _DROPPED)]
        return any_of(masks, len(view))

    return mask


def event_type(values: Iterable[EventTypeFilter]) -> Predicate:
    wanted = [(each.type, each.sub_type if each.match_sub_type else None) for each in values]

    def mask(view: View) -> Array:
        has = (view["has"] & np.uint8(Has.EVENT_TYPE)) != 0
        masks = []
        for kind, sub_type in wanted:
            one = equal("event_type", [kind])(view) & has if kind else has
            masks.append(one if sub_type is None else one & equal("sub_type", [sub_type])(view))
        return any_of(masks, len(view))

    return mask


def tcp_flags(values: Iterable[TCPFlags]) -> Predicate:
    wanted = [HAS_FLAGS | flag_bits(each) for each in values]
    return lambda view: any_of([(view["tcp_flags"] & np.uint16(w)) == w for w in wanted], len(view))


def flag_bits(flags: TCPFlags) -> int:
    """As in the column `tcp_flags`."""
    return sum(1 << field.number - 1 for field, on in flags.ListFields() if on)


def port(end: str, values: Iterable[str]) -> Predicate:
    wanted = set()
    for value in values:
        if not re.fullmatch(r"[0-9]{1,20}", value) or int(value) > 0xFFFF:
            raise RequestError(f"invalid {end} port filter: {value!r} is no port, a number up to 65535")
        wanted.add(int(value))
    kinds = np.zeros(256, bool)
    kinds[[Protocol.TCP, Protocol.UDP, Protocol.SCTP]] = True

    def answer(view: View) -> Array:
        found = view[f"{end}_port"]
        masks = [found == value for value in wanted] if len(wanted) < 8 else [np.isin(found, list(wanted))]
        has_ports = (view["has"] & np.uint8(Has.PORTS)) != 0
        mask: Array = any_of(masks, len(view)) & kinds.take(view["protocol"]) & has_ports
        return mask

    return answer


def protocol(values: Iterable[str]) -> Predicate:
    layer4: list[int] = []
    layer7: list[int] = []
    for value in values:
        if (name := value.lower()) in L7:
            layer7.append(L7[name])
        elif name in _PROTOCOLS:
            layer4 += _PROTOCOLS[name]
        else:
            raise RequestError(f"invalid protocol filter: unknown protocol: {value!r}")
    four, seven = equal("protocol", layer4), equal("l7", layer7)
    return lambda view: four(view) | seven(view)


class Addresses:
    """A flow's address is one of these, as it is written, or in one of these prefixes."""

    def __init__(self, end: str, values: Iterable[str], decode: Decode) -> None:
        self._end, self._decode = end, decode
        self._exact: list[tuple[int, int]] = []
        self._prefixes: list[tuple[tuple[int, int], tuple[int, int]]] = []
        self._test = address_test(f"{end} ip", values := list(values))
        for value in values:
            if "/" in value:
                network = ipaddress.ip_network(value, strict=False)
                self._prefixes.append((_halves(network.network_address), _halves_of_mask(network)))
            elif (
                str(ipaddress.ip_address(value)) == value and "%" not in value
            ):  # otherwise no flow has it, written like this
                self._exact.append(_halves(ipaddress.ip_address(value)))

    def __call__(self, view: View) -> Array:
        high, low = view[f"{self._end}_high"], view[f"{self._end}_low"]
        masks = self._equal(high, low)
        for (net_high, net_low), (mask_high, mask_low) in self._prefixes:
            within = (low & np.uint64(mask_low)) == net_low
            masks.append(within & ((high & np.uint64(mask_high)) == net_high))
        bit = Has.SOURCE_IP if self._end == "source" else Has.DESTINATION_IP
        mask: Array = any_of(masks, len(view)) & ((view["has"] & np.uint8(bit)) != 0)
        odd = np.flatnonzero(view["has"] & np.uint8(Has.ODD_IP))
        if len(odd):
            mask[odd] = [self._test(getattr(flow.IP, self._end)) for flow in self._decode(view, odd)]
        return mask

    def _equal(self, high: Array, low: Array) -> list[Array]:
        if len(self._exact) < 16:
            return [(low == its_low) & (high == its_high) for its_high, its_low in self._exact]
        candidates = np.flatnonzero(
            np.isin(low, np.array([its_low for _, its_low in self._exact], np.uint64))
        )
        wanted, mask = set(self._exact), np.zeros(len(low), bool)
        pairs = zip(high[candidates].tolist(), low[candidates].tolist(), strict=True)
        mask[candidates] = [pair in wanted for pair in pairs]
        return [mask]


def address_test(what: str, values: Iterable[str]) -> Callable[[str], bool]:
    """The same for one text. An exact address has to be written as in the filter, and to be one."""
    exact, prefixes = set(), []
    for value in values:
        try:
            if "/" in value:
                if not re.fullmatch(r"[^/]+/[0-9]{1,3}", value):
                    raise ValueError(f"{value!r} is no prefix")
                prefixes.append(ipaddress.ip_network(value, strict=False))
            else:
                ipaddress.ip_address(value)
                exact.add(value)
        except ValueError as error:
            raise RequestError(f"invalid {what} filter: {error}") from None

    def test(text: str) -> bool:
        if not text or not prefixes:
            return text in exact
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return text in exact or any(address in prefix for prefix in prefixes)

    return test


def _halves(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> tuple[int, int]:
    number = int(address) | (0xFFFF << 32 if address.version == 4 else 0)
    return number >> 64, number & 0xFFFFFFFFFFFFFFFF


def _halves_of_mask(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> tuple[int, int]:
    """Of an IPv4 prefix the mapping's part counts as well: an IPv6 address is in none."""
    number = int(network.netmask) | ((1 << 96) - 1 << 32 if network.version == 4 else 0)
    return number >> 64, number & 0xFFFFFFFFFFFFFFFF
