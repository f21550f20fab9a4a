"""The layouts that programs and Python share."""

from __future__ import annotations

from axoneme.plugins.lb import maps
from axoneme.plugins.lb.maps import Sizes, specs


def test_keys_have_no_hole_that_nobody_writes() -> None:
    assert [maps.FRONTEND[family].size for family in (4, 6)] == [8, 20]
    assert [maps.SOCKET[family].size for family in (4, 6)] == [32, 56]
    assert maps.CLIENT.size == 24


def test_sizes_are_those_that_were_asked_for() -> None:
    made = {spec.name: spec.max_entries for spec in specs(Sizes(services=2048, backends=4096, slots=8192))}
    assert made["lb_services4"] == made["lb_services6"] == 2048
    assert made["lb_backends4"] == made["lb_backends6"] == made["lb_loads"] == 4096
    assert made["lb_slots"] == 8192
    assert made["lb_turns"] >= made["lb_services4"] + made["lb_services6"], (
        "a service of any number has its turn"
    )


def test_addresses_and_ports_are_in_network_order() -> None:
    frontend = maps.FRONTEND[4].pack(address={"a": [0x0A000001]}, port=80, protocol=6, scope=1)
    assert frontend == bytes([10, 0, 0, 1, 0, 80, 6, 1])
