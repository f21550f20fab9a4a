"""What reads very many backends fast says the same as what reads any."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from axoneme.core.errors import ResourceError
from axoneme.core.state.document import At, Document
from axoneme.core.state.parsing import Fields
from axoneme.plugins.lb.model import Endpoint
from axoneme.plugins.lb.parse_slice import _endpoint, _usual
from axoneme.plugins.lb.values import address

ADDRESSES = (
    *(
        "10.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "0.0.0.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "127.0.0.1",
    ),
    *(
        "10.0.0.01",
        "10.0.0",
        "10.1",
        "1.2.3.4.5",
        "256.0.0.1",
        "0x7f.0.0.1",
        " 10.0.0.1",
        "10.0.0.1 ",
        "10.0.0.1/32",
    ),
    *(
        "",
        "x",
        "::",
        "::1",
        "fd00::1",
        "fe80::1%eth0",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:0.0.0.0",
        "1::2::3",
    ),
    *("10.0.0.1\x00", "\u0661.0.0.1", "10.0.0.\n1"),
)
texts = st.sampled_from(["", "a", "Pod", "Node", "eu-1"])
odd = st.none() | st.booleans() | st.integers(0, 1) | texts | st.just([]) | st.just({})
flags = st.dictionaries(st.sampled_from(["ready", "serving", "terminating"]), st.booleans() | odd)
names = ["kind", "name", "namespace", "uid", "apiVersion"]
endpoints = st.fixed_dictionaries(
    {},
    optional={
        "addresses": st.lists(st.sampled_from(ADDRESSES), max_size=2) | st.just(["10.0.0.1"]) | odd,
        "conditions": flags | odd | st.dictionaries(texts, odd, max_size=1),
        "nodeName": texts | odd,
        "zone": texts | odd,
        "hostname": texts,
        "hints": st.just({"forZones": [{"name": "eu-1"}]}),
        "targetRef": st.dictionaries(st.sampled_from(names), texts) | odd,
        "odd": odd,
    },
)


def thorough(family: int, value: dict[str, Any]) -> Endpoint | None:
    fields = Fields(Document("s.json", value, {}, At(0, 0)))
    try:
        made = _endpoint(family, fields)
        fields.finish()
    except ResourceError:
        return None
    return made


@settings(max_examples=600)
@given(endpoints, st.sampled_from([4, 6]))
def test_endpoints(value: dict[str, Any], family: int) -> None:
    found = _usual(family, value)
    if found is not None:
        assert repr(found) == repr(thorough(family, value))


def test_the_usual_is_usual() -> None:
    value = {
        "addresses": ["10.0.0.1"],
        "conditions": {"ready": False, "serving": True, "terminating": True},
        "nodeName": "n1",
        "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "shop"},
    }
    made = _usual(4, value)
    assert made == thorough(4, value)
    assert made is not None
    assert (made.target, made.ready, made.terminating) == ("shop/web-1", False, True)
    assert _usual(4, {"addresses": ["10.0.0.1"]}) == thorough(4, {"addresses": ["10.0.0.1"]})


def test_addresses() -> None:
    for text in ADDRESSES:
        try:
            found: Any = address(text)
        except ValueError:
            found = None
        assert found == strictly(text), text


def strictly(text: str) -> Any:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if found.version == 6:
        if found.scope_id is not None:
            return None
        found = found.ipv4_mapped or found
    return None if found.is_multicast or found.is_unspecified else found
