"""Field masks against protobuf's own way of applying them."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from hypothesis import given
from hypothesis import strategies as st

from axoneme.plugins.hubble.cli.request import POLICIES, SHOWN
from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.masks import mask
from axoneme.plugins.hubble.proto.flow_pb2 import Flow

RICH = Flow(
    uuid="u", verdict="DROPPED", IP={"source": "10.0.0.1", "ipVersion": "IPv4"}, node_name="n", Summary="s",
    l4={"TCP": {"source_port": 1, "flags": {"SYN": True}}}, is_reply={"value": False}, node_labels=["a", "b"],
    source={"identity": 1, "labels": ["x"], "pod_name": "p", "workloads": [{"name": "w"}]}, destination={"labels": ["y"]},
    l7={"type": "REQUEST", "http": {"url": "/", "headers": [{"key": "k"}]}}, egress_denied_by=[{"name": "p"}],
    trace_context={"parent": {"trace_id": "t"}},
)  # fmt: skip
PATHS = [
    "uuid", "verdict", "IP", "IP.source", "l4.TCP.flags", "l4.TCP", "source.pod_name", "source.labels", "source",
    "destination.pod_name", "destination.labels", "is_reply", "l7.http.url", "l7", "node_labels", "egress_denied_by",
    "trace_context.parent.trace_id", "interface", "time", "Summary",
]  # fmt: skip


@given(st.lists(st.sampled_from(PATHS), min_size=1, max_size=8))
def test_what_is_left_is_what_protobuf_would_copy(paths: list[str]) -> None:
    expected, given_ = Flow(), Flow()
    FieldMask(paths=paths).MergeMessage(RICH, expected)
    given_.CopyFrom(RICH)
    made = mask(paths)
    assert made is not None
    assert made(given_) == expected
    assert mask(paths) == made  # one mask for all requests with the same paths


@pytest.mark.parametrize("paths", [SHOWN, (*SHOWN, *POLICIES)])
def test_what_the_command_asks_for_is_known(paths: Any) -> None:
    assert mask(paths) is not None


def test_what_a_part_is_asked_of_is_there_but_no_choice_is_made() -> None:
    made = mask(["source.pod_name", "l4.TCP.flags", "uuid"])
    assert made is not None
    flow = made(Flow(l4={"UDP": {"source_port": 53}}))
    assert flow == Flow(source={}, l4={})
    assert flow.HasField("source")


def test_no_mask_and_a_mask_of_nothing_that_there_is() -> None:
    assert mask([]) is None
    with pytest.raises(RequestError, match="a flow has no 'nonsense'"):
        mask(["time", "nonsense"])
