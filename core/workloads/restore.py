"""Takes over what earlier agents left. What is as it should be is not touched."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from axoneme.core import logs
from axoneme.core.errors import AxonemeError
from axoneme.core.net import namespaces
from axoneme.core.workloads.connector import Connector
from axoneme.core.workloads.network import LostInterfaceError
from axoneme.core.workloads.records import Record
from axoneme.core.workloads.registry import Registry
from axoneme.core.workloads.survey import Finding, Verdict, leftovers, survey

log = logs.get(__name__)

OnLink = Callable[[int], Awaitable[None]]


async def restore(registry: Registry, connector: Connector, on_link: OnLink) -> None:
    """See `Workloads.restore`."""
    records = registry.start()
    work = _Restoration(registry, connector, on_link)
    await work.run(records)
    registry.started()


class _Restoration:
    def __init__(self, registry: Registry, connector: Connector, on_link: OnLink) -> None:
        self._registry = registry
        self._connector = connector
        self._on_link = on_link
        self._kept: list[Record] = []
        self._failed: dict[int, str] = {}

    async def run(self, records: list[Record]) -> None:
        await self._connector.hub()
        seen = self._seen = await self._connector.look()
        findings = await self._connector.call(survey, records, seen, self._connector.agent)
        for link in leftovers(findings, seen, self._connector.agent):
            log.warning("link without record removed", link=link.name, alias=link.alias)
            await self._connector.delete_link(link.ifindex)
        rebuilt = [record for finding in findings if (record := await self._settle(finding)) is not None]
        self._registry.publish(*self._kept, reasons=self._failed)
        for record in self._kept:
            if record.id not in self._failed:
                await self._attach(record, activate=record in rebuilt)
        if stale := await self._connector.prune_routes(self._kept, seen):
            log.warning("routes without workload removed", routes=", ".join(stale))
        log.info("workloads restored", kept=len(self._kept), rebuilt=len(rebuilt), failed=len(self._failed))

    async def _settle(self, finding: Finding) -> Record | None:
        """Keeps or removes one endpoint; returns its record if it has a new interface, which is not up yet."""
        record = finding.record
        try:
            match finding.verdict:
                case Verdict.ADOPT:
                    return await self._adopt(finding)
                case Verdict.REBUILD:
                    return await self._rebuild(record)
                case Verdict.FOREIGN:
                    self._fail(record, f"interface {record.ifname} is somebody else's")
                case Verdict.UNFINISHED | Verdict.VANISHED:
                    log.warning("workload removed", workload=record.uid, reason=finding.verdict.value)
                    await self._discard(finding)
        except AxonemeError as error:
            self._fail(record, str(error))
        return None

    async def _adopt(self, finding: Finding) -> Record | None:
        record, link = finding.record, finding.link
        assert link is not None
        if (link.ifindex, link.peer) != (record.ifindex, record.peer):
            record = self._registry.save(attrs.evolve(record, ifindex=link.ifindex, peer=link.peer))
        try:
            repaired = await self._connector.repair(record, link, self._seen)
        except LostInterfaceError as error:
            log.warning("workload is connected anew", workload=record.uid, reason=str(error))
            await self._connector.disconnect(record, link.ifindex)
            return await self._rebuild(record)
        if repaired:
            log.warning("workload repaired", workload=record.uid, repaired=", ".join(repaired))
        self._kept.append(record)
        return None

    async def _rebuild(self, record: Record) -> Record:
        await self._connector.disconnect(record, 0)  # its routes do not go with its interface
        record = self._registry.save(await self._connector.connect(record, lambda netns: None))
        log.warning("workload connected anew", workload=record.uid, link=record.ifname)
        self._kept.append(record)
        return record

    async def _discard(self, finding: Finding) -> None:
        record = finding.record
        if finding.link is not None:
            await self._connector.disconnect(record, finding.link.ifindex)
        if record.managed and self._is_own_namespace(record):
            await self._connector.delete_namespace(record)
        self._registry.free(record)

    def _is_own_namespace(self, record: Record) -> bool:
        """An unfinished one is known by its name alone: it was written down before it was made."""
        there = namespaces.identity_of(record.netns)
        return there is None or record.netns_inode == 0 or there == record.netns_identity

    def _fail(self, record: Record, reason: str) -> None:
        log.error("workload could not be restored", workload=record.uid, reason=reason)
        self._failed[record.id] = reason
        if record not in self._kept:
            self._kept.append(record)

    async def _attach(self, record: Record, *, activate: bool) -> None:
        try:
            await self._on_link(record.ifindex)
            if activate:
                await self._connector.activate(record)
        except AxonemeError as error:
            log.error("workload could not be restored", workload=record.uid, error=error)
            self._registry.fail(record, str(error))
