"""Every hook is documented as it is, has an example that works, and is called by a method of the manager that has a test."""

from __future__ import annotations

import asyncio
import inspect
import re
import types
from pathlib import Path
from typing import Any

import click
import pytest

from axoneme.core import hooks
from axoneme.core.manager import PluginManager
from axoneme.core.testing.agent import AgentKit

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "PLUGINS.md").read_text()
HOOKS = {name: hook for name, hook in vars(hooks).items() if name.startswith("axoneme_")}
SECTIONS = dict(re.findall(r"^### (axoneme_\w+)\n(.*?)(?=^##)", TEXT, re.MULTILINE | re.DOTALL))
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def signature(name: str) -> str:
    return f"{name}{inspect.signature(HOOKS[name])}".replace("'", "")


def greeter() -> types.ModuleType:
    """The plugin that all examples of the hooks' chapter make together."""
    chapter = TEXT[TEXT.index("## The hooks") : TEXT.index("## The context")]
    module = types.ModuleType("greeter")
    for code in CODE.findall(chapter):
        exec(compile(code, "PLUGINS.md", "exec"), module.__dict__)
    return module


def test_every_hook_is_documented_and_nothing_else() -> None:
    assert list(SECTIONS) == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_the_documented_signature_is_the_hooks(name: str) -> None:
    assert re.search(r"^`(axoneme_.*)`$", SECTIONS[name], re.MULTILINE)[1] == signature(name)  # type: ignore[index]


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_an_example_that_implements_it(name: str) -> None:
    implemented = set(
        re.findall(r"^def (axoneme_\w+)", "\n".join(CODE.findall(SECTIONS[name])), re.MULTILINE)
    )
    assert implemented == {name}


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_says_what_it_is_for(name: str) -> None:
    assert inspect.getdoc(HOOKS[name])


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_method_of_the_manager_and_a_test(name: str) -> None:
    method = {"axoneme_info": "info", "axoneme_config": "config_schemas"}.get(
        name, name.removeprefix("axoneme_")
    )
    assert callable(getattr(PluginManager, method))
    tests = "".join(
        path.read_text() for path in Path(__file__).parent.rglob("*.py") if path.name != "test_hooks.py"
    )
    assert f"def {name}(" in tests


def test_the_smallest_plugin_is_one() -> None:
    module = types.ModuleType("smallest")
    exec(compile(CODE.findall(TEXT)[0], "PLUGINS.md", "exec"), module.__dict__)
    manager = PluginManager(extra=[module], found={})
    assert manager.enabled == ["smallest"]


def test_the_examples_together_implement_every_hook() -> None:
    manager = PluginManager(extra=[greeter()], found={})
    (status,) = manager.statuses()
    assert sorted(status.hooks) == sorted(HOOKS)


async def test_the_examples_run_in_an_agent() -> None:
    values = {"plugins": {"greeter": {"word": "good morning", "room": 2}}}
    async with AgentKit([greeter()], values) as kit:
        agent = kit.agent
        endpoint = await agent.workloads.add("web")
        greetings = agent.state.table("greetings")
        async with asyncio.timeout(5):
            async for _ in greetings.watch():
                if len(greetings):
                    break

        def ask(method: str) -> Any:
            with kit.client() as client:
                return client.call(method)

        assert await asyncio.to_thread(ask, "greeter.list") == [
            {"endpoint": endpoint.id, "text": "good morning web"}
        ]
        metrics = await asyncio.to_thread(ask, "metrics")
        assert [row["value"] for row in metrics if row["name"] == "greeter_greetings"] == [1.0]
        status = await asyncio.to_thread(ask, "status")
        assert {"plugin": "greeter", "check": "room", "level": "ok", "reason": ""} in status["checks"]
        steps = (await asyncio.to_thread(ask, "datapath.show"))[0]["steps"]
        assert [s["step"] for s in steps if s["plugin"] == "greeter"] == ["greet"]
        assert agent.datapath.map("greeted").lookup(endpoint.id) is not None
        kit.resource(
            "rule.yaml",
            "apiVersion: example.org/v1\nkind: GreetingRule\nmetadata: {name: r}\nspec: {text: x, times: 2}\n",
        )
        resources = agent.state.table("resources")
        async with asyncio.timeout(5):
            async for _ in resources.watch():
                if len(resources):
                    break
        (row,) = resources.all()
        assert (row.parsed.text, row.parsed.times) == ("x", 2)


def test_the_example_of_a_command_is_one() -> None:
    (command,) = PluginManager(extra=[greeter()], found={}).commands()
    assert isinstance(command.record.load(), click.Command)
