"""How the agent and its parts are, in one answer."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

from axoneme.core import logs
from axoneme.core.contributions import Provided
from axoneme.core.records import Health, HealthCheck, Level

if TYPE_CHECKING:
    from axoneme.core.agent import Agent
    from axoneme.core.manager import PluginManager

#: From the best to the worst.
_RANK: Final = (Level.OK, Level.UNKNOWN, Level.DEGRADED, Level.FAILED)


def status(agent: Agent) -> dict[str, Any]:
    """Everything for `axoneme status`, with stable keys. `ok` is what its exit code says."""
    from axoneme.core.version import version

    generation = agent._generation()
    plugins = plugin_rows(generation.assembly.manager)
    services = [
        {"plugin": s.plugin, "service": s.service.name, "state": s.state.value, "restarts": s.restarts}
        | _health(s.health())
        for s in generation.services
    ]
    checks = [_check(provided) for provided in generation.assembly.contributions.health]
    if agent.reload_error is not None:
        reason = f"the last reload was refused: {agent.reload_error}"
        checks.append({"plugin": "core", "check": "configuration", "level": "degraded", "reason": reason})
    checks += [
        {"plugin": row["name"], "check": "plugin", "level": "failed", "reason": row["reason"]}
        for row in plugins
        if row["state"] == "failed"
    ]
    worst = _worst([row["level"] for row in (*services, *checks)])
    level = worst if agent.started_at else _worst([worst, Level.UNKNOWN])
    return {
        "ok": level == Level.OK,
        "level": level,
        "agent": {
            "name": agent.settings.agent.name,
            "node": agent.settings.node.node_name(),
            "version": version(),
            "pid": os.getpid(),
            "ready": agent.ready,
            "uptime_seconds": round(time.time() - agent.started_at, 1) if agent.started_at else 0.0,
            "generation": generation.number,
            "start_seconds": {name: round(seconds, 4) for name, seconds in agent.stages.items()},
        },
        "plugins": plugins,
        "services": services,
        "checks": checks,
        "counts": {name: len(agent.state.table(name)) for name in ("endpoints", "identities", "resources")},
    }


def plugin_rows(manager: PluginManager) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "state": row.state.value,
            "reason": row.reason,
            "version": (row.info.version if row.info else "") or row.provenance.version,
            "required": manager.is_required(row.name) if row.info else False,
            "summary": row.info.summary if row.info else "",
            "provider": str(row.provenance),
            "file": row.provenance.file(),
            "hooks": [hook.removeprefix("axoneme_") for hook in row.hooks],
        }
        for row in manager.statuses()
    ]


def _check(provided: Provided[HealthCheck]) -> dict[str, Any]:
    """A check that fails to tell is itself a failure."""
    try:
        health = provided.record.check()
    except Exception as error:  # noqa: BLE001 - a plugin's own check must not take the status down
        health = Health(level=Level.FAILED, reason=f"the check itself failed: {logs.describe(error)}")
    return {"plugin": provided.plugin, "check": provided.record.name} | _health(health)


def _health(health: Health) -> dict[str, Any]:
    return {"level": health.level.value, "reason": health.reason}


def _worst(levels: list[str]) -> str:
    return max(levels, key=lambda level: _RANK.index(Level(level)), default=Level.OK.value)
