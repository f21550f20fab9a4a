"""Made-up services for the figures of load balancing: in the maps, as the control plane would have written them."""

from __future__ import annotations

from ipaddress import IPv4Address

import numpy as np

from axoneme.core.testing.datapath import DatapathBench
from axoneme.plugins.lb.maps import BACKEND, FRONTEND, SERVICE, Algorithm, BackendFlag, Scope

SERVICES, BACKENDS, TABLE = 20_000, 5, 1021

CLIENT = IPv4Address("192.0.2.1")
NODE = IPv4Address("198.51.100.2")
#: The service that the figures ask for; the others come behind it.
VIP = IPv4Address("10.96.0.1")


def fill(bench: DatapathBench, services: int) -> None:
    """Services on port 80, each with its own backends; the first has a Maglev table, as large as any.

    The others share a stretch of slots each of the size of their backends: what is looked up is the first one's.
    """
    backends = np.zeros(services * BACKENDS, BACKEND[4].dtype)
    numbers = np.arange(1, len(backends) + 1, dtype=np.uint32)
    backends["address"]["a"][:, 0] = int(IPv4Address("10.1.0.0")) + numbers
    backends["port"], backends["flags"] = 8080, int(BackendFlag.USED)
    room = bench.map("lb_backends4").spec.max_entries - 1
    bench.map("lb_backends4").update_batch(numbers[:room], backends[:room])
    table = np.resize(numbers[:BACKENDS], TABLE)
    slots = np.concatenate([table, numbers])
    bench.map("lb_slots").update_batch(np.arange(len(slots), dtype=np.uint32), slots)
    keys, rows = np.zeros(services, FRONTEND[4].dtype), np.zeros(services, SERVICE.dtype)
    keys["address"]["a"][:, 0] = int(VIP) + np.arange(services)
    keys["port"], keys["protocol"], keys["scope"] = 80, 6, int(Scope.EXTERNAL)
    rows["number"], rows["count"] = np.arange(1, services + 1), BACKENDS
    rows["first"] = TABLE + BACKENDS * np.arange(services)
    rows["algorithm"] = int(Algorithm.MAGLEV)
    rows["first"][0], rows["count"][0] = 0, TABLE
    bench.map("lb_services4").update_batch(keys, rows)
