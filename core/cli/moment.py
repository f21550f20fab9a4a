"""Points in time as people write them on a command line."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any, Final

import click

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Moment(click.ParamType[float]):
    """How long ago, in seconds: `90s`, `30m`, `1h`, `7d`, or a time such as 2026-01-31T12:00:00Z."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        if found := re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", value.strip(), re.ASCII):
            return float(found[1]) * _UNITS[found[2]]
        try:
            moment = datetime.fromisoformat(value.strip())
        except ValueError:
            self.fail(f"{value!r} is no time; for example 1h, 30m, 7d or 2026-01-31T12:00:00Z", param, ctx)
        ago = time.time() - (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        return ago if ago > 0 else self.fail(f"{value} lies in the future", param, ctx)
