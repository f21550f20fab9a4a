"""Conversions that parsers and the command line share. Each raises `ValueError` with a sentence for people."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import AF_INET, inet_pton
from typing import Final

from axoneme.plugins.lb.model import Address, Network

#: 224.0.0.0 and 240.0.0.0: addresses of several hosts are from the one on, before the other.
_MULTICAST: Final = 0xE0000000
_RESERVED: Final = 0xF0000000
#: First and last, by family.
_LOOPBACK: Final = {4: (0x7F000000, 0x7FFFFFFF), 6: (1, 1)}


def address(text: str) -> Address:
    """An address that packets can be sent to: no zone, not unspecified, no multicast; IPv4-mapped IPv6 is IPv4."""
    try:
        number = int.from_bytes(inet_pton(AF_INET, text))
    except (OSError, TypeError, ValueError):
        return _other(text)
    return IPv4Address(number) if 0 < number < _MULTICAST or number >= _RESERVED else _other(text)


def _other(text: str) -> Address:
    """Anything but the usual: IPv6, and what is wrong."""
    found = ip_address(text)
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            raise ValueError(f"{text!r} has a zone, which an address of a service cannot have")
        found = found.ipv4_mapped or found
    if found.is_multicast or found.is_unspecified:
        raise ValueError(f"{text!r} is no address of a single host")
    return found


def virtual(text: str) -> Address:
    """An address that a service can have: one, as `address` has it, that is not everybody's own."""
    found = address(text)
    if is_loopback(found):
        raise ValueError(f"{text!r} is every workload's own (loopback): a service cannot have it")
    return found


def is_loopback(first: Address, last: Address | None = None) -> bool:
    """Whether an address, or one of those up to another one, is a loopback address."""
    low, high = _LOOPBACK[first.version]
    return int(first) <= high and low <= int(last or first)


def network(text: str) -> Network:
    return ip_network(text, strict=False)


def port_number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
