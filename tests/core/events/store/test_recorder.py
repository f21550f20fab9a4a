"""A running agent keeps what its programs report, with the names of those who are gone by then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from stored import records

from axoneme.core.datapath.abi import EventType
from axoneme.core.events.store import recorder
from axoneme.core.events.store.reader import scan
from axoneme.core.events.store.writer import EventStore, Limits
from axoneme.core.testing.agent import AgentKit


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.02)


def now(count: int = 1) -> np.ndarray:
    """Times as the programs have them."""
    return np.full(count, time.clock_gettime_ns(time.CLOCK_MONOTONIC), np.uint64)


def metrics(kit: AgentKit) -> dict[str, float]:
    rows = kit.agent.parts.recorder.metrics()  # type: ignore[union-attr]
    return {row.name: row.read() for row in rows}  # type: ignore[misc]


async def test_an_endpoint_is_known_after_it_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "events"
    async with AgentKit(folder=tmp_path) as kit:
        parts, events = kit.agent.parts, kit.agent.events
        assert parts is not None
        web = await kit.agent.workloads.add("web", "prod", {"app": "web"})
        events.publish(records(now(), source_endpoint=web.id, source_identity=web.identity))
        await until(lambda: parts.recorder.written == 1)
        await kit.agent.workloads.remove("web", "prod")
        late = records(now(), EventType.CLOSE, source_endpoint=web.id, source_identity=web.identity)
        refused = records(now(), EventType.DROP, reason=133)
        events.publish(np.concatenate([late, refused, records(now(), EventType.TRANSLATE)]))
        # Stopping writes what waits.
    first, second = scan(folder)
    assert first.names.endpoints[web.id].uid == second.names.endpoints[web.id].uid == "prod/web"
    assert "k8s:app=web" in second.names.identities[web.identity].labels
    assert second.names.reasons[133].name == "POLICY_DENIED"
    assert second.records["type"].tolist() == [EventType.CLOSE, EventType.DROP]
    assert abs(int(second.records["time"][0]) - time.time_ns()) < 60 * 10**9
    assert second.node


async def test_a_flood_of_drops_costs_drops_only(tmp_path: Path) -> None:
    async with AgentKit(folder=tmp_path) as kit:
        kept = kit.agent.parts.recorder  # type: ignore[union-attr]
        kit.agent.events.publish(records(now(100)))
        for _ in range(50):
            kit.agent.events.publish(records(now(1000), EventType.DROP))
        await until(lambda: kept.written > 0)
        numbers = metrics(kit)
        lost = numbers["axoneme_event_store_lost_total"]
        assert lost == {("backlog",): 50_000.0 - (kept.written - 100), ("disk",): 0.0}
        assert kept.written <= 100 + 8192 + 1000
        assert numbers["axoneme_event_store_records_total"] == kept.written
        assert numbers["axoneme_event_store_segments"] == 1
        assert numbers["axoneme_event_store_bytes"] > 0
        assert time.time() - 60 < numbers["axoneme_event_store_oldest_seconds"] <= time.time()
    found = np.concatenate([stretch.records["type"] for stretch in scan(tmp_path / "state" / "events")])
    assert (found == EventType.NEW).sum() == 100


async def test_what_cannot_be_written_is_shown_and_no_reason_to_fail(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "events"
    stranger = EventStore(folder, Limits())
    async with AgentKit(folder=tmp_path) as kit:
        kept = kit.agent.parts.recorder  # type: ignore[union-attr]
        kit.agent.events.publish(records(now(3)))
        await until(lambda: kept.lost["disk"] == 3)
        assert kit.agent.ready
        assert "another process writes this event store" in kept.health().reason
        assert "3 records lost so far" in kept.health().reason
        stranger.close()
        await until(lambda: kept.health().reason == "")
        kit.agent.events.publish(records(now(2)))
        await until(lambda: kept.written == 2)


async def test_it_is_switched_off_and_on_by_a_reload(tmp_path: Path) -> None:
    folder = tmp_path / "state" / "events"
    off = {"events": {"store": {"enabled": False}}}
    async with AgentKit(values=off, folder=tmp_path) as kit:
        kept = kit.agent.parts.recorder  # type: ignore[union-attr]
        kit.agent.events.publish(records(now()))
        await asyncio.sleep(2 * recorder.PERIOD)
        assert not folder.exists()
        kit.configure({"events": {"store": {"mebibytes": 5}}})
        await kit.agent.reload()
        kit.agent.events.publish(records(now()))
        await until(lambda: kept.written == 1)
        assert kept.store is not None
        assert kept.store.limits.size == 5 << 20
        kit.configure(off)
        await kit.agent.reload()
        await until(lambda: kept.store is None)
        EventStore(folder, Limits()).close()  # nobody holds it any more
    assert sum(len(stretch.records) for stretch in scan(folder)) == 1


async def test_rows_that_are_gone_are_remembered_but_not_for_ever(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from axoneme.core.events.rules import RULES
    from axoneme.core.state.table import State
    from axoneme.core.workloads.endpoints import ENDPOINTS, IDENTITIES, Endpoint

    monkeypatch.setattr(recorder, "REMEMBERED", 2)
    state = State([ENDPOINTS, IDENTITIES, RULES])
    table = state.writer("endpoints", Endpoint)
    table.upsert(*(Endpoint(id=n, name=f"w{n}", namespace="default") for n in range(1, 6)))
    directory = recorder.Directory(state, dict)
    assert sorted(directory.follow().endpoints) == [1, 2, 3, 4, 5]
    table.delete(1, 2, 3)
    assert sorted(directory.follow().endpoints) == [2, 3, 4, 5]
    table.upsert(Endpoint(id=2, name="again", namespace="default"))
    table.delete(4)
    assert {n: row.name for n, row in directory.follow().endpoints.items()} == {
        2: "again",
        3: "w3",
        4: "w4",
        5: "w5",
    }
