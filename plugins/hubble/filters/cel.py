"""Expressions in the Common Expression Language over a flow: `_flow.verdict == Verdict.DROPPED`.

The compiler and the type checker are those of the CEL project (cel-expr-python, a binding of the C++ implementation). It
has no limit for what an evaluation may cost, so that there are two here: how deep loops may be nested, which is looked up in
the checked expression, and how long one evaluation may take.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from axoneme.plugins.hubble.filters.errors import RequestError

if TYPE_CHECKING:
    from axoneme.plugins.hubble.filters.messages import FlowTest

#: Characters of an expression, and of one whose loops are nested.
_LONGEST, _LONGEST_NESTED = 4096, 1024
_DEEPEST: Final = 2
#: Seconds of CPU for one flow, and for each of many on the average.
_SLOWEST, _SLOW = 0.005, 0.0005
_MANY: Final = 16

#: Of `cel.expr.CheckedExpr` the expression, of `cel.expr.Expr` its kinds, and where in those there are expressions again.
_ANY_VALUE, _CHECKED_EXPR, _COMPREHENSION, _STRUCT, _ENTRIES = 2, 4, 9, 8, 2
_INSIDE: Final = {
    5: (1,), 6: (1, 3), 7: (1,), _STRUCT: (3, 4), _COMPREHENSION: (2, 4, 5, 6, 7),
}  # fmt: skip


def expression(text: str) -> FlowTest:
    """A test by an expression. What fails when it is evaluated does not match.

    :raises RequestError: when it does not compile, is no bool or costs too much; the test itself, when it takes too long.
    """
    from cel_expr_python import cel

    if len(text) > _LONGEST:
        raise _error(f"{len(text)} characters; at most {_LONGEST}")
    try:
        compiled = _environment().compile(text)
    except Exception as error:  # noqa: BLE001 - the binding raises RuntimeError and its likes
        raise _error(str(error)) from None
    if (kind := compiled.return_type()) != cel.Type.BOOL:
        raise _error(f'got "{kind.name()}", wanted "bool" result type')
    deep = _depth(compiled.serialize())
    if deep > _DEEPEST or (deep > 1 and len(text) > _LONGEST_NESTED):
        raise _error(
            f"loops are nested {deep} deep in {len(text)} characters; at most {_DEEPEST} in {_LONGEST_NESTED}"
        )

    return _Test(compiled)


class _Test:
    """An expression that keeps count of what it costs."""

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._spent, self._count = 0.0, 0

    def __call__(self, flow: Any) -> bool:
        """:raises RequestError: when it takes too long."""
        begin = time.thread_time()
        try:
            matches = self._compiled.eval(data={"_flow": flow}).value() is True
        except Exception:  # noqa: BLE001 - an error while it is evaluated is no match
            matches = False
        took = time.thread_time() - begin
        self._spent, self._count = self._spent + took, self._count + 1
        if took > _SLOWEST or (self._count > _MANY and self._spent > self._count * _SLOW):
            raise RequestError(
                f"the CEL expression takes too long: {took * 1000:.1f} ms for a flow,"
                f" {self._spent / self._count * 1000:.1f} ms on the average"
            )
        return matches


def _error(text: str) -> RequestError:
    return RequestError(f"error compiling CEL expression: {text}")


@cache
def _environment() -> Any:
    from cel_expr_python import cel
    from google.protobuf import descriptor_pool

    from axoneme.plugins.hubble.proto import flow_pb2  # noqa: F401 - so that the pool has the type

    pool = descriptor_pool.Default()
    return cel.NewEnv(pool, variables={"_flow": cel.Type("flow.Flow")}, container="flow")


def _depth(serialized: bytes) -> int:
    """How deep comprehensions (`all`, `exists`, `map`, `filter`) are nested in a `cel.expr.CheckedExpr`, inside an Any."""
    checked = b"".join(_parts(serialized, _ANY_VALUE))
    return max((_nested(part) for part in _parts(checked, _CHECKED_EXPR)), default=0)


def _nested(expr: bytes) -> int:
    deepest = 0
    for kind, numbers in _INSIDE.items():
        for part in _parts(expr, kind):
            holders = list(_parts(part, _ENTRIES)) if kind == _STRUCT else [part]
            inner = [
                _nested(below) for each in holders for number in numbers for below in _parts(each, number)
            ]
            deepest = max(deepest, max(inner, default=0) + (kind == _COMPREHENSION))
    return deepest


def _parts(message: bytes, wanted: int) -> Iterator[bytes]:
    """The values of the length-delimited fields of this number."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        match tag & 7:
            case 0:
                _, place = _varint(message, place)
            case 1:
                place += 8
            case 5:
                place += 4
            case _:
                size, place = _varint(message, place)
                if tag >> 3 == wanted:
                    yield message[place : place + size]
                place += size


def _varint(message: bytes, place: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = message[place]
        number |= (byte & 0x7F) << shift
        place, shift = place + 1, shift + 7
        if byte < 0x80:
            return number, place
