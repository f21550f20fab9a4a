"""The part `export` of the configuration section."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from axoneme.core.structure import setting

if TYPE_CHECKING:
    from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest


@frozen(kw_only=True)
class Chosen:
    """Which flows, and what of them."""

    allow: tuple[dict[str, Any], ...] = setting(
        (), help="flow filters, one of which must match; empty: every flow"
    )
    deny: tuple[dict[str, Any], ...] = setting((), help="flow filters, none of which may match")
    fields: tuple[str, ...] = setting(
        (), help="the fields that are exported, as source.pod_name, besides the time; empty: all"
    )

    def __attrs_post_init__(self) -> None:
        if self.allow or self.deny or self.fields:
            request(self)


def request(chosen: Chosen) -> GetFlowsRequest:
    """The request for these flows, followed. Raises `ValueError` for what is no filter or no field."""
    from axoneme.core.errors import AxonemeError
    from axoneme.plugins.hubble.cli.request import checked_mask, parsed_filter
    from axoneme.plugins.hubble.proto.observer_pb2 import GetFlowsRequest

    made = GetFlowsRequest(follow=True)
    try:
        made.whitelist.extend(parsed_filter(entry, "allow") for entry in chosen.allow)
        made.blacklist.extend(parsed_filter(entry, "deny") for entry in chosen.deny)
        if chosen.fields:
            made.field_mask.CopyFrom(checked_mask(list(dict.fromkeys([*chosen.fields, "time"]))))
    except AxonemeError as error:
        raise ValueError(error.message) from None
    return made


@frozen(kw_only=True)
class FileExport(Chosen):
    """A file of JSON lines (`observer.ExportEvent`)."""

    path: Path = setting(help="the file; older ones are beside it, as NAME.1, NAME.2, …")
    max_size_mb: int = setting(10, help="at this size a new file is begun", minimum=1, maximum=1 << 20)
    max_backups: int = setting(5, help="how many older files are kept", minimum=0, maximum=1000)
    compress: bool = setting(False, help="older files are compressed (gzip)")


@frozen(kw_only=True)
class OtlpTls:
    ca: Path | None = setting(
        None, help="authorities of the collector's certificate, PEM; null: those of the system"
    )
    certificate: Path | None = setting(
        None, help="the agent's own certificate, for collectors that want one, PEM"
    )
    key: Path | None = setting(None, help="the certificate's private key, PEM")


@frozen(kw_only=True)
class OtlpExport(Chosen):
    """A collector that speaks OTLP over gRPC. Needs the extra `axoneme[otlp]`."""

    endpoint: str = setting("", help="http://HOST:4317 or https://HOST:4317; empty: no export")
    logs: bool = setting(True, help="each flow as a log record")
    traces: bool = setting(True, help="each answered layer 7 request as a span")
    tls: OtlpTls = setting(OtlpTls(), help="TLS to an https:// endpoint")
    timeout: float = setting(10.0, help="seconds that the collector may take", minimum=0.1, maximum=300)


@frozen(kw_only=True)
class ExportSettings:
    files: tuple[FileExport, ...] = setting((), help="files that flows are written to")
    otlp: OtlpExport = setting(OtlpExport(), help="a collector that flows are sent to")

    def __attrs_post_init__(self) -> None:
        paths = [file.path for file in self.files]
        if twice := {str(path) for path in paths if paths.count(path) > 1}:
            raise ValueError(f"two exports write to {', '.join(sorted(twice))}")
