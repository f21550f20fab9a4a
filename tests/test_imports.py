"""Who may import whom: plugins the core, never the other way round, never each other; and what must stay out of the way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("core", "plugins", "bpf") for path in (ROOT / folder).rglob("*.py"))
PLUGINS = sorted(path.name for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists())
BCC = ROOT / "core/datapath/compile_worker.py"


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, wherever in it, by its absolute name."""
    package = ("axoneme", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from ((node.lineno, str(a.value)) for a in node.args if isinstance(a, ast.Constant))


def violations(allowed: str, path: Path) -> list[str]:
    name = str(path.relative_to(ROOT))
    own = path.relative_to(ROOT).parts
    found = []
    for line, module in imports(path):
        parts = module.split(".")
        if parts[0] in ("core", "plugins", "bpf"):
            found.append(f"{name}:{line} imports {module} without axoneme")
        if allowed == "core" and parts[:2] == ["axoneme", "plugins"]:
            found.append(f"{name}:{line} imports the plugin {module}")
        if allowed == "plugins" and parts[:2] == ["axoneme", "plugins"] and parts[2:3] not in ([], [own[1]]):
            found.append(f"{name}:{line} imports another plugin, {module}")
        if parts[0] == "bcc" and path != BCC:
            found.append(f"{name}:{line} imports bcc")
    return found


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 50
    assert PLUGINS
    assert any(module.startswith("bcc") for _, module in imports(BCC))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    kind = path.relative_to(ROOT).parts[0]
    assert violations(kind if kind == "plugins" else "core", path) == []


def test_nothing_in_the_core_knows_a_plugin_by_name() -> None:
    """Not even in a text: the core must not treat any plugin differently."""
    for path in (path for path in FILES if path.is_relative_to(ROOT / "core")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not any(f"axoneme.plugins.{name}" in node.value for name in PLUGINS), (
                    f"{path}:{node.lineno} names a plugin"
                )


def loaded_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugins_init_is_light(name: str) -> None:
    """It is imported by every command, `axoneme --help` included."""
    heavy = {"numpy", "grpc", "pyroute2", "rich", "click", "structlog", "yaml", "asyncio"}
    assert loaded_after(f"import axoneme.plugins.{name}") & heavy == set()


def test_the_agent_maps_nothing_that_it_does_not_use() -> None:
    assert loaded_after("import axoneme.core.agent, axoneme.core.builtin, axoneme.core.platform") & {
        "rich", "click", "bcc", "grpc", "pyroute2",
    } == set()  # fmt: skip
