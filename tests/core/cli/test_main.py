"""The program as a whole: what it prints, what it exits with, and what it does not import."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from axoneme.core.api.client import NotRunningError
from axoneme.core.cli import main
from axoneme.core.cli.lazy import Entry, Folder
from axoneme.core.errors import AxonemeError, ConfigError, VerifierError, Where

PROGRAM = [sys.executable, "-c", "from axoneme.core.cli.main import main; main()"]


def program(*arguments: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AXONEME_")}
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, text=True, env=clean | environ, cwd=cwd, check=False
    )


def walk(folder: Folder, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], Entry]]:
    found = []
    for name, node in folder.entries.items():
        found += walk(node, (*path, name)) if isinstance(node, Folder) else [((*path, name), node)]
    return found


@pytest.mark.parametrize(
    ("path", "entry"),
    walk(main.COMMANDS),
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_command_loads_and_has_help(
    path: tuple[str, ...], entry: Entry, capsys: pytest.CaptureFixture[str]
) -> None:
    assert isinstance(entry.load(), click.Command)
    assert main.run([*path, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"Usage: axoneme {' '.join(path)}" in shown


def test_help_lists_all_commands_and_imports_none_of_them(tmp_path: Path) -> None:
    code = (
        "import sys; from axoneme.core.cli.main import run; code = run(['--help']);"
        "heavy = {'rich', 'grpc', 'numpy', 'pyroute2', 'asyncio', 'cattrs'} & set(sys.modules);"
        "commands = [m for m in sys.modules if m.startswith('axoneme.core.cli.commands')];"
        "print('LOADED', sorted(heavy), commands); sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert "LOADED [] []" in done.stdout
    for name in main.COMMANDS.entries:
        assert f"\n  {name} " in done.stdout


def test_usage_errors_exit_with_two(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["statsu"]) == 2
    assert main.run(["status", "--what"]) == 2
    assert "No such command" in capsys.readouterr().err


def test_a_plugin_that_is_not_enabled_lends_its_commands_to_who_calls_it_by_name(tmp_path: Path) -> None:
    """What needs no agent works on a machine that has none, and nothing else of the plugin is there."""
    (tmp_path / "empty.jsonl").write_text("")
    done = program("policy", "verdicts", "empty.jsonl", cwd=tmp_path)
    assert json.loads(done.stdout)["cases"] == 0, done.stderr
    assert "No such command" in program("--no-plugins", "policy", "verdicts", "x", cwd=tmp_path).stderr
    assert "\n  policy " not in program("--help", cwd=tmp_path).stdout


def test_a_command_of_a_plugin_that_is_not_enabled_says_whose_it_is(tmp_path: Path) -> None:
    done = program("--set", "plugins.enabled=[]", "service", "list", cwd=tmp_path)
    assert done.returncode == 2
    assert "The plugin lb has it, which is not enabled: axoneme plugin enable lb" in done.stderr
    assert "plugin enable" not in program("servce", cwd=tmp_path).stderr


def test_a_users_mistake_has_no_traceback(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("agent:\n  nmae: x\n")
    done = program("--config", str(file), "config", "check", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: unknown key 'nmae'",
        f"  where: {file}:2 (agent.nmae)",
        "  to do: did you mean name?",
    ]


def test_no_agent_exits_with_three(tmp_path: Path) -> None:
    done = program("--socket", str(tmp_path / "absent"), "status", cwd=tmp_path)
    assert done.returncode == 3
    assert "error: no agent is running" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    shell = " ".join(
        [
            "set -o pipefail;",
            f"'{sys.executable}'",
            "-m",
            "axoneme.core.cli",
            "config",
            "view",
            "|",
            "head",
            "-1",
        ]
    )
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""


def explained(error: BaseException, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    return main.explain(error, arguments), capsys.readouterr().err


def test_errors_are_explained(capsys: pytest.CaptureFixture[str]) -> None:
    error = ConfigError("what", where=Where("f.yaml", 3, field="a.b"), hint="do this")
    assert explained(error, capsys) == (1, "error: what\n  where: f.yaml:3 (a.b)\n  to do: do this\n")
    assert explained(NotRunningError("x"), capsys)[0] == 3
    group = ExceptionGroup("several", [AxonemeError("one"), AxonemeError("two")])
    assert explained(group, capsys) == (1, "error: one\nerror: two\n")


def test_the_verifiers_log_is_for_those_who_ask(capsys: pytest.CaptureFixture[str]) -> None:
    error = VerifierError("rejected", log="LOG")
    assert "LOG" not in explained(error, capsys)[1]
    assert "LOG" in explained(error, capsys, "-v")[1]


def test_a_bug_keeps_its_traceback_and_suggests_to_try_without_plugins(
    capsys: pytest.CaptureFixture[str],
) -> None:
    try:
        raise KeyError("bug")
    except KeyError as error:
        code, text = explained(error, capsys)
    assert code == 70
    assert "Traceback" in text
    assert "--no-plugins" in text


PLUGIN = '''
from axoneme.core.hooks import hookimpl
from axoneme.core.records import Command, PluginInfo

@hookimpl
def axoneme_info():
    return PluginInfo(name="greeter")

def load():
    import click

    @click.command()
    @click.pass_obj
    def greet(session):
        """Say hello."""
        click.echo(f"hello from {type(session).__name__}")
        return 4

    return greet

@hookimpl
def axoneme_commands():
    yield Command(name="greet", load=load, summary="Say hello.")
    yield Command(name="again", load=load, group=("greeter",), summary="Say it again.")
    yield Command(name="mine", load=load, group=("bpf", "map"), summary="In a group of the core.")
'''


@pytest.fixture
def greeter(tmp_path: Path) -> Path:
    info = tmp_path / "greeter_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeter-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[axoneme.plugins]\ngreeter = greeter_of_test\n")
    (tmp_path / "greeter_of_test.py").write_text(PLUGIN)
    (tmp_path / "c.yaml").write_text("plugins:\n  enabled: [greeter]\n")
    return tmp_path


def test_commands_of_plugins_are_there_in_groups_old_and_new(greeter: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return program("--config", "c.yaml", *arguments, cwd=greeter, PYTHONPATH=str(greeter))

    assert "greet       Say hello." in run("--help").stdout
    done = run("greet")
    assert (done.returncode, done.stdout) == (4, "hello from Session\n")
    assert run("greeter", "again").stdout == "hello from Session\n"
    assert run("bpf", "map", "mine").stdout == "hello from Session\n"
    assert "dump" in run("bpf", "map", "--help").stdout
    without = program("--config", "c.yaml", "--no-plugins", "greet", cwd=greeter, PYTHONPATH=str(greeter))
    assert without.returncode == 2


def test_a_broken_plugin_is_a_warning_for_those_who_want_to_repair_it(greeter: Path) -> None:
    (greeter / "greeter_of_test.py").write_text("raise ValueError('broken')")
    done = program("--config", "c.yaml", "--help", cwd=greeter, PYTHONPATH=str(greeter))
    assert done.returncode == 0
    assert "warning: the plugin greeter failed: ValueError: broken" in done.stderr
    listed = program(
        "--config", "c.yaml", "plugin", "list", "-o", "json", cwd=greeter, PYTHONPATH=str(greeter)
    )
    assert '"name": "greeter"' in listed.stdout
    checked = program("--config", "c.yaml", "config", "check", cwd=greeter, PYTHONPATH=str(greeter))
    assert checked.returncode == 1
    assert "the plugin greeter cannot be loaded" in checked.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run(["completion", shell]) == 0
    assert "_AXONEME_COMPLETE" in capsys.readouterr().out


def test_completion_knows_commands_and_options(tmp_path: Path) -> None:
    done = program(
        cwd=tmp_path, _AXONEME_COMPLETE="bash_complete", COMP_WORDS="axoneme bpf map ", COMP_CWORD="3"
    )
    assert done.stdout.split() == ["plain,dump", "plain,list"]
