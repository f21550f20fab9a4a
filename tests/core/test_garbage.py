"""The search for cycles pauses, and goes on afterwards whatever happens."""

from __future__ import annotations

import gc

import pytest

from axoneme.core.garbage import uncollected


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
