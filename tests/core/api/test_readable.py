from __future__ import annotations

import numpy as np

from axoneme.core.api.readable import merged, readable
from axoneme.core.datapath.abi import ADDRESS, ENDPOINT, IPCACHE_ENTRY, PREFIX, TUPLE


def test_addresses_and_macs_are_text() -> None:
    key = np.frombuffer(PREFIX[4].pack(length=32, address={"a": [0x0A000001]}), PREFIX[4].dtype)[0]
    assert readable(key) == {"length": 32, "address": "10.0.0.1"}
    six = np.frombuffer(ADDRESS[6].pack(a=[0xFD000244, 0, 0, 1]), ADDRESS[6].dtype)[0]
    assert readable(six) == "fd00:244::1"
    row = np.frombuffer(
        ENDPOINT.pack(ifindex=3, identity=256, id=1, mac=bytes(range(6)), node_mac=bytes(6)), ENDPOINT.dtype
    )[0]
    assert readable(row)["mac"] == "00:01:02:03:04:05"
    assert readable(row)["identity"] == 256


def test_a_connections_key() -> None:
    key = TUPLE[4].pack(saddr={"a": [0x0A000001]}, daddr={"a": [0x0A000002]}, sport=1, dport=80, protocol=6)
    shown = readable(np.frombuffer(key, TUPLE[4].dtype)[0])
    assert shown == {"saddr": "10.0.0.1", "daddr": "10.0.0.2", "sport": 1, "dport": 80, "protocol": 6}


def test_sixteen_bytes_are_an_address() -> None:
    entry = IPCACHE_ENTRY.pack(identity=2, node=b"\0" * 10 + b"\xff\xff\x0a\0\0\x01", key=0)
    assert readable(np.frombuffer(entry, IPCACHE_ENTRY.dtype)[0])["node"] == "10.0.0.1"
    none = IPCACHE_ENTRY.pack(identity=2, node=bytes(16), key=0)
    assert readable(np.frombuffer(none, IPCACHE_ENTRY.dtype)[0])["node"] is None


def test_scalars_and_cpus() -> None:
    assert readable(np.uint32(7)) == 7
    values = np.zeros(2, [("packets", "u8"), ("bytes", "u8")])
    values["packets"] = [1, 2]
    assert merged(values) == {"packets": 3, "bytes": 0}
    assert merged(np.array([1, 2], "u8")) == 3
