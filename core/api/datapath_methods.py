"""API methods about the datapath: maps, programs, the composed order, and what happens to packets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from axoneme.core.api.wire import NotFoundError, RequestError
from axoneme.core.records import ApiMethod
from axoneme.core.structure import nearest

if TYPE_CHECKING:
    from axoneme.core.agent import Agent
    from axoneme.core.datapath.build import Build
    from axoneme.core.datapath.loader import LoadedProgram
    from axoneme.core.datapath.maps import Map
    from axoneme.core.net.devices import Device

#: Entries per message of a dump.
CHUNK: Final = 500


class DatapathMethods:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def records(self) -> list[ApiMethod]:
        return [
            ApiMethod(name="bpf.map.list", call=self.map_list, summary="the open maps"),
            ApiMethod(name="bpf.map.dump", call=self.map_dump, streams=True, summary="the entries of a map"),
            ApiMethod(name="bpf.program.list", call=self.program_list, summary="the loaded programs"),
            ApiMethod(name="datapath.show", call=self.show, summary="the composed order per attach point"),
            ApiMethod(name="datapath.source", call=self.source, summary="the composed C of an attach point"),
            ApiMethod(name="datapath.devices", call=self.devices, summary="the node's devices, used or not"),
            ApiMethod(name="datapath.counters", call=self.counters, summary="packets and bytes by reason"),
            ApiMethod(name="monitor", call=self.monitor, streams=True, summary="events as they happen"),
        ]

    def map_list(self) -> list[dict[str, Any]]:
        owners = {p.record.name: p.plugin for p in self._contributions().maps}
        maps = self._build().maps
        return [{"plugin": owners.get(name, "core"), **maps[name].describe()} for name in sorted(maps)]

    async def map_dump(self, name: str, cpus: bool = False) -> AsyncIterator[list[dict[str, Any]]]:
        """Lists of entries. Of per-CPU maps the sums, or with `cpus` each CPU's own values."""
        maps = self._build().maps
        found = maps.get(name)
        if found is None:
            raise NotFoundError(f"there is no map {name!r}", hint=nearest(name, maps))
        if found.spec.key is None or found.spec.value is None or not found.spec.kind.listable:
            raise RequestError(
                f"the entries of {name} cannot be read", hint="its kind has none that could be listed"
            )
        import asyncio

        with found.held():
            keys, values = await asyncio.to_thread(found.items)
        for start in range(0, len(keys), CHUNK):
            end = min(start + CHUNK, len(keys))
            yield list(_entries(found, keys[start:end], values[start:end], cpus))
            await asyncio.sleep(0)

    def program_list(self) -> list[dict[str, Any]]:
        return [row for point, loaded in self._build().programs.items() for row in _programs(point, loaded)]

    async def show(self, cost: bool = False) -> list[dict[str, Any]]:
        """Each attach point with everything that runs there, in order.

        :param cost: also how many instructions each source file contributes, which takes a compilation per attach point.
        """
        attached: dict[str, list[str]] = {}
        for each in self._agent.datapath.attachments():
            attached.setdefault(each.point, []).append(each.name)
        compiler = self._agent.datapath.compiler
        points = self._build().programs.items()
        costs = {point: await compiler.cost(loaded.composition) if cost else {} for point, loaded in points}
        return [
            {
                "attach_point": point,
                "strategy": loaded.composition.strategy,
                "digest": loaded.composition.digest,
                "programs": _programs(point, loaded),
                "steps": [
                    _step(number, step, costs[point])
                    for number, step in enumerate(loaded.composition.order, 1)
                ],
                "attached": sorted(attached.get(point, [])),
            }
            for point, loaded in points
        ]

    def source(self, attach_point: str) -> dict[str, Any]:
        programs = self._build().programs
        if attach_point not in programs:
            raise NotFoundError(f"nothing runs at {attach_point!r}", hint=nearest(attach_point, programs))
        composition = programs[attach_point].composition
        return {"attach_point": attach_point, "digest": composition.digest, "text": composition.text}

    def devices(self) -> list[dict[str, Any]]:
        """Each interface of the node that no agent made, used ones first, with the programs that are there."""
        from axoneme.core.net.devices import DEVICES, Device

        datapath = self._agent.datapath
        rows = self._agent.state.table(DEVICES.name, Device).all()
        points = datapath.active.programs if datapath.active else {}
        return [
            {
                "name": row.name,
                "ifindex": row.ifindex,
                "kind": row.kind,
                "used": row.used,
                "why": row.why,
                "addresses": [str(address) for address in row.addresses],
                "programs": [
                    point for point in points if f"{point}-{row.ifindex}" in datapath.uplinks.placed
                ],
                "note": self._device_note(row) if row.used else "",
            }
            for row in sorted(rows, key=lambda row: (not row.used, row.name))
        ]

    def _device_note(self, device: Device) -> str:
        """Why not all programs are there."""
        datapath = self._agent.datapath
        build = datapath.active
        if build is None or not build.blueprint.constants.direct_routing:
            return "no enabled plugin has something to do at devices"
        refused = [
            f"{place}: {reason}"
            for place, reason in sorted(datapath.uplinks.refused.items())
            if place.endswith(f" of {device.name}")
        ]
        if "xdp_network" in build.programs and not device.named and (why := datapath.uplinks.why_no_xdp()):
            refused.append(f"no XDP: {why}")
        return "; ".join(refused)

    def counters(self) -> list[dict[str, Any]]:
        return self._agent.datapath.counters()

    async def monitor(
        self, types: Sequence[str] = (), workload: str = "", limit: int = 0
    ) -> AsyncIterator[dict[str, Any]]:
        """Events with names, without end unless there is a limit.

        :param types: names of `EventType`; none for all.
        :param workload: only events of this one, `namespace/name`.
        """
        from axoneme.core.datapath.abi import EventType
        from axoneme.core.events.naming import Namer

        kinds = [_event_type(EventType, name) for name in types] or list(EventType)
        reasons = {reason.number: reason for reason in self._build().blueprint.reasons}
        namer = Namer(self._agent.state, reasons)
        told, lost = 0, 0
        with self._agent.events.listen(kinds) as listener:
            async for batch in listener.batches():
                if listener.lost > lost:
                    yield {"type": "lost", "count": listener.lost - lost}
                    lost = listener.lost
                for event in batch:
                    named = namer.name(event)
                    if workload and workload not in workloads_of(named):
                        continue
                    yield named
                    told += 1
                    if told == limit:
                        return

    def _build(self) -> Build:
        return self._agent._generation().build

    def _contributions(self) -> Any:
        return self._agent._generation().assembly.contributions


def _event_type(kinds: Any, name: str) -> Any:
    try:
        return kinds[name.upper()]
    except KeyError:
        known = [kind.name.lower() for kind in kinds]
        raise RequestError(f"there are no events of type {name!r}", hint=nearest(name, known)) from None


def workloads_of(named: dict[str, Any]) -> set[str]:
    uids = {named[side].get("workload", "") for side in ("source", "destination")}
    return uids | {uid.rpartition("/")[2] for uid in uids}


def _entries(found: Map, keys: Any, values: Any, cpus: bool) -> Iterator[dict[str, Any]]:
    from axoneme.core.api.readable import merged, readable

    for key, value in zip(keys, values, strict=True):
        if found.spec.kind.per_cpu:
            shown = [readable(one) for one in value] if cpus else merged(value)
        else:
            shown = readable(value)
        yield {"key": readable(key), "value": shown}


def _programs(point: str, loaded: LoadedProgram) -> list[dict[str, Any]]:
    """Run count and time are zero unless the kernel counts them (`datapath.stats`)."""
    rows = []
    for name, program in zip(loaded.composition.programs, loaded.programs, strict=True):
        info = program.info
        rows.append(
            {
                "name": name,
                "attach_point": point,
                "id": info.id,
                "tag": info.tag,
                "instructions": info.instructions,
                "verified": info.verified,
                "jited_bytes": info.jited_bytes,
                "run_count": info.run_count,
                "mean_ns": round(info.run_time_ns / info.run_count, 1) if info.run_count else None,
            }
        )
    return rows


def _step(number: int, step: Any, cost: Mapping[str, int]) -> dict[str, Any]:
    return {
        "order": number,
        "phase": step.phase.value,
        "plugin": step.plugin,
        "step": step.name,
        "runs": step.runs,
        "instructions": cost.get(step.file) if cost else None,
        "digest": step.digest,
        "file": step.file,
    }
