"""What README.md shows exists: its links, its commands and their options, its resources, its program."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from axoneme.core.cli.main import cli
from axoneme.core.state.resources import Kinds, read_resource
from axoneme.core.state.yamlio import load
from axoneme.plugins.lb.kinds import resource_kinds as lb_kinds
from axoneme.plugins.policy.kinds import resource_kinds as policy_kinds

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def commands() -> Iterator[str]:
    for block in blocks("sh"):
        for line in block.splitlines():
            if line.startswith("axoneme "):
                yield line.partition(" #")[0].strip()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", TEXT))))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_commands_are_there_with_these_options(line: str) -> None:
    """Parsed as the program would, and not executed. Commands of plugins need a configuration that enables them."""
    words = shlex.split(line)[1:]
    context = click.Context(cli, info_name="axoneme", obj=None)
    context.params = {"sets": ("plugins.enabled=[policy,lb,hubble]",)}
    command: click.Command = cli
    while isinstance(command, click.Group):
        name, words = words[0], words[1:]
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command, context = found, click.Context(found, info_name=name, parent=context)
    command.parse_args(context, words)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_resources_are_valid(text: str) -> None:
    kinds = Kinds((*policy_kinds(), *lb_kinds()))
    for document in load(text, "README.yaml"):
        assert read_resource(document, kinds, source="test").resource.problems == ()


def test_the_program_is_one() -> None:
    [text] = blocks("python")
    compile(text, "README.md", "exec")
