"""Layouts: one declaration, and C, bytes and numpy agree on it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from axoneme.core.datapath.layout import (
    Array,
    LayoutError,
    Scalar,
    Struct,
    array,
    be16,
    be32,
    be64,
    c_definitions,
    s8,
    s16,
    s32,
    s64,
    u8,
    u16,
    u32,
    u64,
)

SCALARS = (u8, u16, u32, u64, s8, s16, s32, s64, be16, be32, be64)

TUPLE = Struct(
    "tuple4",
    {"src": be32, "dst": be32, "sport": be16, "dport": be16, "protocol": u8, "pad": array(u8, 3)},
    doc="A connection's tuple.",
)


def padded(name: str, fields: dict[str, Any]) -> Struct:
    """The struct with its implicit padding declared."""
    full: dict[str, Any] = {}
    end = 0

    def fill(missing: int) -> None:
        if missing:
            full[f"pad{len(full)}"] = array(u8, missing)

    for field, kind in fields.items():
        fill(-end % kind.alignment)
        end += -end % kind.alignment + kind.size
        full[field] = kind
    fill(-end % max(kind.alignment for kind in full.values()))
    return Struct(name, full)


def structs(kinds: st.SearchStrategy[Any], prefix: str) -> st.SearchStrategy[Struct]:
    fields = st.lists(kinds, min_size=1, max_size=6)
    numbers = st.integers(0, 10**9)
    return st.builds(
        lambda number, listed: padded(f"{prefix}{number}", {f"f{i}": k for i, k in enumerate(listed)}),
        numbers,
        fields,
    )


FLAT = st.sampled_from(SCALARS)
KINDS = FLAT | st.builds(array, FLAT, st.integers(1, 9))
NESTED = KINDS | structs(KINDS, "inner") | st.builds(array, structs(FLAT, "element"), st.integers(1, 3))


def values_of(kind: Any) -> st.SearchStrategy[Any]:
    if isinstance(kind, Struct):
        return st.fixed_dictionaries({name: values_of(inner) for name, inner in kind.fields.items()})
    if isinstance(kind, Array):
        return st.lists(values_of(kind.element), min_size=kind.length, max_size=kind.length)
    limits = np.iinfo(kind.dtype)
    return st.integers(int(limits.min), int(limits.max))


def plain(value: Any) -> Any:
    """A numpy value as Python's own."""
    if isinstance(value, np.void):
        assert value.dtype.names
        return {name: plain(value[name]) for name in value.dtype.names}
    if isinstance(value, np.ndarray):
        return [plain(element) for element in value]
    return int(value)


@given(st.data())
def test_what_is_packed_is_what_is_unpacked(data: st.DataObject) -> None:
    struct = data.draw(structs(NESTED, "outer"))
    values = data.draw(values_of(struct))
    packed = struct.pack(**values)
    assert len(packed) == struct.size == struct.dtype.itemsize
    assert plain(struct.unpack(packed)) == values
    assert struct.pack(**{name: struct.unpack(packed)[name] for name in struct.fields}) == packed


def test_c_has_the_same_sizes_and_offsets(compiler: str, tmp_path: Path) -> None:
    inner = Struct("inner", {"a": u8, "b": s8, "c": be16})
    outer = Struct(
        "outer",
        {"x": u64, "y": array(inner, 3), "z": be32, "addresses": array(array(u8, 16), 2), "tail": s64},
    )
    names = {
        "u8": "unsigned char",
        "u16": "unsigned short",
        "u32": "unsigned int",
        "u64": "unsigned long long",
    }
    names |= {"s8": "signed char", "s16": "short", "s32": "int", "s64": "long long"}
    names |= {"__be16": names["u16"], "__be32": names["u32"], "__be64": names["u64"]}
    text = "#include <stddef.h>\n" + "".join(f"typedef {of} {name};\n" for name, of in names.items())
    text += c_definitions([outer, TUPLE])
    for struct in (inner, outer, TUPLE):
        for field in struct.fields:
            offset = struct.dtype.fields[field][1]  # type: ignore[index]
            text += f'_Static_assert(offsetof(struct {struct.name}, {field}) == {offset}, "{field}");\n'
    (tmp_path / "t.c").write_text(text)
    subprocess.run([compiler, "-std=gnu11", "-Wpadded", "-Werror", "-c", "t.c"], cwd=tmp_path, check=True)


def test_network_order_is_in_memory_only() -> None:
    assert TUPLE.pack(dport=443, src=0x0A000001)[:12] == bytes([10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 187])
    assert TUPLE.unpack(TUPLE.pack(dport=443))["dport"] == 443


def test_arrays_of_bytes_take_bytes() -> None:
    address = Struct("address", {"v6": array(u8, 16)})
    assert address.pack(v6=bytes(range(16))) == bytes(range(16))
    with pytest.raises(LayoutError, match="16 bytes are needed, not 4"):
        address.pack(v6=b"1234")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a": u8, "b": u32}, "3 bytes of implicit padding before 'b'"),
        ({"a": u64, "b": u16}, "6 bytes of implicit padding at the end"),
        ({"a-b": u8}, "not a C identifier"),
        ({}, "no fields"),
    ],
)
def test_no_implicit_layout(fields: dict[str, Scalar], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        Struct("bad", fields)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"protocol": 256}, "does not fit protocol"),
        ({"protocol": -1}, "does not fit protocol"),
        ({"protocol": "6"}, "does not fit protocol"),
        ({"protocol": 1.5}, "does not fit protocol"),
        ({"pad": [1]}, "3 elements are needed"),
        ({"proto": 6}, "no field 'proto'"),
    ],
)
def test_values_that_do_not_fit(values: dict[str, Any], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        TUPLE.pack(**values)


@pytest.mark.parametrize("value", [-1, 1 << 16, "80", 1.5, None])
def test_scalars_that_do_not_fit(value: Any) -> None:
    with pytest.raises(LayoutError, match="is not a u16"):
        u16.pack(value)


def test_digest_tells_names_types_and_order_apart() -> None:
    inner, renamed = Struct("inner", {"a": u32}), Struct("inner", {"b": u32})
    variants = [
        Struct("s", {"a": u32, "b": u32}),
        Struct("s", {"b": u32, "a": u32}),
        Struct("s", {"a": u32, "b": be32}),
        Struct("t", {"a": u32, "b": u32}),
        Struct("s", {"a": array(u32, 2)}),
        Struct("s", {"a": inner}),
        Struct("s", {"a": renamed}),
    ]
    assert len({struct.digest for struct in variants}) == len(variants) == len(set(variants))
    assert Struct("s", {"a": u32, "b": u32}, doc="other words") == variants[0]


def test_definitions_come_once_and_in_order() -> None:
    inner = Struct("inner", {"a": u32})
    outer = Struct("outer", {"x": inner, "y": array(inner, 2)})
    text = c_definitions([outer, inner, u32, None])
    assert text.count("struct inner {") == text.count("struct outer {") == 1
    assert text.index("struct inner {") < text.index("struct outer {")


def test_two_structs_of_one_name_are_an_error() -> None:
    with pytest.raises(LayoutError, match="two different structs are called inner"):
        c_definitions([Struct("inner", {"a": u32}), Struct("inner", {"b": u32})])


def test_unpack_wants_the_exact_size() -> None:
    with pytest.raises(LayoutError, match="has 16 bytes, not 15"):
        TUPLE.unpack(bytes(15))


def test_arrays_of_records() -> None:
    made = TUPLE.array([{"src": 1}, {"src": 2}])
    assert made["src"].tolist() == [1, 2]
    assert len(TUPLE.array(5)) == 5
