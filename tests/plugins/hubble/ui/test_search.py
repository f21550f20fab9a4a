"""The filter's text: what it means, and what it may cost."""

from __future__ import annotations

import contextlib

import pytest
from google.protobuf import json_format
from hypothesis import given
from hypothesis import strategies as st

from axoneme.plugins.hubble.filters.compiler import compiled
from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.ui.search import KEYS, SearchError, filters


def plain(text: str) -> tuple[list[object], list[object]]:
    allowed, denied = filters(text)
    return [json_format.MessageToDict(f, preserving_proto_field_name=True) for f in allowed], [
        json_format.MessageToDict(f, preserving_proto_field_name=True) for f in denied
    ]


@pytest.mark.parametrize(
    ("text", "allowed", "denied"),
    [
        ("", [], []),
        ("web", [{"source_pod": ["/web"]}, {"destination_pod": ["/web"]}], []),
        ("from:shop/web port:443", [{"source_pod": ["shop/web"], "destination_port": ["443"]}], []),
        ("verdict:dropped verdict:audit", [{"verdict": ["DROPPED", "AUDIT"]}], []),
        ("10.0.0.0/8", [{"source_ip": ["10.0.0.0/8"]}, {"destination_ip": ["10.0.0.0/8"]}], []),
        ("fd00::1", [{"source_ip": ["fd00::1"]}, {"destination_ip": ["fd00::1"]}], []),
        ("-ns:kube-system", [], [{"source_pod": ["kube-system/"]}, {"destination_pod": ["kube-system/"]}]),
        ("reason:policy-denied", [{"drop_reason_desc": ["POLICY_DENIED"]}], []),
        ('label:"app in (a, b)"', [{"source_label": ["app in (a, b)"]}, {"destination_label": ["app in (a, b)"]}], []),
        ("proto:TCP method:get", [{"protocol": ["tcp"], "http_method": ["GET"]}], []),
    ],
)  # fmt: skip
def test_meaning(text: str, allowed: list[object], denied: list[object]) -> None:
    assert plain(text) == (allowed, denied)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("verdct:dropped", "there is no key 'verdct'"),
        ("port:", "port: needs a value"),
        ("verdict:maybe", "verdict:maybe is unknown"),
        ('label:"a', "a quotation does not end"),
        ("a " * 300, "longer than"),
        ("a " * 30, "more than 24 words"),
        ("pod:a ip:10.0.0.1 label:b name:c identity:1 ns:d", "too many words"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(SearchError, match=message):
        filters(text)


@given(st.text(alphabet=st.sampled_from("ab:-/.*\"' 0123456789verdictpo"), max_size=60))
def test_any_text_is_a_filter_or_an_explained_mistake(text: str) -> None:
    with contextlib.suppress(SearchError, RequestError):
        compiled(*filters(text))


def test_every_key_names_fields_of_the_api() -> None:
    from axoneme.plugins.hubble.proto.flow_pb2 import FlowFilter

    fields = set(FlowFilter.DESCRIPTOR.fields_by_name)
    assert {field for key in KEYS.values() for field in key.fields} <= fields
