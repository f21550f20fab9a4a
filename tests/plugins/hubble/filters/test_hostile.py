"""Requests that nobody sane would send: each is answered or refused, and nothing else happens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flow_world import World, records
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.plugins.hubble.filters.compiler import compiled
from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.load import load
from axoneme.plugins.hubble.proto.flow_pb2 import Flow, FlowFilter

TEXTS = st.one_of(
    st.text(max_size=12),
    st.text("ab.*/-:=!(),[]{}^$\\0179 \t\n\x1c\x85٣", max_size=12),
    st.sampled_from(
        [
            "10.0.0.1",
            "10.0.0.0/8",
            "::1%lo",
            "::/0",
            "k8s:a in (b)",
            "a,",
            "/",
            "*",
            "404",
            "4+",
            "tcp",
            "(?i)x",
            "\\C",
        ]
    ),
)
NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: st.integers(0, 2**64 - 1),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_STRING: TEXTS,
}


def messages(kind: Any, skip: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    fields = {}
    for field in kind.DESCRIPTOR.fields:
        if field.name in skip:
            continue
        if field.message_type is not None:
            one = messages(field.message_type._concrete_class)
        else:
            one = NUMBERS[field.cpp_type]
        fields[field.name] = st.lists(one, max_size=2) if field.is_repeated else one
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: kind(**values))


ODD = [
    Flow(), Flow(IP={"source": "not one", "ipVersion": 77}), Flow(verdict=-5, drop_reason_desc=2**31 - 1, Type=300),
    Flow(l4={"TCP": {"source_port": 2**32 - 1}}), Flow(event_type={"type": -1, "sub_type": 2**31 - 1}),
    Flow(IP={"source": "::ffff:1.2.3.4", "destination": "2001:DB8::1"}, source={"identity": 2**32 - 1}),
    Flow(l7={"http": {"url": "http://[::1", "code": 2**32 - 1}}), Flow(node_name="a/b/c/d", source_names=["", "*"]),
]  # fmt: skip


@settings(max_examples=80, deadline=None)
@given(
    st.lists(messages(FlowFilter, skip=("experimental",)), max_size=2),
    st.lists(messages(FlowFilter, skip=("experimental",)), max_size=1),
)
def test_any_filter_on_odd_flows(allowed: list[FlowFilter], denied: list[FlowFilter]) -> None:
    try:
        chosen = compiled(allowed, denied)
    except RequestError:
        return
    mask = chosen.mask(load(ODD))
    assert (mask.dtype, len(mask)) == (np.bool_, len(ODD))


EXPLODING = [
    {"dns_query": ["(a|a|aa)*" * 50 + "b$"]},
    {"source_fqdn": ["*a" * 40 + "b"]},
    {"http_path": ["(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)[^x]$"]},
    {"source_label": [",".join(f"k{n}!=v" for n in range(800))]},
]


@pytest.mark.parametrize("fields", EXPLODING, ids=lambda fields: next(iter(fields)))
def test_what_would_explode_elsewhere(fields: dict[str, Any]) -> None:
    """The texts are such that a backtracking engine would not come to an end; this takes milliseconds."""
    text = "a" * 5000
    flow = Flow(
        l7={"dns": {"query": text}}, source_names=[text], source={"labels": [f"k8s:k{n}=w" for n in range(800)]},
    )  # fmt: skip
    web = Flow(l7={"http": {"url": f"http://h/{text}x"}})
    compiled([FlowFilter(**fields)]).mask(load([flow, web]))


async def test_many_values() -> None:
    world = World(flows=1024, policy_verdicts=False)
    world.observer.take(records(1000))
    addresses = [f"10.{n >> 8}.{n & 255}.1" for n in range(1, 4096)]
    assert await world.flows(whitelist=[FlowFilter(source_ip=addresses)]) == []
    assert len(await world.flows(whitelist=[FlowFilter(source_ip=[*addresses[1:], "10.0.0.1"])])) == 1000
    ports = [str(n) for n in range(4000)]
    assert len(await world.flows(whitelist=[FlowFilter(source_port=ports)] * 200)) == 1000
