"""Label selectors, in the corners that the vectors leave out."""

from __future__ import annotations

import pytest

from axoneme.plugins.hubble.filters.errors import RequestError
from axoneme.plugins.hubble.filters.labels import labels, selector

GIVEN = [
    "k8s:app=web",
    "k8s:tier=2",
    "reserved:host",
    "cidr:10.1.2.0/24",
    "cidr:2001-db8--/32",
    "container:app=other",
]


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True), ("  ", True), ("app", True), ("!app", False), ("! absent", True), ("app=web", True),
        ("app==web", True), ("app = web , tier = 2", True), ("app=web,tier=3", False), ("absent=", False),
        ("reserved:host=", True), ("app!=web", False), ("absent!=web", True), ("app in(web)", True),
        ("app in (a, web)", True), ("app notin (web)", False), ("absent notin (web)", True), ("absent in (web)", False),
        ("container:app=other", True), ("container:app=web", False), ("any:app", False), ("tier>1", True),
        ("tier < 2", False), ("app > 1", False), ("cidr:10.0.0.0/8", True), ("cidr:10.1.2.0/25", False),
        ("cidr:2001-db8--/16", True), ("cidr:11.0.0.0/8", False), ("host", True), ("!host,app", False),
        ("app in (,web)", True), ("in in (x)", False), ("notin", False),
    ],
)  # fmt: skip
def test_holds(text: str, holds: bool) -> None:
    assert selector(text, "source label")(labels(GIVEN)) is holds


@pytest.mark.parametrize(
    "text",
    [
        "a=b=c", "a,", ",a", "a in", "a in (", "a in (b", "a in b", "=b", "a=b c", "a b", "!", "!a=b", "a=b,,c=d",
        "a>x", "a>", "a in (b))", "a=" + "x" * 64, "a=-b", "-a=b", "a/b/c=d", "a=(b)", "a!b", "k8s:=x",
    ],
)  # fmt: skip
def test_is_none(text: str) -> None:
    with pytest.raises(RequestError, match="invalid source label filter"):
        selector(text, "source label")
