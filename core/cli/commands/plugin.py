"""`axoneme plugin`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from axoneme.core.api.client import NotRunningError
from axoneme.core.cli.output import Column, Format, emit, wide_output_option
from axoneme.core.cli.session import Session
from axoneme.core.config import DEFAULT_FILE
from axoneme.core.errors import AxonemeError, PluginError
from axoneme.core.structure import nearest

_COLUMNS = (
    Column("name", "name"),
    Column("state", "state"),
    Column("version", lambda row: row["version"] or None),
    Column("provider", "provider"),
    Column("reason", lambda row: row["reason"] or None),
)
_WIDE = (*_COLUMNS[:-1], Column("hooks", lambda row: row["hooks"] or None), _COLUMNS[-1])


@click.command()
@wide_output_option
@click.pass_obj
def list_plugins(session: Session, output: str) -> None:
    """List the installed plugins and their state: of the running agent, else as the configuration says.

    `-o wide` has the hooks that each of them implements as well.
    """
    try:
        rows = session.call("plugin.list")
    except NotRunningError:
        click.echo("no agent is running: this is what the configuration says", err=True)
        rows = _configured(session)
    emit(rows, output, _WIDE if output == Format.WIDE else _COLUMNS, empty="no plugins are installed")


def _configured(session: Session) -> list[dict[str, Any]]:
    """Nothing is imported for this, so that it works whatever state the plugins are in."""
    from axoneme.core.discovery import discover

    enabled = session.config.settings.plugins.enabled
    return [
        {
            "name": name,
            "state": "enabled" if name in enabled else "available",
            "reason": "" if len(several) == 1 else "several packages provide it",
            "version": found.provenance.version,
            "required": None,
            "summary": "",
            "provider": str(found.provenance),
            "file": found.provenance.file(),
            "hooks": [],
        }
        for name, several in discover().items()
        for found in several
    ]


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def enable(session: Session, names: tuple[str, ...]) -> None:
    """Enable plugins in the configuration file, and in the running agent if there is one.

    If the agent refuses, because a plugin fails, the file is put back as it was.
    """
    from axoneme.core.discovery import discover

    installed = discover()
    for name in names:
        if name not in installed:
            raise PluginError(f"there is no plugin {name!r}", hint=nearest(name, installed))
    wanted = [*session.config.settings.plugins.enabled]
    _change(session, [*wanted, *(name for name in names if name not in wanted)])


@click.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.pass_obj
def disable(session: Session, names: tuple[str, ...]) -> None:
    """Disable plugins in the configuration file, and in the running agent if there is one."""
    enabled = session.config.settings.plugins.enabled
    for name in names:
        if name not in enabled:
            raise PluginError(f"the plugin {name!r} is not enabled", hint=nearest(name, enabled))
    _change(session, [name for name in enabled if name not in names])


def _change(session: Session, enabled: list[str]) -> None:
    from axoneme.core.cli.edit import with_enabled
    from axoneme.core.state.persist import write_atomic

    file = session.file or session.config.file or DEFAULT_FILE
    old = file.read_bytes() if file.exists() else None
    if enabled == list(session.config.settings.plugins.enabled):
        click.echo("nothing to change")
        return
    mode = file.stat().st_mode & 0o777 if old is not None else 0o644
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, with_enabled((old or b"").decode(), enabled, str(file)).encode(), mode=mode)
    _apply(session, file, old, mode)
    click.echo(f"enabled now: {', '.join(enabled) or 'none'} ({file})")


def _apply(session: Session, file: Path, old: bytes | None, mode: int) -> None:
    """Lets the agent reload; puts the file back if it refuses."""
    from axoneme.core.state.persist import write_atomic

    try:
        session.call("reload")
    except NotRunningError:
        click.echo("no agent is running: it takes effect at the next start", err=True)
    except AxonemeError:
        if old is None:
            file.unlink(missing_ok=True)
        else:
            write_atomic(file, old, mode=mode)
        raise
