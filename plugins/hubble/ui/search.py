"""What people type into the filter: `web verdict:dropped port:443 -ns:kube-system`, as filters of the Hubble API.

A word without a key is a workload, or an address, on either side. Words of the same key are alternatives, different keys
must all hold, and a word with `-` in front must not. `KEYS` says which keys there are.
"""

from __future__ import annotations

import ipaddress
import itertools
import shlex
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from attrs import frozen

from axoneme.core.errors import AxonemeError
from axoneme.core.structure import nearest

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.flow_pb2 import FlowFilter

#: Longer texts, and texts of more words, are a mistake.
_LONGEST: Final = 500
_MOST: Final = 24
#: Filters that come of words which may hold on either side.
_FILTERS: Final = 32


class SearchError(AxonemeError):
    """A text that is no search."""


@frozen
class Key:
    """A key: the fields of which one must have the value, and what it is for."""

    fields: tuple[str, ...]
    help: str


def _sides(field: str) -> tuple[str, ...]:
    return f"source_{field}", f"destination_{field}"


KEYS: Final[Mapping[str, Key]] = {
    "ns": Key(_sides("pod"), "namespace of either side"),
    "pod": Key(_sides("pod"), "workload of either side, [namespace/]name"),
    "from": Key(("source_pod",), "workload that sends"),
    "to": Key(("destination_pod",), "workload that receives"),
    "ip": Key(_sides("ip"), "address or prefix of either side"),
    "label": Key(_sides("label"), "label of either side, such as app=web"),
    "name": Key(_sides("fqdn"), "DNS name of either side; * is anything"),
    "identity": Key(_sides("identity"), "number of an identity"),
    "port": Key(("destination_port",), "port of the side that serves"),
    "proto": Key(("protocol",), "tcp, udp, icmp, http, dns …"),
    "verdict": Key(("verdict",), "forwarded, dropped, audit, redirected …"),
    "reason": Key(("drop_reason_desc",), "reason of a drop, such as policy_denied"),
    "status": Key(("http_status_code",), "HTTP status, such as 5+"),
    "method": Key(("http_method",), "HTTP method"),
    "path": Key(("http_path",), "HTTP path, a regular expression"),
    "dns": Key(("dns_query",), "DNS query, a regular expression"),
    "dir": Key(("traffic_direction",), "ingress or egress"),
}


@frozen
class Word:
    key: str
    value: str
    denied: bool


def words(text: str) -> list[Word]:
    """:raises SearchError: unknown keys, missing values, quotes that do not end."""
    if len(text) > _LONGEST:
        raise SearchError(f"the filter is longer than {_LONGEST} characters")
    try:
        parts = shlex.split(text)
    except ValueError:
        raise SearchError("a quotation does not end") from None
    if len(parts) > _MOST:
        raise SearchError(f"the filter has more than {_MOST} words")
    return [_word(part) for part in parts]


def _word(part: str) -> Word:
    denied, text = part.startswith("-") and len(part) > 1, part.removeprefix("-")
    key, colon, value = text.partition(":")
    if not colon or _is_address(text):
        return Word("ip" if _is_address(text) else "pod", text, denied)
    if key not in KEYS:
        raise SearchError(f"there is no key {key!r}", hint=nearest(key, KEYS))
    if not value:
        raise SearchError(f"{key}: needs a value")
    return Word(key, value, denied)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def filters(text: str) -> tuple[list[FlowFilter], list[FlowFilter]]:
    """What must and what must not be. :raises SearchError: what is wrong with it."""
    found = words(text)
    allowed = _product([word for word in found if not word.denied])
    denied = [one for word in found if word.denied for one in _product([word])]
    return allowed, denied


def _product(found: Iterable[Word]) -> list[FlowFilter]:
    """A filter for each way in which every key can hold; none for no words, which everything satisfies."""
    from axoneme.plugins.hubble.proto.flow_pb2 import FlowFilter

    values: dict[str, list[str]] = {}
    for word in found:
        values.setdefault(word.key, []).append(word.value)
    if not values:
        return []
    ways = list(itertools.islice(itertools.product(*(KEYS[key].fields for key in values)), _FILTERS + 1))
    if len(ways) > _FILTERS:
        raise SearchError("too many words may hold on either side", hint="say from: or to:")
    made = []
    for way in ways:
        one = FlowFilter()
        for field, (key, texts) in zip(way, values.items(), strict=True):
            _set(one, field, key, texts)
        made.append(one)
    return made


def _set(one: FlowFilter, field: str, key: str, texts: list[str]) -> None:
    if key == "ns":
        texts = [f"{text.rstrip('/')}/" for text in texts]
    elif key in ("pod", "from", "to"):
        texts = [_anywhere(text) for text in texts]
    elif key == "proto":
        texts = [text.lower() for text in texts]
    elif key == "method":
        texts = [text.upper() for text in texts]
    numbers: list[int] | list[str] = _numbers(key, texts) if key in _NUMBERED else texts
    wanted = getattr(one, field)
    wanted.extend(numbers)


def _anywhere(text: str) -> str:
    """A name without a namespace is meant in all of them."""
    return text if "/" in text else f"/{text}"


_NUMBERED: Final = ("verdict", "reason", "dir", "identity")


def _numbers(key: str, texts: list[str]) -> list[int]:
    from axoneme.plugins.hubble.proto.flow_pb2 import DropReason, TrafficDirection, Verdict

    enum = {"verdict": Verdict, "reason": DropReason, "dir": TrafficDirection}.get(key)
    try:
        if enum is None:
            return [int(text) for text in texts]
        return [enum.Value(text.upper().replace("-", "_")) for text in texts]
    except ValueError:
        known = [name.lower() for name, _ in enum.items()] if enum is not None else []
        raise SearchError(f"{key}:{texts[0]} is unknown", hint=nearest(texts[0].lower(), known)) from None
