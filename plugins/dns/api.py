"""What the agent answers about DNS: the names that it knows, and the last lookups."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable
from typing import Any

import attrs

from axoneme.core.plugin import PluginContext
from axoneme.core.records import ApiMethod
from axoneme.core.workloads.endpoints import ENDPOINTS, Endpoint
from axoneme.core.workloads.names import FQDN_SELECTORS, FqdnSelector, name_matches
from axoneme.plugins.dns import service


def methods(context: PluginContext) -> Iterable[ApiMethod]:
    of = service.of(context)

    def names(workload: str = "", match: str = "*") -> list[dict[str, Any]]:
        return _names(of, _uids(context), workload, match)

    def lookups(workload: str = "", match: str = "*", last: int = 100) -> list[dict[str, Any]]:
        uids = _uids(context)
        found = [
            {**attrs.asdict(one), "workload": uids.get(one.endpoint, "")}
            for one in (of.proxy.lookups if of.proxy else ())
            if fnmatch.fnmatchcase(one.name, match) and _is(uids, one.endpoint, workload)
        ]
        return found[-max(last, 0) :] if last else []

    return [
        ApiMethod(name="dns.list", call=names, summary="names that workloads asked for, and their addresses"),
        ApiMethod(name="dns.lookups", call=lookups, summary="the last questions and what became of them"),
    ]


def _uids(context: PluginContext) -> dict[int, str]:
    return {row.id: row.uid for row in context.state.table(ENDPOINTS.name, Endpoint)}


def _is(uids: dict[int, str], endpoint: int, workload: str) -> bool:
    uid = uids.get(endpoint, "")
    return not workload or workload in (uid, uid.rpartition("/")[2], str(endpoint))


def _names(of: service.DnsService, uids: dict[int, str], workload: str, match: str) -> list[dict[str, Any]]:
    """One row per endpoint and name, as `cilium fqdn cache list` has it."""
    patterns = [row.pattern for row in of.context.state.table(FQDN_SELECTORS.name, FqdnSelector)]
    rows: dict[tuple[int, str], dict[str, Any]] = {}
    for (name, address), entry in of.cache.items():
        if not fnmatch.fnmatchcase(name, match):
            continue
        for endpoint in entry.endpoints or (0,):
            if not _is(uids, endpoint, workload):
                continue
            row = rows.setdefault((endpoint, name), _row(endpoint, uids, name, patterns))
            row["addresses"].append(str(address))
            row["ttl"] = max(row["ttl"], entry.ttl)
            row["expires"] = max(row["expires"], entry.expires)
    return [rows[key] for key in sorted(rows)]


def _row(endpoint: int, uids: dict[int, str], name: str, patterns: list[str]) -> dict[str, Any]:
    return {
        "endpoint": endpoint,
        "workload": uids.get(endpoint, ""),
        "name": name,
        "ttl": 0,
        "expires": 0.0,
        "addresses": [],
        "selectors": [one for one in patterns if name_matches(one, name)],
    }
