"""The figures of the event store: what it costs the agent to keep a record, how large one is, and how fast it is read again.

As the recorder uses it: half a second's records at once, of which each is of another connection between 200 workloads.
CPU time, so that neither the disk nor other processes count.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from figures import Figure

from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.core.events.rules import Rule
from axoneme.core.events.store.journal import Names
from axoneme.core.events.store.reader import scan
from axoneme.core.events.store.writer import EventStore, Limits
from axoneme.core.workloads.endpoints import Endpoint, Identity

RECORDS, BATCHES, WORKLOADS, IDENTITIES, RULES = 10_000, 40, 200, 50, 20


def records(seed: int) -> Any:
    """New, closed and dropped connections, as varied as they are: addresses, ports, sizes, times."""
    chance = np.random.default_rng(seed)
    made = np.zeros(RECORDS, EVENT.dtype)
    made["time"] = time.clock_gettime_ns(time.CLOCK_MONOTONIC) + np.cumsum(
        chance.integers(1_000, 100_000, RECORDS)
    )
    made["type"] = chance.choice(
        [EventType.DROP, EventType.NEW, EventType.CLOSE], RECORDS, p=[0.1, 0.45, 0.45]
    )
    made["family"], made["protocol"], made["dport"] = 4, 6, chance.choice([80, 443, 5432, 8080], RECORDS)
    made["sport"] = chance.integers(32_768, 60_999, RECORDS)
    for side, address in (("source", "saddr"), ("destination", "daddr")):
        who = chance.integers(0, WORKLOADS, RECORDS)
        made[f"{side}_endpoint"], made[f"{side}_identity"] = who + 1, 256 + who % IDENTITIES
        made[address][:, 2], made[address][:, 3] = 0xFFFF, 0x0AF40000 + who
    made["egress_rule"], made["ingress_rule"] = 1 + chance.integers(0, RULES, (2, RECORDS))
    made["packets"] = chance.integers(1, 200, RECORDS)
    made["bytes"] = made["packets"] * chance.integers(60, 1500, RECORDS)
    return made


def names() -> Names:
    labels = tuple(f"k8s:label{number}=value{number}" for number in range(8))
    rule: dict[str, Any] = {
        "kind": "CiliumNetworkPolicy",
        "namespace": "bench",
        "direction": "egress",
        "index": 0,
    }
    return Names(
        endpoints={
            n: Endpoint(id=n, name=f"w{n}", namespace="bench", labels=labels) for n in range(1, WORKLOADS + 1)
        },
        identities={n: Identity(number=n, labels=labels) for n in range(256, 256 + IDENTITIES)},
        rules={
            n: Rule(id=n, name=f"p{n}", path="spec.egress[0]", effect="allow", text="{}", **rule)
            for n in range(1, RULES + 1)
        },
    )


@contextmanager
def store() -> Iterator[EventStore]:
    with (
        tempfile.TemporaryDirectory(prefix="axoneme-bench-") as folder,
        EventStore(Path(folder), Limits()) as opened,
    ):
        yield opened


def filled(opened: EventStore) -> EventStore:
    known = names()
    for seed in range(BATCHES):
        opened.append(records(seed), known)
    return opened


def append(rounds: int) -> Sequence[float]:
    """ns of CPU for each record, compression and what the kernel does included."""
    batches, known = [records(seed) for seed in range(BATCHES)], names()
    samples = []
    for _ in range(rounds):
        with store() as opened:
            opened.append(batches[0], known)
            begin = time.process_time_ns()
            for batch in batches:
                opened.append(batch, known)
            samples.append((time.process_time_ns() - begin) / (BATCHES * RECORDS))
    return samples


def size(rounds: int) -> Sequence[float]:
    """Bytes of the disk for each record; always the same."""
    del rounds
    with store() as opened:
        filled(opened)
        return [opened.size / opened.written]


def read(rounds: int) -> Sequence[float]:
    """ns of CPU for each record, of which one column is looked at."""
    samples = []
    with store() as opened:
        filled(opened)
        for _ in range(rounds):
            begin = time.process_time_ns()
            found = sum(int((stretch.records["dport"] == 443).sum()) for stretch in scan(opened.folder))
            samples.append((time.process_time_ns() - begin) / opened.written)
            assert found > opened.written // 5
    return samples


def figures() -> list[Figure]:
    return [
        Figure(
            name="events.store.append", unit="ns", limit=1000, measure=append,
            what="a record is kept on the disk, ten thousand at once",
        ),
        Figure(
            name="events.store.size", unit="bytes", limit=40, measure=size, what="what a record takes of the disk"
        ),
        Figure(
            name="events.store.read", unit="ns", limit=500, measure=read, what="a record is read again and looked at"
        ),
    ]  # fmt: skip
