"""The two ends of a flow, found by what people call them: workloads, labels, addresses, entities."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NoReturn

from attrs import field, frozen

from axoneme.core.api.wire import NotFoundError, RequestError
from axoneme.core.structure import nearest
from axoneme.core.workloads.identities import RESERVED
from axoneme.plugins.policy.model import NAMESPACE_KEY, Protocol
from axoneme.plugins.policy.subject import Subject

Address = IPv4Address | IPv6Address

#: Reserved identities by the name that rules have for them.
ENTITIES: Mapping[str, int] = {
    labels[0].removeprefix("reserved:"): number for number, labels in RESERVED.items()
}
_ICMP_ECHO = {Protocol.ICMP: 8, Protocol.ICMPV6: 128}


@frozen(kw_only=True)
class Workload:
    """A workload of this node, as policy sees it.

    :param endpoint: its number.
    :param name: NAMESPACE/NAME.
    """

    endpoint: int
    name: str
    identity: int
    subject: Subject
    addresses: tuple[Address, ...] = ()


@frozen(kw_only=True)
class Party:
    """One end of a flow.

    :param endpoint: 0 for whoever is no workload of this node, to whom no policy of this node applies.
    :param address: where one is known; tells addresses of the world apart.
    """

    name: str
    identity: int
    labels: tuple[str, ...] = ()
    endpoint: int = 0
    address: Address | None = None

    @property
    def namespace(self) -> str:
        """Of the labels; empty for whoever has none."""
        return label_value(self.labels, f"k8s:{NAMESPACE_KEY}")

    def plain(self) -> dict[str, object]:
        """As JSON."""
        address = None if self.address is None else str(self.address)
        return {
            "name": self.name, "endpoint": self.endpoint, "identity": self.identity, "labels": list(self.labels),
            "address": address,
        }  # fmt: skip


def label_value(labels: Iterable[str], name: str) -> str:
    """The value of `source:key`, empty when it is not there."""
    return next((text.partition("=")[2] for text in labels if text.partition("=")[0] == name), "")


@frozen
class Parties:
    """Everybody who can be an end of a flow.

    :param identities: labels by number.
    :param behind: the identity behind an address.
    """

    workloads: tuple[Workload, ...] = ()
    identities: Mapping[int, tuple[str, ...]] = field(factory=dict)
    behind: Callable[[Address], int | None] = lambda address: None

    def find(self, text: str) -> Party:
        """Who is meant: a workload (`[NAMESPACE/]NAME`), labels (`app=web,tier=front`), an address, `world`, `host` and
        the other reserved ones, or `identity:NUMBER`.

        :raises NotFoundError: nobody is called so.
        :raises RequestError: several are.
        """
        for way in (self._by_name, self._by_entity, self._by_number, self._by_address, self._by_labels):
            if (found := way(text)) is not None:
                return found
        known = [*(one.name for one in self.workloads), *ENTITIES]
        hint = (
            nearest(text, known)
            or "a workload's name, labels (app=web), an address, or an entity such as world"
        )
        raise NotFoundError(f"nobody is known as {text!r}", hint=hint)

    def of_workload(self, workload: Workload, address: Address | None = None) -> Party:
        address = address or next(iter(workload.addresses), None)
        return Party(
            name=workload.name, identity=workload.identity, labels=workload.subject.labels,
            endpoint=workload.endpoint, address=address,
        )  # fmt: skip

    def of_identity(self, number: int, address: Address | None = None) -> Party:
        labels = self.identities.get(number, ())
        name = shown(number, labels) if address is None else str(address)
        return Party(name=name, identity=number, labels=labels, address=address)

    def _by_name(self, text: str) -> Party | None:
        found = [one for one in self.workloads if text in (one.name, one.name.rpartition("/")[2])]
        if len(found) > 1 and text not in {one.name for one in found}:
            self._refuse(text, (one.name for one in found), "say NAMESPACE/NAME")
        return self.of_workload(found[0]) if found else None

    def _by_entity(self, text: str) -> Party | None:
        number = ENTITIES.get(text.removeprefix("reserved:"))
        if number is None:
            return None
        return self._local(number) or self.of_identity(number)

    def _by_number(self, text: str) -> Party | None:
        number = text.removeprefix("identity:")
        if (
            number == text
            or not number.isascii()
            or not number.isdigit()
            or int(number) not in self.identities
        ):
            return None
        return self._local(int(number)) or self.of_identity(int(number))

    def _by_address(self, text: str) -> Party | None:
        try:
            address = ip_address(text)
        except ValueError:
            return None
        for one in self.workloads:
            if address in one.addresses:
                return self.of_workload(one, address)
        number = self.behind(address)
        return None if number is None else self.of_identity(number, address)

    def _by_labels(self, text: str) -> Party | None:
        wanted = [part.strip() for part in text.split(",")]
        if not all("=" in part for part in wanted):
            return None
        found = [one for one in self.workloads if _have(one.subject.labels, wanted)]
        if len({one.identity for one in found}) > 1:
            self._refuse(text, (one.name for one in found), "say more labels, or a workload's name")
        if found:
            return self.of_workload(found[0])
        numbers = [number for number, labels in self.identities.items() if _have(labels, wanted)]
        if len(numbers) > 1:
            self._refuse(
                text, (f"identity:{number}" for number in numbers), "say more labels, or identity:NUMBER"
            )
        return self.of_identity(numbers[0]) if numbers else None

    def _local(self, identity: int) -> Party | None:
        return next((self.of_workload(one) for one in self.workloads if one.identity == identity), None)

    def _refuse(self, text: str, names: Iterable[str], hint: str) -> NoReturn:
        raise RequestError(f"{text} is not one but several: {', '.join(sorted(names)[:5])}", hint=hint)


def _have(labels: Iterable[str], wanted: Iterable[str]) -> bool:
    """Whether labels `source:key=value` have all of these, each with or without its source."""
    names = set()
    for text in labels:
        names |= {text, text.partition(":")[2]}
    return all(one in names for one in wanted)


def shown(number: int, labels: Iterable[str]) -> str:
    """A short name for an identity that is no workload of this node."""
    texts = sorted(labels)
    prefix = next((text[5:] for text in texts if text.startswith("cidr:")), "")
    entity = next((text[9:] for text in texts if text.startswith("reserved:")), "")
    if prefix or entity:
        return prefix or entity
    return ",".join(_own(texts)) or f"identity {number}"


def _own(labels: Iterable[str]) -> Iterator[str]:
    for text in labels:
        key = text.partition(":")[2]
        if not key.startswith(("io.cilium.", "io.kubernetes.")):
            yield key


def parse_port(text: str, *, ipv6: bool = False) -> tuple[Protocol, int]:
    """`80`, `80/TCP`, `53/udp`, `icmp`, `8/icmp`. Raises `RequestError`.

    :param ipv6: whether `icmp` means ICMPv6.
    """
    port, slash, name = text.strip().rpartition("/")
    if not slash:
        port, name = (text.strip(), "TCP") if text.strip()[:1].isdigit() else ("", text.strip())
    name = {"ICMPV4": "ICMP"}.get(name.upper(), name.upper())
    if name == "ICMP" and ipv6:
        name = "ICMPV6"
    protocol = Protocol.__members__.get(name)
    if protocol is None or protocol is Protocol.ANY:
        raise RequestError(
            f"{name or text!r} is no protocol", hint="write PORT/TCP, PORT/UDP, PORT/SCTP or icmp"
        )
    icmp = protocol in _ICMP_ECHO
    if icmp and not port:
        return protocol, _ICMP_ECHO[protocol]
    largest = 255 if icmp else 65535
    if not port.isascii() or not port.isdigit() or not (0 if icmp else 1) <= int(port[:6]) <= largest:
        raise RequestError(
            f"{port!r} is no {'ICMP type' if icmp else 'port'}", hint="for example 80/TCP or 8/icmp"
        )
    return protocol, int(port)


def port_text(protocol: int, port: int) -> str:
    name = Protocol(protocol).name if protocol in set(Protocol) else f"protocol {protocol}"
    return f"{port}/{name}"
