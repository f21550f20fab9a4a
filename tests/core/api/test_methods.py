"""The methods of the core, asked over the socket of a whole agent without a kernel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from axoneme.core.api.client import Client
from axoneme.core.api.wire import NotFoundError, RequestError
from axoneme.core.datapath.abi import EVENT, EventType
from axoneme.core.errors import AxonemeError
from axoneme.core.testing.agent import AgentKit

from ..sample import Sample  # noqa: TID252 - tests are no package that could be named

Ask = Callable[..., Any]


@pytest.fixture
async def kit() -> AsyncIterator[AgentKit]:
    async with AgentKit([Sample()], {"plugins": {"sample": {"stage": "/* mine */"}}}) as kit:
        await kit.agent.workloads.add("web", labels={"app": "web"})
        yield kit


@pytest.fixture
def ask(kit: AgentKit) -> Ask:
    async def ask(method: str, /, **arguments: Any) -> Any:
        def work() -> Any:
            with kit.client() as client:
                return client.call(method, **arguments)

        return await asyncio.to_thread(work)

    return ask


async def stream(kit: AgentKit, method: str, **arguments: Any) -> Any:
    def work() -> Any:
        with kit.client() as client:
            return list(client.stream(method, **arguments))

    return await asyncio.to_thread(work)


async def test_status_tells_of_every_part(ask: Ask) -> None:
    status = await ask("status")
    assert status["ok"] is True
    assert status["agent"]["ready"] is True
    assert status["counts"] == {"endpoints": 1, "identities": 11, "resources": 0}
    assert {
        "plugin": "sample",
        "service": "work",
        "state": "ready",
        "restarts": 0,
        "level": "ok",
        "reason": "",
    } in (status["services"])
    assert {"plugin": "sample", "check": "self", "level": "ok", "reason": ""} in status["checks"]
    assert [(p["name"], p["state"]) for p in status["plugins"] if p["name"] == "sample"] == [
        ("sample", "enabled")
    ]


async def test_a_check_that_raises_is_a_failure(kit: AgentKit, ask: Ask) -> None:
    kit.configure({"plugins": {"sample": {"fail": "check"}}})
    await kit.agent.reload()
    status = await ask("status")
    check = next(row for row in status["checks"] if row["plugin"] == "sample")
    assert (status["ok"], status["level"], check["level"]) == (False, "failed", "failed")
    assert check["reason"] == "the check itself failed: ValueError: no check today"


async def test_a_refused_reload_is_in_the_status(kit: AgentKit, ask: Ask) -> None:
    kit.configure({"plugins": {"sample": {"fail": "service"}}})
    with pytest.raises(AxonemeError, match="no service today"):
        await ask("reload")
    status = await ask("status")
    assert (status["ok"], status["level"]) == (False, "degraded")
    assert "the last reload was refused" in status["checks"][-1]["reason"]


async def test_reload_says_whether_anything_changed(kit: AgentKit, ask: Ask) -> None:
    kit.configure({"plugins": {"sample": {"stage": "/* mine */"}}})
    assert await ask("reload") == {"changed": False, "generation": 1}
    assert await ask("reload", force=True) == {"changed": True, "generation": 2}


async def test_endpoints_are_found_by_id_name_and_both(kit: AgentKit, ask: Ask) -> None:
    rows = await ask("endpoint.list")
    assert [(row["id"], row["name"], row["state"]) for row in rows] == [(1, "web", "ready")]
    for name in ("1", "web", "default/web"):
        assert (await ask("endpoint.get", name=name))["ipv4"] == "10.244.0.2"
    with pytest.raises(NotFoundError, match="did you mean default/web"):
        await ask("endpoint.get", name="default/wbe")
    await kit.agent.workloads.add("web", "other")
    with pytest.raises(RequestError, match="several workloads are named web: default/web, other/web"):
        await ask("endpoint.get", name="web")


async def test_workloads_are_added_and_removed(ask: Ask) -> None:
    added = await ask(
        "workload.add", name="db", labels={"app": "db"}, ports={"sql": {"port": 5432, "protocol": "TCP"}}
    )
    assert added["named_ports"] == {"sql": {"port": 5432, "protocol": "TCP"}}
    assert await ask("workload.remove", name="db") == {"removed": "default/db"}
    with pytest.raises(NotFoundError):
        await ask("workload.remove", name="db")
    with pytest.raises(RequestError, match="the named port sql: expected a whole number"):
        await ask("workload.add", name="db", ports={"sql": {"port": "x"}})


async def test_identities_and_ipcache(ask: Ask) -> None:
    number = (await ask("endpoint.get", name="web"))["identity"]
    identity = await ask("identity.get", number=number)
    assert "k8s:app=web" in identity["labels"]
    assert [endpoint["name"] for endpoint in identity["endpoints"]] == ["web"]
    assert {"identity": 1, "labels": ["reserved:host"], "references": 0} in await ask("identity.list")
    with pytest.raises(NotFoundError):
        await ask("identity.get", number=999999)
    entries = await ask("ipcache.list")
    assert {"prefix": "10.244.0.2/32", "identity": number, "source": "local", "node": ""} in entries


async def test_configuration_tables_and_plugins(ask: Ask) -> None:
    view = {row["key"]: row for row in await ask("config.view")}
    assert view["plugins.sample.size"] == {"key": "plugins.sample.size", "value": 8, "origin": "default"}
    assert "sample_rows" in [row["name"] for row in await ask("table.list")]
    plugins = {row["name"]: row for row in await ask("plugin.list")}
    assert plugins["sample"]["provider"] == "in process (Sample)"
    assert "services" in plugins["sample"]["hooks"]


async def test_resources_with_their_problems(kit: AgentKit, ask: Ask) -> None:
    kit.resource("a.yaml", "apiVersion: v1\nkind: SampelThing\nmetadata: {name: t}\n")
    table = kit.agent.state.table("resources")
    async with asyncio.timeout(5):
        async for _ in table.watch():
            if len(table):
                break
    rows = await ask("resource.list", problems=True)
    assert rows[0]["status"] == "invalid"
    assert "did you mean SampleThing" in rows[0]["problems"][0]
    assert await ask("resource.list", kind="Other") == []


async def test_maps_are_listed_and_dumped(kit: AgentKit, ask: Ask) -> None:
    maps = {row["name"]: row for row in await ask("bpf.map.list")}
    assert maps["sample_map"]["plugin"] == "sample"
    assert maps["endpoints4"]["plugin"] == "core"
    assert await stream(kit, "bpf.map.dump", name="sample_map") == [[{"key": 1, "value": 8}]]
    entry = (await stream(kit, "bpf.map.dump", name="endpoints4"))[0][0]
    assert (entry["key"], entry["value"]["id"]) == ("10.244.0.2", 1)
    assert await stream(kit, "bpf.map.dump", name="counters")
    with pytest.raises(NotFoundError, match="did you mean sample_map"):
        await stream(kit, "bpf.map.dump", name="smaple_map")
    with pytest.raises(RequestError, match="cannot be read"):
        await stream(kit, "bpf.map.dump", name="events")


async def test_large_dumps_come_in_pieces(kit: AgentKit) -> None:
    table = kit.agent.datapath.map("links")
    table.update_batch(np.arange(1, 1201, dtype="u4"), np.zeros(1200, table.spec.value.dtype))  # type: ignore[union-attr]
    sizes = [len(batch) for batch in await stream(kit, "bpf.map.dump", name="links")]
    assert sizes[:2] == [500, 500]


async def test_the_composed_order_is_shown(kit: AgentKit, ask: Ask) -> None:
    points = {row["attach_point"]: row for row in await ask("datapath.show")}
    steps = points["from_workload"]["steps"]
    assert [(s["plugin"], s["step"], s["phase"], s["runs"]) for s in steps if s["plugin"] == "sample"] == [
        ("sample", "count", "observe", "every")
    ]
    assert points["from_workload"]["attached"] == ["from_workload-1"]
    programs = {row["name"] for row in await ask("bpf.program.list")}
    assert {"from_workload", "to_workload"} <= programs
    text = (await ask("datapath.source", attach_point="from_workload"))["text"]
    assert "/* mine */" in text
    with pytest.raises(NotFoundError, match="did you mean from_workload"):
        await ask("datapath.source", attach_point="form_workload")
    assert isinstance(await ask("datapath.counters"), list)


async def test_methods_of_plugins_are_there_and_a_bug_in_them_is_theirs(kit: AgentKit, ask: Ask) -> None:
    assert await ask("sample.size") == {"size": 8}
    assert await stream(kit, "sample.count", limit=2) == [{"number": 0}, {"number": 1}]
    with pytest.raises(AxonemeError, match=r"sample\.fail failed: RuntimeError: a bug"):
        await ask("sample.fail")


async def test_metrics(ask: Ask) -> None:
    rows = {(row["name"], *row["labels"].values()): row for row in await ask("metrics")}
    assert rows[("axoneme_events_lost_total",)]["value"] == 0
    assert rows[("axoneme_events_total", "drop")]["type"] == "counter"


async def test_monitor_names_events_and_stops_at_the_limit(kit: AgentKit) -> None:
    def drop(reason: int) -> Any:
        event = np.zeros(1, EVENT.dtype)
        event["type"], event["reason"], event["protocol"] = EventType.DROP, reason, 6
        event["source_endpoint"] = 1
        return event

    def work() -> Any:
        with kit.client() as client:
            return list(client.stream("monitor", types=["drop"], workload="web", limit=1))

    before = len(kit.agent.events._listeners)
    watching = asyncio.ensure_future(asyncio.to_thread(work))
    async with asyncio.timeout(10):
        while len(kit.agent.events._listeners) == before:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0)
    kit.agent.events.publish(drop(133))
    (event,) = await watching
    assert event["reason"] == "POLICY_DENIED"
    assert event["source"]["workload"] == "default/web"
    with pytest.raises(RequestError, match="there are no events of type 'fish'"):
        await stream(kit, "monitor", types=["fish"])


async def test_a_client_that_is_held_open_does_not_keep_the_agent_from_stopping(kit: AgentKit) -> None:
    with Client(kit.agent.socket) as client:
        await asyncio.to_thread(client.call, "status")
        await kit.agent.stop()
