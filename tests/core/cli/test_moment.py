from __future__ import annotations

import time

import click
import pytest

from axoneme.core.cli.moment import Moment


def test_moments() -> None:
    moment = Moment()
    assert [moment.convert(text, None, None) for text in ("90s", "30m", "1h", "7d", "0.5h")] == [
        90,
        1800,
        3600,
        604800,
        1800,
    ]
    assert abs(moment.convert("2020-01-01T00:00:00Z", None, None) - (time.time() - 1577836800)) < 5
    assert moment.convert("2020-01-01", None, None) > 0
    for text in ("", "h", "-1h", "soon", "2999-01-01", "\uff11h", "1e9d"):
        with pytest.raises(click.BadParameter):
            moment.convert(text, None, None)
