"""Groups of commands that are listed without being imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import click
from attrs import field, frozen

from axoneme.core.cli.session import Session
from axoneme.core.records import imported


@frozen
class Entry:
    """A command: what the list says of it, and how to get it."""

    summary: str
    load: Callable[[], click.Command] = field(repr=False)


@frozen
class Folder:
    """A group of commands."""

    summary: str
    entries: Mapping[str, Entry | Folder]


Node = Entry | Folder


def module(path: str, summary: str) -> Entry:
    """A command in `axoneme.core.cli.commands`, as `module:attribute`."""
    return Entry(summary, imported(f"axoneme.core.cli.commands.{path}"))


#: Other names of commands, in every group that has them.
_ALIASES: Final = {"ls": "list"}


class LazyGroup(click.Group):
    """A group over a folder, with the commands that plugins add to it."""

    def __init__(self, *args: Any, folder: Folder, path: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._folder = folder
        self._path = path

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self._all(ctx))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        cmd_name = _ALIASES.get(cmd_name, cmd_name)
        node = self._folder.entries.get(cmd_name)
        # A group of the core may have commands of plugins: it looks for them itself.
        node = node or self._plugins(ctx).get(cmd_name)
        if node is None and not self._path and session_of(ctx).lend(cmd_name):
            node = self._plugins(ctx).get(cmd_name)
        if node is None:
            return None
        if isinstance(node, Folder):
            return LazyGroup(
                name=cmd_name,
                help=node.summary,
                folder=node,
                path=(*self._path, cmd_name),
                no_args_is_help=True,
            )
        command = node.load()
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, node.summary) for name, node in sorted(self._all(ctx).items())]
        if rows:
            with formatter.section("Commands"):
                formatter.write_dl(rows)

    def _all(self, ctx: click.Context) -> dict[str, Node]:
        return {**self._plugins(ctx), **self._folder.entries}

    def _plugins(self, ctx: click.Context) -> dict[str, Node]:
        """What plugins add here: their commands, and groups that only they have."""
        session = session_of(ctx)
        nodes: dict[str, Node] = {}
        groups: dict[tuple[str, str], set[str]] = {}
        for provided in session.plugin_commands:
            command, depth = provided.record, len(self._path)
            if command.group == self._path:
                nodes[command.name] = Entry(command.summary, command.load)
            elif command.group[:depth] == self._path and len(command.group) > depth:
                inner = (*command.group[depth + 1 :], command.name)[0]
                groups.setdefault((command.group[depth], provided.plugin), set()).add(inner)
        for (name, plugin), inside in groups.items():
            # Nobody wrote a summary of such a group: it says what there is.
            nodes.setdefault(name, Folder(f"{', '.join(sorted(inside)).capitalize()} (plugin {plugin}).", {}))
        return nodes

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            owner = "" if self._path else session_of(ctx).owner(args[0])
            if not owner:
                raise
            hint = f"The plugin {owner} has it, which is not enabled: axoneme plugin enable {owner}"
            raise click.UsageError(f"{error.format_message()} {hint}", ctx) from None


def session_of(ctx: click.Context) -> Session:
    """The session, also before the root's callback ran: for `--help` and for shell completion."""
    root = ctx.find_root()
    if root.obj is None:
        known = root.params
        root.obj = Session(
            file=known.get("file"),
            sets=tuple(known.get("sets") or ()),
            no_plugins=bool(known.get("no_plugins")),
            socket=known.get("socket"),
            verbose=bool(known.get("verbose")),
        )
    session: Session = root.obj
    return session
