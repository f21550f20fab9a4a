"""Methods that the plugin adds to the agent's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from functools import partial
from typing import Any, Final

from axoneme.core.api.wire import NotFoundError, RequestError
from axoneme.core.plugin import PluginContext
from axoneme.core.records import ApiMethod
from axoneme.core.structure import nearest, structure
from axoneme.plugins.lb import control, show
from axoneme.plugins.lb.model import Name, Protocol
from axoneme.plugins.lb.store import LocalRecord
from axoneme.plugins.lb.values import address, port_number

#: Rows per message of a long answer.
CHUNK: Final = 500


def methods(context: PluginContext) -> Iterable[ApiMethod]:
    made = Methods(context)
    return [
        ApiMethod(name="service.list", call=made.rows, streams=True, summary="services, by frontend"),
        ApiMethod(name="service.get", call=made.get, summary="one service's frontends"),
        ApiMethod(name="service.explain", call=made.explain, summary="what an address and port comes to"),
        ApiMethod(name="service.add", call=made.add, summary="add or replace a local service"),
        ApiMethod(name="service.delete", call=made.delete, summary="delete a local service"),
        ApiMethod(name="lb.pools", call=made.pools, summary="pools of addresses for services"),
        ApiMethod(name="lb.map", call=made.map, summary="what the kernel's maps of services hold"),
    ]


class Methods:
    def __init__(self, context: PluginContext) -> None:
        self._context = context

    def _owner(self) -> control.Control:
        """Raises `RequestError` while there is none that would keep what it is told."""
        owner = control.of(self._context)
        if not owner.running:
            raise RequestError(
                "local services cannot be changed at this moment: the plugin lb is being started or reconfigured",
                hint="try again in a moment; `axoneme status` says if it does not come to an end",
            )
        return owner

    @property
    def _engine(self) -> Any:
        return control.of(self._context).engine

    async def rows(self) -> AsyncIterator[list[dict[str, Any]]]:
        rows = show.services(self._engine)
        for start in range(0, max(len(rows), 1), CHUNK):
            yield rows[start : start + CHUNK]
            await asyncio.sleep(0)

    def get(self, service: str) -> list[dict[str, Any]]:
        """By id, name, namespace/name, or address:port."""
        rows = show.services(self._engine)
        found = [row for row in rows if service in _names(row)]
        if not found:
            hint = nearest(service, {f"{row['namespace']}/{row['name']}" for row in rows})
            raise NotFoundError(f"there is no service {service!r}", hint=hint)
        return found

    def explain(self, frontend: str) -> list[dict[str, Any]]:
        one, port, protocol = _frontend(frontend)
        found = show.explain(self._engine, one, port, protocol)
        if not found:
            every = {row["frontend"] for row in show.services(self._engine)}
            raise NotFoundError(f"no service has {frontend}", hint=nearest(frontend, every))
        return found

    async def add(self, **wish: Any) -> dict[str, Any]:
        record, problems = structure(LocalRecord, wish)
        if record is None:
            path = ".".join(map(str, problems[0].path))
            raise RequestError(f"{path}: {problems[0].message}", hint=problems[0].hint)
        owner = self._owner()
        if record.key in owner.catalog.services:
            raise RequestError(
                f"{'/'.join(record.key)} is in a resource file", hint="change it there, or take another name"
            )
        try:
            await owner.add_local(record)
        except ValueError as error:
            raise RequestError(str(error)) from None
        return {"service": "/".join(record.key)}

    async def delete(self, name: str, namespace: str = "default") -> dict[str, Any]:
        owner = self._owner()
        if not await owner.delete_local((namespace, name)):
            raise NotFoundError(
                f"there is no local service {namespace}/{name}", hint=_not_deleted(owner, (namespace, name))
            )
        return {"deleted": f"{namespace}/{name}"}

    def pools(self) -> Any:
        return show.pools(control.of(self._context).catalog.addresses)

    async def map(self, view: str, number: int = 0) -> Any:
        """:param view: services, backends, sources or maglev."""
        from axoneme.plugins.lb import kernel_view

        views: Mapping[str, Any] = {
            "services": partial(kernel_view.services, kinds=show.kinds(self._engine)),
            "backends": kernel_view.backends,
            "sources": kernel_view.source_ranges,
            "maglev": partial(kernel_view.tables, number=number),
        }
        if view not in views:
            raise RequestError(f"there is no view {view!r}", hint=nearest(view, views))
        return await asyncio.to_thread(views[view], self._context.map)


def _names(row: Mapping[str, Any]) -> tuple[str, ...]:
    frontend = str(row["frontend"])
    return (
        str(row["id"] or ""),
        str(row["external_id"] or ""),
        str(row["name"]),
        f"{row['namespace']}/{row['name']}",
        frontend,
        frontend.rpartition("/")[0],
    )


def _frontend(text: str) -> tuple[Any, int, Protocol | None]:
    """`10.0.0.1:80`, `[fd00::1]:80`, each perhaps with `/TCP` behind it."""
    rest, _, name = text.partition("/")
    host, _, port = rest.rpartition(":")
    if name and name.upper() not in Protocol.__members__:
        raise RequestError(f"{name!r} is no protocol of services", hint="it can be TCP, UDP, SCTP")
    try:
        one, number = address(host.strip("[]")), port_number(port)
    except ValueError as error:
        raise RequestError(f"{text!r} is no ADDRESS:PORT: {error}", hint="for example 10.96.0.1:80") from None
    return one, number, Protocol[name.upper()] if name else None


def _not_deleted(owner: control.Control, name: Name) -> str | None:
    if name in owner.catalog.services:
        return "it is in a resource file: delete it there"
    return nearest("/".join(name), ["/".join(key) for key in owner.locals.records])
