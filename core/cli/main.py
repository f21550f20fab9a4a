"""The program `axoneme`: its root, its global options, and how it ends.

Exit codes: 0 success; 1 something that the message explains, or a status that is not ok; 2 wrong usage; 3 no agent runs;
70 a bug of ours or of a plugin; 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from axoneme.core.cli.lazy import Folder, LazyGroup, module, session_of
from axoneme.core.cli.session import Session
from axoneme.core.errors import AxonemeError

USER_ERROR: Final = 1
NOT_RUNNING: Final = 3
BUG: Final = 70
INTERRUPTED: Final = 130

COMMANDS: Final = Folder(
    "",
    {
        "agent": module("agent:command", "Run the agent in the foreground."),
        "bpf": Folder(
            "Look at maps and programs in the kernel.",
            {
                "ct": Folder(
                    "Look at the connection table.",
                    {
                        "list": module("connections:ct_list", "List the connections."),
                        "flush": module("connections:ct_flush", "Forget all connections."),
                    },
                ),
                "map": Folder(
                    "Look at maps.",
                    {
                        "list": module("bpf:map_list", "List the open maps."),
                        "dump": module("bpf:map_dump", "Print the entries of a map."),
                    },
                ),
                "nat": Folder(
                    "Look at translated sources.",
                    {
                        "list": module("connections:nat_list", "List the connections with another source."),
                        "flush": module("connections:nat_flush", "Forget all connections that are translated."),
                    },
                ),
                "program": Folder(
                    "Look at programs.", {"list": module("bpf:program_list", "List the loaded programs and their cost.")}
                ),
            },
        ),
        "cleanup": module("cleanup:command", "Remove everything that the agent made."),
        "completion": module("completion:command", "Print the completion script of a shell."),
        "config": Folder(
            "Look at the configuration.",
            {
                "view": module("config:view", "Show every key, its value, and where it comes from."),
                "schema": module("config:schema", "Print the JSON schema of the configuration file."),
                "check": module("config:check", "Check a configuration without using it."),
            },
        ),
        "datapath": Folder(
            "Look at what runs at each attach point.",
            {
                "show": module("datapath:show", "Show the composed order per attach point, with origin and cost."),
                "source": module("datapath:source", "Print the composed C of an attach point."),
                "counters": module("datapath:counters", "Show packets and bytes by reason."),
                "devices": module("datapath:devices", "Show the node's devices, and why they are used or not."),
            },
        ),
        "demo": module("demo:command", "Run a mesh between real workloads, and show it."),
        "endpoint": Folder(
            "Look at the workloads' endpoints.",
            {
                "list": module("endpoint:endpoint_list", "List the endpoints."),
                "get": module("endpoint:endpoint_get", "Show one endpoint."),
            },
        ),
        "identity": Folder(
            "Look at identities.",
            {
                "list": module("endpoint:identity_list", "List label sets and their numbers."),
                "get": module("endpoint:identity_get", "Show one identity and who has it."),
            },
        ),
        "metrics": module("metrics:command", "Print the numbers of the agent and its plugins."),
        "monitor": module("monitor:command", "Watch connections begin, end and be refused."),
        "plugin": Folder(
            "Manage plugins.",
            {
                "list": module("plugin:list_plugins", "List the installed plugins and their state."),
                "enable": module("plugin:enable", "Enable plugins in the configuration file."),
                "disable": module("plugin:disable", "Disable plugins in the configuration file."),
            },
        ),
        "reload": module("agent:reload", "Make a running agent apply its configuration."),
        "resource": Folder(
            "Look at resources.", {"list": module("endpoint:resource_list", "List the resources and their problems.")}
        ),
        "status": module("status:command", "Show how the agent and its parts are."),
        "version": module("version:command", "Show versions."),
        "workload": Folder(
            "Add, remove and run workloads.",
            {
                "add": module("workload:add", "Connect a network namespace as a workload."),
                "remove": module("workload:remove", "Disconnect a workload."),
                "list": module("endpoint:endpoint_list", "List the workloads."),
                "run": module("workload:run", "Run a command as a workload."),
            },
        ),
    },
)  # fmt: skip


@click.group(cls=LazyGroup, folder=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="AXONEME_CONFIG",
    is_eager=True,
    metavar="FILE",
    help="The configuration file, in place of /etc/axoneme/config.yaml.",
)
@click.option(
    "--set", "sets", multiple=True, is_eager=True, metavar="A.B=C", help="Override one key; may be repeated."
)
@click.option("--no-plugins", is_flag=True, is_eager=True, help="Load no plugins.")
@click.option(
    "--socket",
    type=click.Path(path_type=Path),
    envvar="AXONEME_SOCKET",
    is_eager=True,
    metavar="PATH",
    help="The agent's socket, in place of the configured one.",
)
@click.option("-v", "--verbose", is_flag=True, is_eager=True, help="Log more, and show tracebacks.")
@click.pass_context
def cli(
    ctx: click.Context,
    file: Path | None,
    sets: tuple[str, ...],
    no_plugins: bool,
    socket: Path | None,
    verbose: bool,
) -> None:
    """A sidecarless service mesh agent for Linux."""
    if ctx.obj is None:  # it may have been needed before, to find the command
        ctx.obj = Session(file=file, sets=sets, no_plugins=no_plugins, socket=socket, verbose=verbose)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the program and exits."""
    code = run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns the exit code. Whatever goes wrong has been said on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        result = cli.main(given, prog_name="axoneme", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except SystemExit as stop:
        if type(sys.stdout).__name__ == "_PacifyFlushWrapper":
            return 0  # `axoneme … | head` has seen enough; click makes a failure of that
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:  # noqa: BLE001 - the last place where anything can be said
        return explain(error, given)


def explain(error: BaseException, arguments: Sequence[str] = ()) -> int:
    """Says what happened, where, and what to do. Returns the exit code."""
    verbose = bool({"-v", "--verbose"} & set(arguments))
    if isinstance(error, BaseExceptionGroup):
        return max([explain(inner, arguments) for inner in error.exceptions], default=BUG)
    if not isinstance(error, AxonemeError):
        return _bug(error)
    for single in getattr(error, "errors", None) or [error]:
        _say(single)
    if verbose:
        _traceback(error)
        if log := getattr(error, "log", ""):
            click.echo(log, err=True)
    return NOT_RUNNING if type(error).__name__ == "NotRunningError" else USER_ERROR


def _say(error: AxonemeError) -> None:
    label = click.style("error:", fg="red", bold=True) if sys.stderr.isatty() else "error:"
    click.echo(f"{label} {error.message}", err=True)
    if error.where is not None:
        click.echo(f"  where: {error.where}", err=True)
    if error.hint is not None:
        click.echo(f"  to do: {error.hint}", err=True)


def _bug(error: BaseException) -> int:
    _traceback(error)
    click.echo(
        "\nThis is a bug, in axoneme or in one of its plugins. `axoneme --no-plugins …` tells which: it runs without them.",
        err=True,
    )
    return BUG


def _traceback(error: BaseException) -> None:
    import traceback

    click.echo("".join(traceback.format_exception(error)), err=True, nl=False)


__all__ = ["cli", "explain", "main", "run", "session_of"]
