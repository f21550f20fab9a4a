"""Points in time as people write them on the command line."""

from __future__ import annotations

import datetime
import re
import time
from collections.abc import Callable
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from axoneme.plugins.hubble.cli.flags import UsageError

_UNITS: Final = {
    "ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9,
}  # fmt: skip
_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_ZONE: Final = r"(?P<zone>Z|[+-]\d\d:\d\d)"
_DATE: Final = r"(?P<date>\d{4}-\d\d-\d\d)"
#: A date; a date with the hour, the minute, or the second with any fraction, and then with a zone.
_LAYOUTS: Final = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        _DATE,
        rf"{_DATE}T(?P<clock>\d\d){_ZONE}",
        rf"{_DATE}T(?P<clock>\d\d:\d\d){_ZONE}",
        rf"{_DATE}T(?P<clock>\d\d:\d\d:\d\d)(?:[.,](?P<fraction>\d{{1,9}})\d*)?{_ZONE}",
    )
)
_RFC1123Z: Final = "%a, %d %b %Y %H:%M:%S %z"


def duration(text: str) -> int:
    """Nanoseconds of a duration in Go's notation, such as `1h43m` or `1.5s`. Raises `UsageError`."""
    sign, rest = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if rest == "0":
        return 0
    parts = _PART.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise UsageError(f"{text!r} is no duration", hint="it can be 30s, 5m, 1h30m")
    return sign * sum(_nanoseconds(number, unit) for number, unit in parts)


def _nanoseconds(number: str, unit: str) -> int:
    """Exact, as floats would not be."""
    whole, _, fraction = number.partition(".")
    scale, parts = _UNITS[unit], int(10 ** len(fraction))
    return int(whole or "0") * scale + int(fraction or "0") * scale // parts


def point(text: str, now: Callable[[], int] = time.time_ns) -> Timestamp:
    """The time that is meant: so long ago, or a date in one of the known layouts. Raises `UsageError`."""
    stamp = Timestamp()
    try:
        stamp.FromNanoseconds(now() - duration(text))
        return stamp
    except (UsageError, ValueError):
        pass
    try:
        stamp.FromNanoseconds(_absolute(text))
    except ValueError:
        hint = "it can be 5m (ago), 2026-01-31, 2026-01-31T15:04:05Z or 2026-01-31T15:04:05+01:00"
        raise UsageError(f"failed to convert {text} to time", hint=hint) from None
    return stamp


def _absolute(text: str) -> int:
    """Nanoseconds since 1970. Raises `ValueError`."""
    for layout in _LAYOUTS:
        if found := layout.fullmatch(text):
            parts = found.groupdict()
            clock = (parts.get("clock") or "00") + ":00:00"
            zone = "+00:00" if parts.get("zone") in (None, "Z") else parts["zone"]
            moment = datetime.datetime.fromisoformat(f"{parts['date']}T{clock[:8]}{zone}")
            return int(moment.timestamp()) * 10**9 + int((parts.get("fraction") or "").ljust(9, "0"))
    return int(datetime.datetime.strptime(text, _RFC1123Z).timestamp()) * 10**9
