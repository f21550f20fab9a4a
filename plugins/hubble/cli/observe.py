"""`axoneme hubble observe`: flows, agent events and debug events of a Hubble server, or flows from a file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import attrs
import click

from axoneme.plugins.hubble.cli import request as requests
from axoneme.plugins.hubble.cli.commands import observer_stub
from axoneme.plugins.hubble.cli.flags import CHOICES, FLAGS, Flag, UsageError
from axoneme.plugins.hubble.cli.options import Server, server_options, variable
from axoneme.plugins.hubble.cli.printing import TIME_FORMATS, EventPrinter, FlowPrinter, Look
from axoneme.plugins.hubble.cli.request import Selection
from axoneme.plugins.hubble.proto import observer_pb2

Function = Callable[..., Any]

OUTPUTS: Final = ("compact", "dict", "json", "jsonpb", "tab", "table")
#: The hidden twin of each filter flag, for what stands behind `--not`.
_NOT: Final = "not-"
_SHORT: Final = {f"-{flag.short}": f"--{flag.name}" for flag in FLAGS.values() if flag.short}


def move_negations(arguments: Sequence[str]) -> list[str]:
    """`--not --pod x` as `--not-pod x`: the flag that follows means its hidden twin. Raises `UsageError`."""
    moved: list[str] = []
    pending = False
    for position, argument in enumerate(arguments):
        if argument == "--":
            moved += arguments[position:]
            break
        if argument == "--not":
            if pending:
                raise UsageError("consecutive --not statements")
            pending = True
            continue
        name, rest = _split(argument)
        if pending and name.removeprefix("--") in FLAGS:
            argument, pending = f"--{_NOT}{name[2:]}{rest}", False
        moved.append(argument)
    if pending:
        raise UsageError("trailing --not found in the arguments")
    return moved


def _split(argument: str) -> tuple[str, str]:
    """The long name of a flag and what is attached to it, as `=value`."""
    if argument[:2] in _SHORT and not argument.startswith("--"):
        value = argument[2:]
        return _SHORT[argument[:2]], f"={value}" if value else ""
    name, equals, value = argument.partition("=")
    return name, equals + value


class Negations(click.Group):
    """A group, or a command without subcommands, that knows `--not`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, move_negations(args))


class FlowsCommand(click.Command):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, move_negations(args))


def filter_options(function: Function) -> Function:
    """The filter flags, as the parameters `allow` and `deny`: names with values, in the order of their first use."""

    @functools.wraps(function)
    def wrapped(*args: Any, **values: Any) -> Any:
        allow = [(flag.name, values.pop(flag.parameter)) for flag in FLAGS.values()]
        deny = [(flag.name, values.pop(f"not_{flag.parameter}")) for flag in FLAGS.values()]
        return function(*args, allow=_values(allow), deny=_values(deny), **values)

    decorated: Function = wrapped
    for flag in reversed(list(FLAGS.values())):
        decorated = _option(flag, _NOT, hidden=True)(_option(flag, "")(decorated))
    return decorated


def _values(given: Iterable[tuple[str, Any]]) -> list[tuple[str, Sequence[str]]]:
    """A flag without value counts how often it was given."""
    return [
        (name, [FLAGS[name].constant or ""] * texts if isinstance(texts, int) else texts)
        for name, texts in given
    ]


def _option(flag: Flag, prefix: str, *, hidden: bool = False) -> Callable[[Function], Function]:
    names = [f"--{prefix}{flag.name}", *([f"-{flag.short}"] if flag.short and not prefix else [])]
    if flag.constant is not None:
        return click.option(*names, count=True, help=flag.help, hidden=hidden)
    return click.option(
        *names,
        multiple=True,
        metavar="VALUE",
        help=flag.help,
        hidden=hidden,
        shell_complete=_completion(flag),
    )


def _completion(flag: Flag) -> Callable[[click.Context, click.Parameter, str], list[Any]]:
    return lambda _ctx, _param, begun: [
        value for value in CHOICES.get(flag.name, ()) if value.startswith(begun)
    ]


def _selection_options(function: Function) -> Function:
    """The selector flags, as the parameter `selection`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **values: Any) -> Any:
        names = ("first", "last", "follow", "since", "until")
        chosen = {name: values.pop(name) for name in names}
        selection = Selection(all=values.pop("all_"), **chosen)
        return function(*args, selection=selection, **values)

    times = "A duration back from now, as 5m or 1h30m, or a time, as 2026-01-31, 2026-01-31T15:04Z, 2026-01-31T15:04:05Z"
    decorated: Function = wrapped
    for option in reversed(
        (
            click.option("--all", "all_", is_flag=True, help="All flows that are there."),
            click.option("--last", type=click.IntRange(0, requests.ALL), default=0, metavar="N",
                         help="The newest N (default 20). A relay gives N of each node."),
            click.option("--first", type=click.IntRange(0, requests.ALL), default=0, metavar="N",
                         help="The oldest N. A relay gives N of each node."),
            click.option("-f", "--follow", is_flag=True, help="Go on with what is new. Ctrl-C ends it."),
            click.option("--since", default="", metavar="TIME", help=f"From then on. {times}."),
            click.option("--until", default="", metavar="TIME", help="Up to then; written as for --since."),
        )
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated


def _look_options(function: Function) -> Function:
    """How to print, as the parameter `look`."""

    @functools.wraps(function)
    def wrapped(*args: Any, **values: Any) -> Any:
        numeric = values.pop("numeric", False)
        output = values.pop("output").lower()
        look = Look(
            output={"jsonpb": "json", "tab": "table"}.get(output, output),
            time_format=values.pop("time_format"),
            node_name=values.pop("print_node_name"),
            policy_names=values.pop("print_policy_names"),
            translate=values.pop("ip_translation", True) and not numeric,
            color=values.pop("color", "auto"),
            silent=values.pop("silent_errors"),
        )
        return function(*args, look=look, **values)

    decorated: Function = wrapped
    for option in reversed(
        (
            click.option("-o", "--output", type=click.Choice(OUTPUTS, case_sensitive=False), default="compact",
                         help="How to print: lines, KEY: VALUE pairs, one JSON object a line, or a table."),
            click.option("--print-node-name", is_flag=True, help="With the node's name."),
            click.option("--print-policy-names", is_flag=True, help="With the policies behind a policy verdict."),
            click.option("--time-format", type=click.Choice(TIME_FORMATS, case_sensitive=False), default="StampMilli",
                         help="How times are printed, but for json."),
            click.option("-s", "--silent-errors", is_flag=True, help="Do not print what happens to nodes and losses."),
        )
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated


def _flow_options(function: Function) -> Function:
    decorated = function
    for option in reversed(
        (
            click.option("--color", type=click.Choice(["auto", "always", "never"]), default="auto", help="Colours."),
            click.option("--ip-translation/--no-ip-translation", default=True, help="Names in place of addresses."),
            click.option("--numeric", is_flag=True, help="Addresses and numbers in place of names."),
            click.option("--allowlist", multiple=True, envvar=variable("allowlist"), metavar="JSON",
                         help="A FlowFilter as JSON, in addition to the filter flags."),
            click.option("--denylist", multiple=True, envvar=variable("denylist"), metavar="JSON",
                         help="A FlowFilter as JSON; what it matches is not shown."),
            click.option("--field-mask", "--experimental-field-mask", "field_mask", multiple=True, metavar="FIELDS",
                         help="Only these fields of flows, with commas between them; for json."),
            click.option("--use-default-field-masks/--no-default-field-masks",
                         "--experimental-use-default-field-masks/--no-experimental-default-field-masks", "default_masks",
                         default=True, help="For formats that show few fields, ask only for those."),
            click.option("--print-raw-filters", is_flag=True, help="Print the filters as JSON, and ask nobody."),
            click.option("--input-file", metavar="FILE", help="Read flows from a file of `-o json`; - is standard input."),
        )
    ):  # fmt: skip
        decorated = option(decorated)
    return decorated


def _flows(function: Function) -> Function:
    return _selection_options(filter_options(_look_options(_flow_options(server_options(function)))))


def observe_flows(
    *,
    server: Server,
    selection: Selection,
    allow: Sequence[tuple[str, Sequence[str]]],
    deny: Sequence[tuple[str, Sequence[str]]],
    look: Look,
    allowlist: Sequence[str],
    denylist: Sequence[str],
    field_mask: Sequence[str],
    default_masks: bool,
    print_raw_filters: bool,
    input_file: str | None,
) -> None:
    """Asks for flows and prints them."""
    mask = [path for text in field_mask for path in text.split(",") if path]
    if look.output == "table" and selection.follow:
        raise UsageError("table output format is not compatible with follow mode")
    if look.output != "json":
        if mask:
            raise UsageError(
                f"{look.output} output format is not compatible with custom field mask", hint="use -o json"
            )
        if default_masks:
            mask = [*requests.SHOWN, *(requests.POLICIES if look.policy_names else ())]
    request = requests.flows_request(
        selection,
        allow,
        deny,
        raw_allow=allowlist,
        raw_deny=denylist,
        mask=mask,
        from_file=input_file is not None,
    )
    if print_raw_filters:
        click.echo(requests.filters_yaml(request), nl=False)
        return
    with FlowPrinter(attrs.evolve(look, debug=server.debug)) as show:
        if input_file is not None:
            from axoneme.plugins.hubble.cli.files import read_flows

            for answer in read_flows(input_file, request):
                show(answer)
            return
        with server.stub(observer_stub) as stub:
            for answer in stub.GetFlows(request):
                show(answer)


@click.group(cls=Negations, invoke_without_command=True, no_args_is_help=False)
@_flows
@click.pass_context
def observe(ctx: click.Context, /, **values: Any) -> None:
    """Show flows: who talks to whom, and what becomes of it.

    Without selectors the newest 20. A flag may be repeated: one of its values must match; of different flags all must.
    --not before a flag hides what it matches.
    """
    if ctx.invoked_subcommand is None:
        observe_flows(**values)


@observe.command("flows", cls=FlowsCommand)
@_flows
def flows(**values: Any) -> None:
    """Show flows; the same as without the word."""
    observe_flows(**values)


def _events(call: str, kind: type[Any], server: Server, selection: Selection, look: Look) -> None:
    if look.output == "table" and selection.follow:
        raise UsageError("table output format is not compatible with follow mode")
    request = kind()
    selection.fill(request)
    request.number = request.number or (0 if selection.since or selection.until else requests.DEFAULT_LAST)
    with EventPrinter(look) as show, server.stub(observer_stub) as stub:
        for answer in getattr(stub, call)(request):
            show(answer)


@observe.command("agent-events")
@_selection_options
@_look_options
@server_options
def agent_events(server: Server, selection: Selection, look: Look) -> None:
    """Show what the agent did: endpoints, addresses and policies that came and went."""
    _events("GetAgentEvents", observer_pb2.GetAgentEventsRequest, server, selection, look)


@observe.command("debug-events")
@_selection_options
@_look_options
@server_options
def debug_events(server: Server, selection: Selection, look: Look) -> None:
    """Show debug events of Cilium's datapath. Axoneme's has none."""
    _events("GetDebugEvents", observer_pb2.GetDebugEventsRequest, server, selection, look)
