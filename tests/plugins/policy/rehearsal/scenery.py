"""Workloads, policies out of text, and connections in a store, as an agent would have them."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
from attrs import frozen

from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.core.events.store.journal import Names
from axoneme.core.events.store.writer import EventStore, Limits
from axoneme.core.workloads.endpoints import Endpoint, Identity, NamedPort
from axoneme.plugins.policy.rehearsal.inputs import Inputs
from axoneme.plugins.policy.rehearsal.objects import objects_of
from axoneme.plugins.policy.rehearsal.offline import inputs_of

SECOND = 10**9
NOW = 1_700_000_000 * SECOND


def policies(inputs: Inputs, text: str, **more: Any) -> Inputs:
    return inputs.changed(objects_of([("new.yaml", text)]).objects, **more)


def workloads(folder: Path, text: str) -> Inputs:
    path = folder / "workloads.yaml"
    path.write_text(text)
    return inputs_of(path)


@frozen
class Met:
    """A connection: names of workloads, `host` or addresses."""

    source: str
    destination: str
    port: int
    protocol: int = 6
    allowed: bool = True
    at: int = 0
    kind: EventType = EventType.NEW


def names_of(inputs: Inputs) -> Names:
    endpoints = {
        one.endpoint: Endpoint(
            id=one.endpoint, name=one.name.partition("/")[2], namespace=one.name.partition("/")[0],
            identity=one.identity, labels=one.subject.labels,
            named_ports={name: NamedPort(port, protocol.name) for name, protocol, port in one.subject.named_ports},
        )
        for one in inputs.workloads
    }  # fmt: skip
    identities = {
        number: Identity(number=number, labels=labels) for number, labels in inputs.identities.items()
    }
    return Names(endpoints=endpoints, identities=identities)


def record(inputs: Inputs, met: Met) -> Any:
    event = np.zeros(1, EVENT.dtype)
    event["time"], event["protocol"], event["type"] = NOW + met.at * SECOND, met.protocol, met.kind
    event["dport"], event["sport"] = met.port, 40000
    if met.protocol in (1, 58):
        event["icmp_type"], event["dport"], event["sport"] = met.port, 77, 77
    if not met.allowed:
        event["type"], event["reason"] = EventType.DROP, 133
    by_name = {one.name.partition("/")[2]: one for one in inputs.workloads}
    for name, side, address in (("source", met.source, "saddr"), ("destination", met.destination, "daddr")):
        if side in by_name:
            event[f"{name}_endpoint"], event[f"{name}_identity"] = (
                by_name[side].endpoint,
                by_name[side].identity,
            )
        elif side == "host":
            event[f"{name}_identity"] = 1
        else:
            event[f"{name}_identity"] = 2
            number = int(ip_address(side))
            words = (
                [0, 0, 0xFFFF, number]
                if ":" not in side
                else [number >> 32 * n & 0xFFFFFFFF for n in (3, 2, 1, 0)]
            )
            event[address] = words
    return event


def store(folder: Path, inputs: Inputs, met: Iterable[Met]) -> Path:
    """A store with these connections, those of one moment together."""
    names = names_of(inputs)
    with EventStore(folder, Limits(), clock=lambda: NOW) as opened:
        for one in met:
            opened.append(record(inputs, one), names, offset=0)
    return folder
