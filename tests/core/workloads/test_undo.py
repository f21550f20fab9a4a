"""Steps are taken back in reverse order, all of them."""

from __future__ import annotations

import pytest

from axoneme.core.workloads.undo import Undo


async def test_reverse_order_once(caplog: pytest.LogCaptureFixture) -> None:
    undo, seen = Undo(), []

    async def later() -> None:
        seen.append("second")

    def broken() -> None:
        raise OSError("no")

    undo.add("first", lambda: seen.append("first"))
    undo.add("second", later)
    undo.add("broken", broken)
    undo.add("third", lambda: seen.append("third"))
    await undo.run()
    assert seen == ["third", "second", "first"]
    assert "could not undo" in caplog.text
    await undo.run()
    assert len(seen) == 3
