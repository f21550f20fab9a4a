"""Conversions that parsers and the command line share. Each raises `ValueError` with a sentence for people."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from axoneme.plugins.lb.model import Address, Network


@lru_cache(maxsize=4096)
def address(text: str) -> Address:
    """An address that packets can be sent to: no zone, not unspecified, no multicast; IPv4-mapped IPv6 is IPv4."""
    if type(text) is str and text.isascii() and "." in text and ":" not in text:
        found: Address = IPv4Address(text)
    else:
        found = ip_address(text)
    if isinstance(found, IPv6Address):
        if found.scope_id is not None:
            raise ValueError(f"{text!r} has a zone, which an address of a service cannot have")
        found = found.ipv4_mapped or found
    if found.is_multicast or found.is_unspecified:
        raise ValueError(f"{text!r} is no address of a single host")
    return found


def network(text: str) -> Network:
    return ip_network(text, strict=False)


def port_number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise ValueError(f"{text!r} is not a port from 1 to 65535")
    return int(text)
