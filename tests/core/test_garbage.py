"""The search for cycles pauses, and goes on afterwards whatever happens."""

from __future__ import annotations

import gc
import weakref

import pytest

from axoneme.core.garbage import collected, uncollected


def test_it_pauses_and_goes_on() -> None:
    assert gc.isenabled()
    with uncollected():
        assert not gc.isenabled()
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled(), "who paused it lets it go on"
    assert gc.isenabled()
    with uncollected(False):
        assert gc.isenabled()
    with pytest.raises(ValueError, match="x"), uncollected():
        raise ValueError("x")
    assert gc.isenabled()


def test_what_was_made_is_not_walked_again_until_somebody_asks() -> None:
    class Node:
        def __init__(self) -> None:
            self.myself = self

    with uncollected():
        node = Node()
    seen = weakref.ref(node)
    del node
    gc.collect()
    assert seen() is not None
    collected()
    assert seen() is None
    gc.unfreeze()
