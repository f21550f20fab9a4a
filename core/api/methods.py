"""API methods about the agent itself: status, configuration, plugins, workloads, resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from axoneme.core.api.wire import NotFoundError, RequestError
from axoneme.core.records import ApiMethod, Distribution
from axoneme.core.structure import nearest, plain

if TYPE_CHECKING:
    from axoneme.core.agent import Agent
    from axoneme.core.workloads.endpoints import Endpoint


class AgentMethods:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def records(self) -> list[ApiMethod]:
        return [
            ApiMethod(name="status", call=self.status, summary="how the agent and its parts are"),
            ApiMethod(name="reload", call=self.reload, summary="apply the configuration as it is now"),
            ApiMethod(name="config.view", call=self.config_view, summary="every key, value and origin"),
            ApiMethod(name="plugin.list", call=self.plugin_list, summary="the plugins and their state"),
            ApiMethod(name="metrics", call=self.metrics, summary="the numbers of the agent and its plugins"),
            ApiMethod(name="table.list", call=self.table_list, summary="the tables and their sizes"),
            ApiMethod(
                name="resource.list", call=self.resource_list, summary="the resources and their status"
            ),
            ApiMethod(name="endpoint.list", call=self.endpoint_list, summary="the workloads' endpoints"),
            ApiMethod(name="endpoint.get", call=self.endpoint_get, summary="one endpoint"),
            ApiMethod(name="identity.list", call=self.identity_list, summary="label sets and their numbers"),
            ApiMethod(name="identity.get", call=self.identity_get, summary="one identity"),
            ApiMethod(name="ipcache.list", call=self.ipcache_list, summary="identities behind prefixes"),
            ApiMethod(name="workload.add", call=self.workload_add, summary="connect a workload"),
            ApiMethod(name="workload.remove", call=self.workload_remove, summary="disconnect a workload"),
            ApiMethod(name="workload.list", call=self.endpoint_list, summary="the workloads"),
        ]

    def status(self) -> dict[str, Any]:
        from axoneme.core.status import status

        return status(self._agent)

    async def reload(self, force: bool = False) -> dict[str, Any]:
        changed = await self._agent.reload(force=force)
        return {"changed": changed, "generation": self._agent._generation().number}

    def config_view(self) -> list[dict[str, Any]]:
        sections = self._agent._generation().assembly.sections
        return [
            {"key": entry.path, "value": entry.value, "origin": entry.origin}
            for entry in self._agent.config.entries(sections)
        ]

    def plugin_list(self) -> list[dict[str, Any]]:
        from axoneme.core.status import plugin_rows

        return plugin_rows(self._agent._generation().assembly.manager)

    def metrics(self) -> list[dict[str, Any]]:
        return [
            row
            for provided in self._agent._generation().assembly.contributions.metrics
            for row in _metric_rows(provided.plugin, provided.record)
        ]

    def table_list(self) -> list[dict[str, Any]]:
        state = self._agent.state
        tables = [state.table(name) for name in state.names()]
        return [
            {
                "name": t.name,
                "rows": len(t),
                "revision": t.revision,
                "initialized": t.initialized,
                "doc": t.spec.doc,
            }
            for t in tables
        ]

    def resource_list(self, kind: str = "", problems: bool = False) -> list[dict[str, Any]]:
        rows = self._agent.state.table("resources").all()
        return [
            {
                "kind": row.kind,
                "namespace": row.namespace,
                "name": row.name,
                "status": row.status.value,
                "where": str(row.where),
                "problems": [str(problem) for problem in row.problems],
            }
            for row in rows
            if (not kind or row.kind == kind) and (not problems or row.problems)
        ]

    def endpoint_list(self) -> list[dict[str, Any]]:
        return [endpoint_row(endpoint) for endpoint in self._agent.workloads.list()]

    def endpoint_get(self, name: str) -> dict[str, Any]:
        """By id, name or namespace/name."""
        every = self._agent.workloads.list()
        found = [e for e in every if name in (str(e.id), e.uid)] or [e for e in every if e.name == name]
        if len(found) > 1:
            uids = ", ".join(endpoint.uid for endpoint in found)
            raise RequestError(f"several workloads are named {name}: {uids}", hint="say namespace/name")
        if not found:
            raise NotFoundError(f"there is no endpoint {name!r}", hint=nearest(name, [e.uid for e in every]))
        return endpoint_row(found[0])

    def identity_list(self) -> list[dict[str, Any]]:
        rows = self._agent.state.table("identities").all()
        return [_identity_row(row) for row in sorted(rows, key=lambda row: row.number)]

    def identity_get(self, number: int) -> dict[str, Any]:
        row = self._agent.state.table("identities").get(number)
        if row is None:
            raise NotFoundError(f"there is no identity {number}")
        users = self._agent.state.table("endpoints").by("identity", number)
        return _identity_row(row) | {"endpoints": [endpoint_row(endpoint) for endpoint in users]}

    def ipcache_list(self) -> list[dict[str, Any]]:
        return [
            {
                "prefix": str(row.prefix),
                "identity": row.identity,
                "source": row.source.value,
                "node": str(row.node or ""),
            }
            for row in self._agent.state.table("ipcache").all()
        ]

    async def workload_add(
        self,
        name: str,
        namespace: str = "default",
        labels: Mapping[str, str] | None = None,
        netns: str | None = None,
        ipv4: str | None = None,
        ipv6: str | None = None,
        ports: Mapping[str, Any] | None = None,
        service_account: str = "",
        created_by: str = "api",
    ) -> dict[str, Any]:
        """:param ports: named ports: name → {port, protocol}."""
        endpoint = await self._agent.workloads.add(
            name,
            namespace,
            labels,
            netns=netns,
            ipv4=ipv4,
            ipv6=ipv6,
            named_ports={key: _named_port(key, value) for key, value in (ports or {}).items()},
            service_account=service_account,
            created_by=created_by,
        )
        return endpoint_row(endpoint)

    async def workload_remove(self, name: str, namespace: str = "default") -> dict[str, Any]:
        if not await self._agent.workloads.remove(name, namespace):
            known = [e.uid for e in self._agent.workloads.list()]
            raise NotFoundError(
                f"there is no workload {namespace}/{name}", hint=nearest(f"{namespace}/{name}", known)
            )
        return {"removed": f"{namespace}/{name}"}


def endpoint_row(endpoint: Endpoint) -> dict[str, Any]:
    row: dict[str, Any] = plain(endpoint)
    return row


def _identity_row(row: Any) -> dict[str, Any]:
    return {"identity": row.number, "labels": list(row.labels), "references": row.references}


def _named_port(name: str, value: Any) -> Any:
    from axoneme.core.structure import structure
    from axoneme.core.workloads.endpoints import NamedPort

    port, problems = structure(NamedPort, value)
    if port is None:
        raise RequestError(f"the named port {name}: {problems[0].message}", hint=problems[0].hint)
    return port


def _metric_rows(plugin: str, metric: Any) -> list[dict[str, Any]]:
    common = {"plugin": plugin, "name": metric.name, "type": metric.type.value, "help": metric.help}
    try:
        value = metric.read()
    except Exception as error:  # noqa: BLE001 - one number that cannot be read must not hide the others
        return [common | {"labels": {}, "value": None, "error": str(error)}]
    if not isinstance(value, Mapping):
        value = {(): value}
    return [
        common | {"labels": dict(zip(metric.labels, labels, strict=True))} | _number(number)
        for labels, number in value.items()
    ]


def _number(value: float | Distribution) -> dict[str, Any]:
    """A number, or a histogram: how many observations, their sum, and how many up to each bound."""
    if not isinstance(value, Distribution):
        return {"value": value}
    return {"value": value.count, "sum": value.sum, "buckets": dict(value.buckets())}
