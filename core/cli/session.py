"""What every command has at hand: the configuration, the agent, and the plugins' commands. All of it on demand.

@click.command()
@click.pass_obj
def command(session: Session) -> None:
    rows = session.call("policy.get")
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axoneme.core.errors import AxonemeError

if TYPE_CHECKING:
    from axoneme.core.api.client import Client
    from axoneme.core.config import Config
    from axoneme.core.contributions import Provided
    from axoneme.core.manager import PluginManager
    from axoneme.core.records import Command


class Session:
    """One run of the program."""

    def __init__(
        self,
        *,
        file: Path | None = None,
        sets: tuple[str, ...] = (),
        no_plugins: bool = False,
        socket: Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.file = file
        self.sets = sets
        self.no_plugins = no_plugins
        self.verbose = verbose
        self._socket = socket

    @cached_property
    def config(self) -> Config:
        from axoneme.core import config

        return config.load(self.file, sets=self.sets)

    def use(self, file: Path) -> None:
        """Another configuration file than the one that was named before the command."""
        self.file = file
        self.__dict__.pop("config", None)

    @property
    def socket(self) -> Path:
        return self._socket or self.config.settings.agent.run_dir / "axoneme.sock"

    @cached_property
    def client(self) -> Client:
        """The agent's API. Closed when the program ends."""
        from axoneme.core.api.client import Client

        client = Client(self.socket)
        context = click.get_current_context(silent=True)
        if context is not None:
            context.find_root().call_on_close(client.close)
        return client

    def call(self, method: str, /, **arguments: Any) -> Any:
        """One answer of the agent. Raises `NotRunningError`, or what the agent raised."""
        return self.client.call(method, **arguments)

    def stream(self, method: str, /, **arguments: Any) -> Iterator[Any]:
        return self.client.stream(method, **arguments)

    @cached_property
    def manager(self) -> PluginManager:
        """The enabled plugins, loaded: for what needs no agent."""
        from axoneme.core.manager import PluginManager

        manager = PluginManager(no_plugins=self.no_plugins)
        manager.load(name for name in self.config.settings.plugins.enabled if name in manager.found)
        return manager

    @cached_property
    def plugin_commands(self) -> list[Provided[Command]]:
        """The commands of the enabled plugins. What is wrong with the configuration or a plugin is only a warning here:
        the commands that repair it must go on working."""
        from axoneme.core.contributions import command_conflicts, raise_conflicts

        try:
            if self.no_plugins or not self.config.settings.plugins.enabled:
                return []
            commands = self.manager.commands()
            raise_conflicts(command_conflicts(commands))
        except AxonemeError as error:
            click.echo(f"warning: commands of plugins are missing: {error}", err=True)
            return []
        for name, reason in self.manager.failed.items():
            click.echo(f"warning: the plugin {name} failed: {reason}", err=True)
        return commands

    def lend(self, name: str) -> bool:
        """Makes the commands of a plugin available that is installed but not enabled, for whoever calls it by its name.

        So what needs no agent of this machine works on one that has none: a relay, an observer, a corpus of policies. True
        when there are new commands.
        """
        try:
            if self.no_plugins or name not in self.manager.found or name in self.manager.enabled:
                return False
            self.manager.load([name])
        except AxonemeError:
            return False
        known = self.plugin_commands
        lent = [each for each in self.manager.commands() if each.plugin == name]
        self.__dict__["plugin_commands"] = [*known, *(each for each in lent if each not in known)]
        return bool(lent)

    def owner(self, name: str) -> str:
        """The plugin that is installed but not enabled and has a command or group of this name; empty when none has."""
        from axoneme.core.manager import PluginManager

        manager = PluginManager(no_plugins=self.no_plugins)
        manager.load(manager.found)
        return next(
            (each.plugin for each in manager.commands() if name == (*each.record.group, each.record.name)[0]),
            "",
        )
