"""What the shell proposes for arguments: workloads, entities, policies. Nothing when no agent runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from axoneme.core.cli.lazy import session_of
from axoneme.core.errors import AxonemeError

if TYPE_CHECKING:
    import click


def workloads(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """NAMESPACE/NAME, and NAME where that is begun."""
    rows = _ask(ctx, "endpoint.list")
    names = [f"{row['namespace']}/{row['name']}" for row in rows] + [row["name"] for row in rows]
    return sorted({name for name in names if name.startswith(begun)})


def parties(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """Workloads, and who is none."""
    from axoneme.plugins.policy.parties import ENTITIES

    return [*workloads(ctx, param, begun), *(name for name in sorted(ENTITIES) if name.startswith(begun))]


def policies(ctx: click.Context, param: click.Parameter, begun: str) -> list[str]:
    """[NAMESPACE/]NAME of the policies that the agent knows."""
    rows = [row for row in _ask(ctx, "resource.list") if row["kind"].endswith("NetworkPolicy")]
    names = {f"{row['namespace']}/{row['name']}".lstrip("/") for row in rows}
    return sorted(name for name in names if name.startswith(begun))


def _ask(ctx: click.Context, method: str) -> list[dict[str, Any]]:
    try:
        found: list[dict[str, Any]] = session_of(ctx).call(method)
    except AxonemeError:
        return []
    return found
