"""From the command line's flags to the request on the wire."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from attrs import frozen
from google.protobuf import json_format
from google.protobuf.field_mask_pb2 import FieldMask

from axoneme.plugins.hubble.cli.flags import UsageError, filters
from axoneme.plugins.hubble.cli.times import point
from axoneme.plugins.hubble.proto import flow_pb2, observer_pb2

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor

#: How many flows are shown when nobody says how many.
DEFAULT_LAST: Final = 20
#: What `--all` asks for.
ALL: Final = (1 << 64) - 1

#: What the formats for people show; nothing else needs to be sent.
SHOWN: Final = (
    "time", "verdict", "ethernet", "IP", "l4", "source.identity", "source.namespace", "source.pod_name",
    "destination.identity", "destination.namespace", "destination.pod_name", "Type", "node_name", "source_names",
    "destination_names", "l7", "event_type", "source_service", "destination_service", "is_reply", "Summary", "auth_type",
    "traffic_direction", "policy_match_type", "debug_capture_point", "sock_xlate_point",
)  # fmt: skip
#: What `--print-policy-names` shows besides.
POLICIES: Final = (
    "egress_allowed_by", "ingress_allowed_by", "egress_denied_by", "ingress_denied_by",
)  # fmt: skip


@frozen(kw_only=True)
class Selection:
    """Which flows, by number and time: the selector flags as they were given."""

    first: int = 0
    last: int = 0
    all: bool = False
    follow: bool = False
    since: str = ""
    until: str = ""

    def check(self) -> None:
        """Raises `UsageError` for flags that contradict each other."""
        pairs = (("first", "last"), ("first", "all"), ("first", "follow"), ("last", "all"))
        for one, other in pairs:
            if getattr(self, one) and getattr(self, other):
                raise UsageError(f"cannot set both --{one} and --{other}")

    def number(self, *, from_file: bool = False) -> int:
        """How many flows to ask for; 0 is no limit."""
        if self.first:
            return self.first
        if self.since or self.until or self.last:
            return self.last
        if self.all:
            return ALL
        return 0 if self.follow or from_file else DEFAULT_LAST

    def fill(self, request: Any, *, from_file: bool = False) -> None:
        """Writes it into a request for flows or events; `--until` means nothing to who follows."""
        self.check()
        request.number = self.number(from_file=from_file)
        request.first = bool(self.first)
        request.follow = self.follow
        if self.since:
            request.since.CopyFrom(point(self.since))
        if self.until and not self.follow:
            request.until.CopyFrom(point(self.until))


def flows_request(
    selection: Selection,
    allow: Iterable[tuple[str, Sequence[str]]] = (),
    deny: Iterable[tuple[str, Sequence[str]]] = (),
    *,
    raw_allow: Iterable[str] = (),
    raw_deny: Iterable[str] = (),
    mask: Sequence[str] = (),
    from_file: bool = False,
) -> observer_pb2.GetFlowsRequest:
    """The request that the flags mean. Raises `UsageError`."""
    request = observer_pb2.GetFlowsRequest()
    selection.fill(request, from_file=from_file)
    request.whitelist.extend(filters(allow))
    request.whitelist.extend(raw_filters(raw_allow, "allowlist"))
    request.blacklist.extend(filters(deny))
    request.blacklist.extend(raw_filters(raw_deny, "denylist"))
    if mask:
        request.field_mask.CopyFrom(checked_mask(mask))
    return request


def checked_mask(paths: Sequence[str]) -> FieldMask:
    """A mask of fields of `flow.Flow`. Raises `UsageError` for what is none."""
    mask, flow = FieldMask(paths=paths), cast("Descriptor", flow_pb2.Flow.DESCRIPTOR)
    for path in paths:
        if not FieldMask(paths=[path]).IsValidForDescriptor(flow):
            raise UsageError(f"failed to construct field mask: invalid path {path!r} for message flow.Flow")
    return mask


def raw_filters(texts: Iterable[str], flag: str) -> list[flow_pb2.FlowFilter]:
    """Filters written as JSON, one or several in a text."""
    return [parsed_filter(value, f"--{flag} flag") for text in texts for value in _values(text, flag)]


def _values(text: str, flag: str) -> Iterable[object]:
    decoder, rest = json.JSONDecoder(), text.strip()
    while rest:
        try:
            value, end = decoder.raw_decode(rest)
        except ValueError as error:
            raise UsageError(f"invalid --{flag} flag: failed to decode {text!r}: {error}") from None
        yield value
        rest = rest[end:].strip()


def parsed_filter(value: object, place: str) -> flow_pb2.FlowFilter:
    """A filter written as a JSON object. Raises `UsageError`, naming the place."""
    if not isinstance(value, dict):
        raise UsageError(f"invalid {place}: a filter is a JSON object, not {json.dumps(value)}")
    try:
        return json_format.ParseDict(value, flow_pb2.FlowFilter())
    except json_format.ParseError as error:
        raise UsageError(f"invalid {place}: {error}") from None


def filters_yaml(request: observer_pb2.GetFlowsRequest) -> str:
    """The filters of a request as the configuration file takes them."""
    import yaml

    lists = {"allowlist": request.whitelist, "denylist": request.blacklist}
    shown = {name: [filter_json(entry) for entry in entries] for name, entries in lists.items() if entries}
    return str(yaml.safe_dump(shown, sort_keys=False, width=1 << 20)) if shown else "{}\n"


def filter_json(entry: flow_pb2.FlowFilter) -> str:
    return json_format.MessageToJson(entry, preserving_proto_field_name=True, indent=None)
