"""The commands `axoneme bpf lb …` and `axoneme lb maglev …`: what the kernel's maps of services hold.

Tables and JSON are those of `cilium-dbg`, which scripts read: a text per row of a map, by the text of its key. Its maps have a row per
backend of a service, ours have stretches of slots; so its slots are counted here, a backend being one, however often it is in
the stretch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from axoneme.core.cli.output import Column, Format, aligned, emit, table, wide_output_option

if TYPE_CHECKING:
    from axoneme.core.cli.session import Session

Row = dict[str, Any]
#: By the text of a map's key.
Texts = Mapping[str, list[str]]

_SERVICE, _BACKEND = "SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)"

_WIDE_SERVICES: Final = (
    Column("service address", "frontend"),
    Column("id", "id", right=True),
    Column("slots", "slots", right=True),
    Column("algorithm", lambda row: row["algorithm"] or "-"),
    Column("affinity", "affinity", right=True),
    Column("kind", "kind"),
    Column("backends", lambda row: [f"{one['address']} ({one['slots']})" for one in row["backends"]]),
)
_WIDE_BACKENDS: Final = (
    Column("id", "id", right=True),
    Column("backend address", "address"),
    Column("flags", "flags"),
    Column("connections", "connections", right=True),
)
_WIDE_TABLES: Final = (
    Column("svc id", "id", right=True),
    Column("frontend", "frontend"),
    Column("size", lambda row: len(row["table"]), right=True),
    Column("backends", lambda row: len({*row["table"]}), right=True),
)


@click.command(name="list")
@click.option("--frontends", is_flag=True, help="The services' rows alone.")
@click.option("--backends", is_flag=True, help="The backends, by number.")
@click.option("--revnat", is_flag=True, help="The services by number: what RevNAT means elsewhere.")
@click.option("--source-ranges", is_flag=True, help="The clients that services are for.")
@wide_output_option
@click.pass_obj
def lb_list(
    session: Session, frontends: bool, backends: bool, revnat: bool, source_ranges: bool, output: str
) -> None:
    """List what the kernel's maps of services hold.

    A frontend that is used from outside and from this node has two rows; `/i` is the one for this node. Wide says how many
    slots each backend has, how one is chosen, and, with --backends, how many connections there are.
    """
    if frontends + backends + revnat + source_ranges > 1:
        raise click.UsageError("--frontends, --backends, --revnat and --source-ranges exclude each other")
    if backends:
        rows = session.call("lb.map", view="backends")
        _print(rows, output, ("ID", _BACKEND), _backend_texts(rows), _WIDE_BACKENDS)
    elif source_ranges:
        rows = session.call("lb.map", view="sources")
        texts = {f"{row['range']} ({row['id']})": [""] for row in rows}
        _print(rows, output, ("SOURCE RANGE (REVNAT_ID)", ""), texts)
    else:
        rows = _named(session.call("lb.map", view="services"))
        if frontends:
            _print(rows, output, (_SERVICE, "BACKEND ID"), _frontend_texts(rows), _WIDE_SERVICES[:-1])
        elif revnat:
            _print(rows, output, ("ID", _BACKEND), _revnat_texts(rows))
        else:
            _print(rows, output, (_SERVICE, _BACKEND), _service_texts(rows), _WIDE_SERVICES)


def _print(
    rows: list[Row],
    output: str,
    headings: tuple[str, str],
    texts: Texts,
    wide: tuple[Column, ...] = (),
) -> None:
    if output in (Format.JSON, Format.YAML):
        emit(dict(texts), output)
    elif not texts:
        click.echo("there are none", err=True)
    elif output == Format.WIDE and wide:
        table(rows, wide)
    else:
        aligned(headings, [(key, text) for key, several in texts.items() for text in several])


def _named(rows: list[Row]) -> list[Row]:
    """Frontends as Cilium writes them: `/i` is the row for this node of those that have one for the outside as well."""
    outside = {row["frontend"][:-2] for row in rows if row["frontend"].endswith("/e")}
    return [{**row, "frontend": _frontend(row["frontend"], outside)} for row in rows]


def _frontend(text: str, outside: set[str]) -> str:
    plain = text[:-2]
    return text if text.endswith("/i") and plain in outside else plain


def _service_texts(rows: list[Row]) -> Texts:
    found = {}
    for row in rows:
        nobody = "[::]:0" if row["frontend"].startswith("[") else "0.0.0.0:0"
        found[f"{row['frontend']} (0)"] = [f"{nobody} ({row['id']}) (0) [{_kind(row)}]"]
        for slot, one in enumerate(row["backends"], 1):
            shown = one["address"] or f"backend {one['id']} not found"
            found[f"{row['frontend']} ({slot})"] = [f"{shown} ({row['id']}) ({slot})"]
    return found


def _frontend_texts(rows: list[Row]) -> Texts:
    """Number of the backend, of backends, of the service."""
    found = {}
    for row in rows:
        found[f"{row['frontend']} (0)"] = [f"0 {len(row['backends'])} ({row['id']}) [{_kind(row)}]"]
        for slot, one in enumerate(row["backends"], 1):
            found[f"{row['frontend']} ({slot})"] = [f"{one['id']} 0 ({row['id']})"]
    return found


def _kind(row: Row) -> str:
    if row["kind"]:
        return ", ".join(row["kind"])
    # An address whose other ports have no service is Cilium's ClusterIP as well; else a row that nobody wants any more.
    return "unknown" if row["id"] else "ClusterIP, non-routable"


def _backend_texts(rows: list[Row]) -> Texts:
    def text(address: str) -> str:
        place, _, protocol = address.rpartition("/")
        return f"{protocol}://{place}"

    return {str(row["id"]): [text(row["address"])] for row in rows}


def _revnat_texts(rows: list[Row]) -> Texts:
    return {str(row["id"]): [row["frontend"].partition("/")[0]] for row in rows if row["id"]}


@click.command(name="list")
@wide_output_option
@click.pass_obj
def maglev_list(session: Session, output: str) -> None:
    """List the tables of services that hash consistently. Wide has their sizes instead of what is in them."""
    _tables(session.call("lb.map", view="maglev"), output)


@click.command(name="get")
@click.argument("service", type=click.IntRange(min=1), metavar="SERVICE-ID")
@wide_output_option
@click.pass_obj
def maglev_get(session: Session, service: int, output: str) -> None:
    """Show one service's table: the numbers of backends, slot by slot."""
    rows = session.call("lb.map", view="maglev", number=service)
    if not rows:
        raise click.ClickException(f"no service with the id {service} hashes consistently")
    _tables(rows, output)


def _tables(rows: list[Row], output: str) -> None:
    texts = {str(row["id"]): [f"[{' '.join(map(str, row['table']))}]"] for row in rows}
    _print(_named(rows), output, ("SVC ID", "LOOKUP TABLE"), texts, _WIDE_TABLES)
