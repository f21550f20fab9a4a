"""Network policy: who may talk to whom, compiled to decision tables for the kernel. See README.md in this folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from axoneme.core.hooks import hookimpl
from axoneme.core.plugin import PluginContext
from axoneme.core.records import (
    ApiMethod,
    Command,
    ConfigSection,
    HealthCheck,
    Metric,
    Phase,
    PluginInfo,
    ResourceKind,
    Runs,
    Service,
    Stage,
    imported,
)

if TYPE_CHECKING:
    from axoneme.core.datapath.maps import MapSpec

_STAGES = Path(__file__).parent / "stages"


@hookimpl
def axoneme_info() -> PluginInfo:
    return PluginInfo(
        name="policy", summary="network policy by identity, compiled to decision tables", required=True
    )


@hookimpl
def axoneme_config() -> ConfigSection:
    from axoneme.plugins.policy.config import PolicyConfig

    return ConfigSection(schema=PolicyConfig)


@hookimpl
def axoneme_resources() -> Iterable[ResourceKind]:
    from axoneme.plugins.policy.kinds import resource_kinds

    return resource_kinds()


@hookimpl
def axoneme_maps(context: PluginContext) -> Iterable[MapSpec]:
    from axoneme.plugins.policy.maps import specs

    return specs(context.config.peers, context.config.verdicts)


@hookimpl
def axoneme_stages(context: PluginContext) -> Iterable[Stage]:
    from axoneme.plugins.policy.model import Auth

    return [
        Stage(
            name="decide",
            source=_STAGES / "decide.c",
            attach=("from_workload", "to_workload", "from_network"),
            phase=Phase.DECIDE,
            runs=Runs.FIRST,
            maps=("policy_subjects", "policy_peers", "policy_verdicts"),
            defines={"AUTH_DISABLED": int(Auth.DISABLED)},
        )
    ]


@hookimpl
def axoneme_services(context: PluginContext) -> Iterable[Service]:
    from axoneme.plugins.policy import reconciler

    return [Service(name="policy", run=reconciler.of(context).run, alone=True)]


@hookimpl
def axoneme_api(context: PluginContext) -> Iterable[ApiMethod]:
    from axoneme.plugins.policy import api

    return api.methods(context)


#: Commands: name, module and attribute, summary.
_COMMANDS = (
    ("get", "cli:get", "Show the decisions in force, and the rules behind them."),
    ("explain", "explain_cli:explain", "Say why a flow is allowed or denied, and what would allow it."),
    ("diff", "rehearsal.cli:diff", "Show what policies would change, before they hold."),
    ("replay", "rehearsal.cli:replay", "Show what policies would have made of recorded connections."),
    ("learn", "rehearsal.cli:learn", "Write policies that allow what was recorded, and nothing else."),
    ("verdicts", "cli:verdicts", "Run a conformance corpus."),
)


@hookimpl
def axoneme_commands() -> Iterable[Command]:
    return [
        Command(
            name=name, group=("policy",), load=imported(f"axoneme.plugins.policy.{path}"), summary=summary
        )
        for name, path, summary in _COMMANDS
    ]


@hookimpl
def axoneme_health(context: PluginContext) -> Iterable[HealthCheck]:
    from axoneme.plugins.policy import reconciler

    return [HealthCheck(name="policy", check=reconciler.of(context).health)]


@hookimpl
def axoneme_metrics(context: PluginContext) -> Iterable[Metric]:
    from axoneme.plugins.policy import metrics

    return metrics.metrics(context)
