"""`axoneme policy diff`, `replay` and `learn`: policies before they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from axoneme.core.cli.moment import Moment
from axoneme.core.cli.output import Column, Format, emit, output_option, table
from axoneme.core.errors import AxonemeError
from axoneme.plugins.policy import completing

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

F = TypeVar("F", bound=Callable[..., Any])

#: Nothing would change; something would; the question could not be answered.
SAME, DIFFERENT, TROUBLE = 0, 1, 2
#: Rows that are printed; `-o json` has them all.
_SHOWN: Final = 100


class _RefusedError(click.ClickException):
    """Errors have a code of their own here, because 1 means that something would change."""

    exit_code = TROUBLE


def _policies(function: F) -> F:
    options = [
        click.option(
            "-f", "--file", "files", multiple=True, type=click.Path(exists=True, path_type=Path),
            help="Policies that would be added or replaced: a file, or a folder of them.",
        ),
        click.option("--delete", multiple=True, metavar="NAME", shell_complete=completing.policies,
            help="A policy that would be deleted: [NAMESPACE/]NAME.",),
        click.option("--only", is_flag=True, help="Nothing but these policies would hold."),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


def _times(function: F) -> F:
    function = click.option("--until", type=Moment(), default=0, help="Connections before that time.")(
        function
    )
    return click.option(
        "--since", type=Moment(), default="1h", show_default=True, help="Connections since: 1h, 7d, a time."
    )(function)


@click.command()
@_policies
@output_option
@click.pass_obj
def diff(session: Session, files: tuple[Path, ...], delete: tuple[str, ...], only: bool, output: str) -> None:
    """Show which traffic would change if policies were added, replaced or deleted, for those who are here now.

    Nothing is applied. The exit code is 0 if nothing would change, 1 if something would, 2 if it cannot be told.
    """
    answer = _ask(session, "policy.diff", **_given(files, delete, only))
    if output != Format.TABLE:
        emit(answer, output)
    else:
        _print_diff(answer)
    _end(bool(answer["changes"]))


@click.command()
@_policies
@_times
@output_option
@click.pass_obj
def replay(
    session: Session,
    files: tuple[Path, ...],
    delete: tuple[str, ...],
    only: bool,
    since: float,
    until: float,
    output: str,
) -> None:
    """Show what policies would have made of recorded connections.

    Nothing is applied. The exit code is 0 if all would have been as it was, 1 if not, 2 if it cannot be told.
    """
    answer = _ask(session, "policy.replay", **_given(files, delete, only), since=since, until=until)
    if output != Format.TABLE:
        emit(answer, output)
    else:
        _print_replay(answer)
    _end(any(answer[name] for name in ("would_drop", "would_allow", "would_need")))


@click.command()
@click.option(
    "-l", "--labels", "selector", required=True, metavar="LABELS", help="The workloads: app=web,tier=front."
)
@_times
@click.option(
    "--direction",
    "directions",
    multiple=True,
    type=click.Choice(["ingress", "egress"]),
    help="Only these; both by default.",
)
@click.option(
    "--ignore-label", "ignore", multiple=True, metavar="KEY", help="A label that is not to be selected by."
)
@click.option(
    "--ipv4-prefix", default=32, show_default=True, help="Widen addresses of the world to prefixes."
)
@click.option("--ipv6-prefix", default=128, show_default=True, help="The same for IPv6.")
@click.option(
    "--most-prefixes", default=32, show_default=True, help="From more prefixes on, allow the whole world."
)
@click.option(
    "--names/--no-names",
    default=True,
    show_default=True,
    help="Allow addresses by their DNS names, where these are known.",
)
@click.option(
    "--audit",
    is_flag=True,
    help="Policies that are audited: they deny nothing, and tell what they would deny.",
)
@output_option
@click.pass_obj
def learn(session: Session, /, output: str, **arguments: Any) -> None:
    """Write the policies that allow what certain workloads were seen to do, and nothing else, as YAML.

    To be looked through before it is applied: what did not happen meanwhile is not allowed.
    """
    arguments = {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}
    answer = _ask(session, "policy.learn", **arguments)
    if output != Format.TABLE:
        emit(answer, output)
        return
    click.echo(f"# from {_looked_at(answer)}")
    for line in _doubts(answer):
        click.echo(f"# {line}")
    click.echo(answer["yaml"], nl=False)


def _given(files: tuple[Path, ...], delete: tuple[str, ...], only: bool) -> dict[str, Any]:
    from axoneme.plugins.policy.rehearsal.objects import packed, texts_of

    if not files and not delete:
        raise click.UsageError("say what would change: --file, --delete")
    try:
        return {"files": packed(texts_of(files)), "delete": list(delete), "only": only}
    except AxonemeError as error:
        _trouble(error)


def _ask(session: Session, method: str, **arguments: Any) -> Any:
    try:
        return session.call(method, **arguments)
    except AxonemeError as error:
        if type(error).__name__ == "NotRunningError":
            raise
        _trouble(error)


def _trouble(error: AxonemeError) -> NoReturn:
    raise _RefusedError(str(error)) from error


def _end(different: bool) -> None:
    click.get_current_context().exit(DIFFERENT if different else SAME)


# For people


def _print_diff(answer: dict[str, Any]) -> None:
    for name in ("added", "changed", "deleted"):
        if keys := answer["policies"][name]:
            shown = [key.partition("/")[2].strip("/") for key in keys]
            more = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
            click.echo(f"{name}: {', '.join(shown[:10])}{more}")
    for one in answer["errors"]:
        click.echo(f"error: the policies of {one['workload']} would contradict each other: {one['error']}")
    columns = [
        Column("SOURCE", lambda row: _few(row["sources"])),
        Column("DESTINATION", lambda row: _few(row["destinations"])),
        *(Column(name.upper(), name) for name in ("ports", "before", "after", "by")),
    ]
    _print_rows(_grouped(answer["changes"]), columns)
    _print_skipped(answer)
    click.echo(f"{answer['pairs']} pairs would change" if answer["pairs"] else "nothing would change")


def _print_replay(answer: dict[str, Any]) -> None:
    columns = [
        Column("SOURCE", "source"),
        Column("DESTINATION", "destination"),
        Column("PORT", "port"),
        Column("CONNECTIONS", "connections", right=True),
        Column("FIRST", "first"),
        Column("LAST", "last"),
        Column("NOW", "now"),
        Column("AFTER", "after"),
        Column("BY", lambda row: _by(row["rules_after"])),
    ]
    headings = {
        "would_drop": "would be dropped, and came through:",
        "would_allow": "would come through, and were dropped:",
        "would_need": "would come through, but otherwise than now:",
    }
    for name, heading in headings.items():
        if answer[name]:
            click.echo(heading)
            _print_rows(answer[name], columns)
    _print_skipped(answer)
    counts = {name: answer[f"{name}_connections"] for name in headings}
    click.echo(
        f"of {_looked_at(answer)}: {counts['would_drop']} would be dropped, {counts['would_allow']} would come through"
        + (f", {counts['would_need']} otherwise than now" if counts["would_need"] else "")
    )
    for line in _doubts(answer):
        click.echo(line)


def _looked_at(answer: dict[str, Any]) -> str:
    when = f", {answer['first']} to {answer['last']}" if answer["first"] else ""
    return f"{answer['connections']} connections in {answer['flows']} flows{when}"


def _doubts(answer: dict[str, Any]) -> Iterable[str]:
    texts = {
        "unknown": "connections of identities that nobody knows any more",
        "overflow": "connections beyond the number of different flows that are looked at",
        "damaged": "pieces of the event store that cannot be read",
    }
    return [f"left out: {answer[name]} {text}" for name, text in texts.items() if answer[name]]


def _print_rows(rows: list[dict[str, Any]], columns: list[Column]) -> None:
    if rows:
        table(rows[:_SHOWN], columns)
    if len(rows) > _SHOWN:
        click.echo(f"and {len(rows) - _SHOWN} more; -o json shows them")


def _print_skipped(answer: dict[str, Any]) -> None:
    if answer["skipped"]:
        click.echo(f"no policies, left out: {', '.join(answer['skipped'])}")


def _grouped(changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that differ in their source only as one, and then those that differ in their destination only."""
    names = ("ports", "before", "after", "by")
    rows = [
        {
            "sources": _names(one["source"]),
            "destinations": _names(one["destination"]),
            **one,
            "by": _by(one["rules_after"]),
        }
        for one in changes
    ]
    for side, other in (("sources", "destinations"), ("destinations", "sources")):
        groups: dict[tuple[Any, ...], dict[str, Any]] = {}
        for row in rows:
            key = (tuple(row[other]), *(row[name] for name in names))
            group = groups.setdefault(key, {**row, side: []})
            group[side] = [*group[side], *(one for one in row[side] if one not in group[side])]
        rows = list(groups.values())
    return rows


def _names(end: dict[str, Any]) -> list[str]:
    return end["workloads"] or [str(end["name"])]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(sorted(names, key=lambda name: "/" not in name)[:3]) + more


def _by(rules: list[dict[str, Any]]) -> str:
    texts = [f"{one['policy']} {one['path']}" if one["policy"] else one["path"] for one in rules]
    return ", ".join(dict.fromkeys(texts))
