"""Records and names as a running agent would have them."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import numpy as np

from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.core.datapath.reasons import BY_NUMBER
from axoneme.core.events.rules import Rule
from axoneme.core.events.store.codec import Records
from axoneme.core.events.store.journal import Names
from axoneme.core.workloads.endpoints import Endpoint, Identity, NamedPort

SECOND = 10**9


def records(times: Any, kind: EventType = EventType.NEW, **fields: Any) -> Records:
    """One record for each time (ns since 1970)."""
    made = np.zeros(len(times), EVENT.dtype)
    made["time"], made["type"], made["family"], made["protocol"] = times, kind, 4, 6
    made["source_endpoint"], made["source_identity"], made["egress_rule"] = 7, 300, 99
    for name, value in fields.items():
        made[name] = value
    return made


def names(endpoint: str = "web") -> Names:
    rule = Rule(
        id=99, kind="CiliumNetworkPolicy", namespace="prod", name="p", direction="egress", path="spec.egress[0]",
        index=0, effect="allow", text="{}", file="p.yaml", line=4,
    )  # fmt: skip
    return Names(
        endpoints={
            7: Endpoint(
                id=7,
                name=endpoint,
                namespace="prod",
                ipv4=IPv4Address("10.0.0.1"),
                identity=300,
                labels=("k8s:app=web",),
                named_ports={"http": NamedPort(8080)},
            ),
            8: Endpoint(id=8, name="other", namespace="prod"),
        },
        identities={
            300: Identity(number=300, labels=("k8s:app=web", "k8s:io.kubernetes.pod.namespace=prod"))
        },
        rules={99: rule},
        reasons=dict(BY_NUMBER),
    )
