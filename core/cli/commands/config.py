"""`axoneme config`: none of these commands needs an agent."""

from __future__ import annotations

import json
from typing import Any

import click

from axoneme.core.cli.output import Column, emit, output_option
from axoneme.core.cli.session import Session
from axoneme.core.config import Config
from axoneme.core.errors import ConfigError, PluginError


@click.command()
@output_option
@click.option("--changed", is_flag=True, help="Only what is not the default.")
@click.pass_obj
def view(session: Session, output: str, changed: bool) -> None:
    """Show every key, its value, and where it comes from: default, file and line, environment, or --set."""
    entries = session.config.entries(_sections(session, session.config))
    rows = [
        {"key": entry.path, "value": entry.value, "origin": entry.origin}
        for entry in entries
        if not changed or entry.origin != "default"
    ]
    columns = (
        Column("key", "key"),
        Column("value", lambda row: json.dumps(row["value"], ensure_ascii=False)),
        Column("origin", "origin"),
    )
    emit(rows, output, columns, empty="everything is at its default")


@click.command()
@click.pass_obj
def schema(session: Session) -> None:
    """Print the JSON schema of the configuration file, with the sections of the enabled plugins.

    Editors that know YAML schemas complete and check the file with it.
    """
    from axoneme.core import config

    click.echo(json.dumps(config.schema(session.manager.config_schemas()), indent=2))


@click.command()
@click.pass_obj
def check(session: Session) -> None:
    """Check a configuration, with the sections of its plugins, without using it."""
    config = session.config
    config.check_sections(session.manager.found)
    _sections(session, config)
    if failed := session.manager.failed:
        name, reason = next(iter(failed.items()))
        raise PluginError(f"the plugin {name} cannot be loaded: {reason}", hint="repair it, or take it out")
    click.echo(f"{config.file or 'the built-in defaults'}: good")


def _sections(session: Session, config: Config) -> dict[str, Any]:
    schemas = session.manager.config_schemas()
    for name in session.manager.enabled:
        if name not in schemas and config.settings.plugins.sections.get(name):
            raise ConfigError(f"the plugin {name} has no settings", where=config.where(("plugins", name)))
    return {name: config.section(name, kind) for name, kind in schemas.items()}
