from __future__ import annotations

import enum
import ipaddress
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.structure import json_schema, nearest, plain, setting, structure


class Color(enum.StrEnum):
    RED = "red"
    BLUE = "blue"


@attrs.frozen(kw_only=True)
class Inner:
    port: int = setting(80, help="a port", minimum=1, maximum=65535)
    name: str = setting("x", help="a name", pattern="[a-z]+")


@attrs.frozen(kw_only=True)
class Outer:
    needed: str
    color: Color = Color.RED
    ratio: float = 0.5
    on: bool = False
    mode: Literal["a", "b"] = "a"
    network: ipaddress.IPv4Network | None = None
    folder: Path = Path("/tmp")
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    named: dict[str, int] = attrs.field(factory=dict)
    free: Any = None


def problems(value: Any) -> list[tuple[Any, str]]:
    return [(problem.path, problem.message) for problem in structure(Outer, value)[1]]


def test_defaults_are_filled_in_and_values_converted() -> None:
    value, wrong = structure(
        Outer,
        {
            "needed": "n",
            "color": "blue",
            "ratio": 1,
            "network": "10.0.0.0/8",
            "many": [{"port": 1}],
            "named": {"a": 1},
        },
    )
    assert wrong == []
    assert value == Outer(
        needed="n",
        color=Color.BLUE,
        ratio=1.0,
        network=ipaddress.IPv4Network("10.0.0.0/8"),
        many=(Inner(port=1),),
        named={"a": 1},
    )


def test_all_problems_come_at_once_each_with_its_path() -> None:
    found = dict(
        problems({"inner": {"port": 0, "nmae": 1}, "many": [{}, {"port": "5"}], "on": 1, "mode": "c"})
    )
    assert found[("needed",)] == "the key 'needed' is missing"
    assert found[("inner", "port")] == "0 is beyond the minimum 1"
    assert found[("inner", "nmae")] == "unknown key 'nmae'"
    assert found[("many", 1, "port")] == "expected a whole number, found '5'"
    assert found[("on",)] == "expected true or false, found 1"
    assert found[("mode",)] == "'c' is not possible here"


@pytest.mark.parametrize("value", [[], "text", 5])
def test_a_record_is_a_mapping(value: Any) -> None:
    assert "expected a mapping" in problems(value)[0][1]


def test_an_unknown_key_names_the_nearest() -> None:
    assert structure(Inner, {"prot": 5})[1][0].hint == "did you mean port?"
    assert nearest("zzz", ["a", "b"]) == "known are: a, b"


def test_true_is_no_number_and_null_only_where_allowed() -> None:
    assert problems({"needed": "n", "inner": {"port": True}})[0][0] == ("inner", "port")
    assert problems({"needed": "n", "network": None}) == []
    assert problems({"needed": None})[0][1] == "expected text, found nothing"


def test_a_network_with_host_bits_says_so() -> None:
    assert "has host bits set" in problems({"needed": "n", "network": "10.0.0.1/8"})[0][1]


def test_the_schema_says_what_structure_takes() -> None:
    schema = json_schema(Outer)
    assert schema["required"] == ["needed"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["color"] == {"enum": ["red", "blue"], "default": "red"}
    port = schema["properties"]["inner"]["properties"]["port"]
    assert port == {"type": "integer", "minimum": 1, "maximum": 65535, "description": "a port", "default": 80}
    assert schema["properties"]["network"] == {
        "anyOf": [{"type": "string"}, {"type": "null"}],
        "default": None,
    }


outers = st.builds(
    Outer,
    needed=st.text(),
    color=st.sampled_from(Color),
    ratio=st.floats(allow_nan=False),
    on=st.booleans(),
    network=st.none() | st.ip_addresses(v=4).map(ipaddress.IPv4Network),
    many=st.lists(st.builds(Inner, port=st.integers(1, 65535), name=st.just("n"))).map(tuple),
    named=st.dictionaries(st.text(), st.integers()),
)


@given(outers)
def test_what_is_made_plain_is_structured_back(value: Outer) -> None:
    assert structure(Outer, plain(value)) == (value, [])
