"""The small languages of filters: regular expressions, DNS names and node names with `*`, NAMESPACE/NAME."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from axoneme.plugins.hubble.filters.errors import RequestError

#: A test of one text.
Test = Callable[[str], bool]

_LONGEST: Final = 4096
#: What may stand in a name, and so what `*` stands for.
_NAME: Final = "[-.0-9a-z]"
_FOREIGN: Final = re.compile(r"[^-.0-9a-z_*]")


def regular(pattern: str, what: str) -> Test:
    """A test by a regular expression (RE2), which may match anywhere. RE2 takes linear time, whatever the pattern is.

    :param what: the kind of filter, for the error.
    :raises RequestError: when it is none, or too large.
    """
    import re2

    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    if len(pattern) > _LONGEST:
        raise RequestError(
            f"invalid {what} filter: a regular expression of {len(pattern)} characters; at most {_LONGEST}"
        )
    try:
        compiled: Any = re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise RequestError(f"invalid {what} filter: failed to compile regexp: {text}") from None
    return lambda text: compiled.search(text) is not None


def glob(pattern: str, what: str) -> Test:
    """A test by a name with `*`, lower case, anchored at both ends; an empty pattern matches nothing but the empty name."""
    cleaned = pattern.strip().lower().removesuffix(".")
    if foreign := _FOREIGN.search(cleaned):
        raise RequestError(
            f"invalid {what} filter: {foreign[0]!r}: invalid character in the pattern {pattern!r}"
        )
    return regular("^" + "".join(_piece(char) for char in cleaned) + "$", what)


def _piece(char: str) -> str:
    return f"{_NAME}*" if char == "*" else re.escape(char)


def node(pattern: str) -> Test:
    """A test of a node's name: `[CLUSTER/]NODE`, an empty part being any."""
    if pattern.count("/") > 1:
        raise RequestError(f"invalid node name filter: too many slashes in the pattern {pattern!r}")
    cluster, _, name = pattern.rpartition("/")
    if not pattern:
        raise RequestError("invalid node name filter: the pattern must not be empty")
    clusters = glob(cluster or "*", "node name")
    names = glob(name or "*", "node name")

    def test(full: str) -> bool:
        its_cluster, has_cluster, its_name = full.rpartition("/")
        its_cluster = its_cluster if has_cluster else "default"
        return (not cluster or clusters(its_cluster)) and (not name or names(its_name))

    return test


def namespaced(pattern: str) -> Callable[[str, str], bool]:
    """A test of (namespace, name): `NAMESPACE/PREFIX`, either may be empty; without a slash the namespace is `default`."""
    if not pattern:
        raise RequestError("invalid filter, name must not be empty")
    namespace, slash, prefix = pattern.partition("/")
    if not slash:
        namespace, prefix = "default", namespace
    if not namespace and not prefix:
        return lambda its_namespace, name: bool(its_namespace or name)

    def test(its_namespace: str, name: str) -> bool:
        return (not namespace or its_namespace == namespace) and name.startswith(prefix)

    return test


def status_code(pattern: str) -> Callable[[int], bool]:
    """A test of an HTTP status: three digits, or one or two of them and a `+`."""
    if re.fullmatch(r"[1-5][0-9]?\+", pattern):
        prefix = pattern[:-1]
        return lambda code: str(code).startswith(prefix) and code >= 100
    if re.fullmatch(r"[1-5][0-9][0-9]", pattern):
        return lambda code: code == int(pattern)
    raise RequestError(
        f"invalid http status code filter: {pattern!r} is no status such as 404 and no prefix such as 4+"
    )
