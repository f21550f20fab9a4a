"""`axoneme completion`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    For bash: `axoneme completion bash > /etc/bash_completion.d/axoneme`.
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows these three"
    root = ctx.find_root().command
    click.echo(kind(root, {}, "axoneme", "_AXONEME_COMPLETE").source())
