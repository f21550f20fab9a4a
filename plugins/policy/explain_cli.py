"""`axoneme policy explain`: the answer of `policy.explain`, of a running agent or of files, for people and programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from axoneme.core.cli.output import Format, emit, output_option
from axoneme.plugins.policy import completing

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

#: Rules that are printed; `-o json` has them all.
_SHOWN = 12

_OUTCOMES = {
    "decides": "decides", "beaten": "is beaten", "agrees": "agrees", "audited": "is audited", "other-ports": "other ports",
    "other-peer": "other peer", "empty": "says nothing",
}  # fmt: skip


@click.command(name="explain")
@click.argument("source", shell_complete=completing.parties)
@click.argument("destination", shell_complete=completing.parties)
@click.argument("port", metavar="PORT[/PROTOCOL]")
@click.option(
    "-f", "--file", "files", multiple=True, type=click.Path(exists=True, path_type=Path),
    help="Policies (files or folders) instead of those of a running agent; with --workloads.",
)  # fmt: skip
@click.option(
    "--workloads", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML list of workloads: name, namespace, labels, ports, addresses.",
)  # fmt: skip
@output_option
@click.pass_obj
def explain(
    session: Session,
    source: str,
    destination: str,
    port: str,
    files: tuple[Path, ...],
    workloads: Path | None,
    output: str,
) -> None:
    """Say why traffic from SOURCE to DESTINATION is allowed or denied, and what would allow it.

    SOURCE and DESTINATION are workloads ([NAMESPACE/]NAME), labels (app=web,tier=front), addresses, entities such as
    world or host, or identity:NUMBER. PORT is 80, 53/udp, 8/icmp or icmp.
    """
    if bool(files) is not bool(workloads):
        raise click.UsageError("--file and --workloads go together")
    if workloads is not None:
        from axoneme.plugins.policy.rehearsal.offline import explain_files

        answer = explain_files(files, workloads, source, destination, port)
    else:
        answer = session.call("policy.explain", source=source, destination=destination, port=port)
    if output == Format.TABLE:
        click.echo("\n".join(lines(answer)))
    else:
        emit(answer, output)


def lines(answer: dict[str, Any]) -> Iterator[str]:
    """The answer for people."""
    ends = f"{answer['source']['name']} -> {answer['destination']['name']} {answer['port']}"
    yield f"{ends}: {answer['verdict']}"
    for side in answer["sides"]:
        yield ""
        yield from _side(side)
    if not answer["sides"]:
        yield ""
        yield "Neither end is a workload of this node: no policy applies."


def _side(side: dict[str, Any]) -> Iterator[str]:
    extras = [f"authentication {side['auth']}"] if side["auth"] else []
    extras += [f"through the {side['proxy']} proxy"] if side["proxy"] else []
    yield f"{side['direction']} of {side['subject']['name']}: {', '.join([side['verdict'], *extras])}"
    if side["error"]:
        yield f"  its policies cannot be brought up to date: {side['error']}"
    yield f"  {_by(side['rule'])}"
    kernel = side.get("kernel")
    if kernel and kernel["verdict"] != side["verdict"]:
        yield f"  but {kernel['verdict']} in the kernel: {_rule(kernel['rule']) if kernel['rule'] else 'not ready yet'}"
    for one in side["default_deny_by"]:
        yield f"  default deny is turned on by {one['policy']}{_place(one)}"
    if side["audit"]:
        yield f"  would be denied if what is audited were enforced: {_by(side['audit']['rule'])}"
    considered = [one for one in side["considered"] if one["outcome"] != "decides"]
    for one in considered[:_SHOWN]:
        yield f"  {_OUTCOMES[one['outcome']]:<13} {_rule(one['rule'])}: {one['why']}"
    hidden = side["considered_total"] - len(side["considered"]) + len(considered[_SHOWN:])
    if hidden:
        yield f"  and {hidden} more rules"
    if side["suggestion_none"]:
        yield f"  {side['suggestion_none']}"
    if side["suggestion_yaml"]:
        yield "  the smallest rule that allows it:"
        yield from (f"    {line}" for line in side["suggestion_yaml"].splitlines())


def _by(rule: dict[str, Any]) -> str:
    """`by` a policy's rule, or because of what stands in place of one."""
    return f"by {_rule(rule)}" if rule["policy"] else f"because {_rule(rule)}"


def _rule(rule: dict[str, Any]) -> str:
    if not rule["policy"]:
        return str(rule["text"])
    return f"{rule['policy']} {rule['path']}{_place(rule)}"


def _place(row: dict[str, Any]) -> str:
    return f" ({row['file']}:{row['line']})" if row["file"] else ""
