"""API methods about the connection table: what is in it, and to empty it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from axoneme.core.records import ApiMethod

if TYPE_CHECKING:
    from axoneme.core.datapath.collector import Collector

#: Connections per message of a list.
CHUNK: Final = 500


class ConnectionMethods:
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def records(self) -> list[ApiMethod]:
        return [
            ApiMethod(name="bpf.ct.list", call=self.list, streams=True, summary="the connections"),
            ApiMethod(name="bpf.ct.flush", call=self.flush, summary="forget connections"),
        ]

    async def list(
        self, address: str = "", protocol: str = "", translated: bool = False
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Lists of rows, as `connections.rows` has them.

        :param address: `ADDRESS[:PORT]` of one of the ends, or of what one of them seems to be.
        :param translated: only those whose packets get another source.
        """
        from axoneme.core.datapath import connections
        from axoneme.core.datapath.admission import limit_of
        from axoneme.core.datapath.collector import timeouts_of

        timeouts = timeouts_of(self._collector.settings())
        for family in self._collector.tables:
            table = self._collector.maps(f"connections{family}")
            with table.held():
                keys, values = await asyncio.to_thread(table.items)
            now = timeouts.under_pressure(len(keys), limit_of(table))
            rows = connections.rows(keys, values, now, translated=translated)
            chosen = (row for row in rows if _is(row, address, protocol))
            while part := [*islice(chosen, CHUNK)]:
                yield part
                await asyncio.sleep(0)

    async def flush(self, translated: bool = False) -> dict[str, int]:
        """By table, how many entries went. Those connections are decided anew, and translations begin anew.

        :param translated: only connections whose packets get other addresses.
        """
        return await self._collector.flush(translated=translated)


def _is(row: Mapping[str, Any], address: str, protocol: str) -> bool:
    if protocol and row["protocol"].lower() != protocol.lower():
        return False
    places = (row[name] for name in ("source", "destination", "service", "masqueraded"))
    return not address or any(
        address in (place, place.rpartition(":")[0], place.rpartition(":")[0].strip("[]")) for place in places
    )
