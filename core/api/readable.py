"""Entries of maps as people read them: fields by name, addresses and MACs as text."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import numpy as np

_WORDS: Final = {1: IPv4Address, 4: IPv6Address}
_ADDRESSES: Final = frozenset({"saddr", "daddr", "address"})


def readable(value: Any, name: str = "") -> Any:
    """A numpy scalar, record or array of a map, as plain values.

    :param name: of the field that holds it; what is named like an address or a MAC is shown as one.
    """
    names = getattr(getattr(value, "dtype", None), "names", None)
    if names is not None and getattr(value, "shape", ()) == ():
        if names == ("a",):
            return _address(value["a"])
        return {n: readable(value[n], n) for n in names if not n.startswith("pad")}
    if names is not None:
        return [readable(item, name) for item in value]
    if not isinstance(value, np.ndarray):
        return value.item() if hasattr(value, "item") else value
    if value.dtype == np.uint8 and value.shape == (6,) and "mac" in name:
        return ":".join(f"{byte:02x}" for byte in value.tolist())
    if value.dtype == np.uint8 and value.shape == (16,):
        return _wide(value.tobytes())
    if value.dtype.itemsize == 4 and name in _ADDRESSES and value.shape in ((1,), (4,)):
        return _address(value)
    return value.tolist()


def _address(words: Any) -> str:
    kind = _WORDS[len(words)]
    return str(kind(b"".join(int(word).to_bytes(4, "big") for word in words)))


def _wide(packed: bytes) -> str | None:
    """16 bytes: IPv6, IPv4-mapped, or zero for none."""
    address = IPv6Address(packed)
    return str(address.ipv4_mapped or address) if any(packed) else None


def merged(values: Any) -> Any:
    """The values of all CPUs of one entry as one: numbers are added up, what is no number stays a list."""
    if values.dtype.names is None:
        return values.sum(axis=0).tolist()
    fields: Mapping[str, Any] = {
        name: values[name].sum(axis=0).tolist() for name in values.dtype.names if not name.startswith("pad")
    }
    return dict(fields)
