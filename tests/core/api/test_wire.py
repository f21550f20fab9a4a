from __future__ import annotations

import ipaddress
from pathlib import Path
from types import MappingProxyType

import attrs
import numpy as np
import pytest

from axoneme.core.api.wire import (
    RequestError,
    decode,
    encode,
    encode_error,
    error_from_json,
    error_to_json,
)
from axoneme.core.errors import AxonemeError, PluginError, VerifierError, Where
from axoneme.core.records import Level


@attrs.frozen
class Row:
    name: str
    level: Level
    address: ipaddress.IPv4Address


def test_records_addresses_and_numpy_become_plain() -> None:
    value = {
        "row": Row("a", Level.OK, ipaddress.IPv4Address("10.0.0.1")),
        "set": frozenset({2, 1}),
        "number": np.uint64(2**63),
        "array": np.array([1, 2], np.uint8),
        "path": Path("/x"),
        "mapping": MappingProxyType({"a": 1}),
    }
    assert decode(encode(value)) == {
        "row": {"name": "a", "level": "ok", "address": "10.0.0.1"},
        "set": [1, 2],
        "number": 2**63,
        "array": [1, 2],
        "path": "/x",
        "mapping": {"a": 1},
    }


def test_an_empty_request_is_one_without_arguments() -> None:
    assert decode(b"") == {}


def test_errors_keep_class_message_where_and_hint() -> None:
    for error in (
        PluginError("a", where=Where("f", 1), hint="h"),
        RequestError("b"),
        AxonemeError("c", hint="x"),
    ):
        back = error_from_json(decode(encode(error_to_json(error))))
        assert type(back) is type(error)
        assert (back.message, back.where, back.hint) == (error.message, error.where, error.hint)


def test_an_error_of_a_plugins_own_class_is_still_an_axoneme_error() -> None:
    class Own(PluginError):
        pass

    assert type(error_from_json(error_to_json(Own("x")))) is AxonemeError
    assert type(error_from_json({"type": "Where", "message": "x"})) is AxonemeError


@pytest.mark.parametrize("size", [10, 5_000, 1_000_000])
def test_of_a_long_log_the_end_arrives(size: int) -> None:
    """Escaped characters count as what they become."""
    error = VerifierError("rejected", log='"\n' * size + "the reason", where=Where("a.c", 7))
    encoded = encode_error(error, 6000)
    assert len(encoded) <= 6000
    again = error_from_json(decode(encoded))
    assert isinstance(again, VerifierError)
    assert (again.message, again.where) == ("rejected", error.where)
    assert again.log.endswith("the reason")


def test_a_long_message_is_cut() -> None:
    again = error_from_json(decode(encode_error(AxonemeError("x" * 9000, hint="y"), 6000)))
    assert again.message.startswith("xxx")
    assert again.hint == "y"
