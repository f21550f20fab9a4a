"""Expressions in the Common Expression Language over a flow: `_flow.verdict == Verdict.DROPPED`.

The compiler and the type checker are those of the CEL project (cel-expr-python, a binding of the C++ implementation).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from axoneme.plugins.hubble.filters.errors import RequestError

if TYPE_CHECKING:
    from axoneme.plugins.hubble.filters.messages import FlowTest

_LONGEST: Final = 4096


def expression(text: str) -> FlowTest:
    """A test by an expression. What fails when it is evaluated does not match.

    :raises RequestError: when it does not compile, or is no bool.
    """
    from cel_expr_python import cel

    if len(text) > _LONGEST:
        raise RequestError(f"error compiling CEL expression: {len(text)} characters; at most {_LONGEST}")
    try:
        compiled = _environment().compile(text)
    except Exception as error:  # noqa: BLE001 - the binding raises RuntimeError and its likes
        raise RequestError(f"error compiling CEL expression: {error}") from None
    if (kind := compiled.return_type()) != cel.Type.BOOL:
        raise RequestError(f'error compiling CEL expression: got "{kind.name()}", wanted "bool" result type')

    def test(flow: Any) -> bool:
        try:
            return compiled.eval(data={"_flow": flow}).value() is True
        except Exception:  # noqa: BLE001 - an error while it is evaluated is no match
            return False

    return test


@cache
def _environment() -> Any:
    from cel_expr_python import cel
    from google.protobuf import descriptor_pool

    from axoneme.plugins.hubble.proto import flow_pb2  # noqa: F401 - so that the pool has the type

    pool = descriptor_pool.Default()
    return cel.NewEnv(pool, variables={"_flow": cel.Type("flow.Flow")}, container="flow")
