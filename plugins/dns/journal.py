"""The names on the disk: a line for each address that is learnt or forgotten, so that an agent that is killed loses nothing.

A line is written before the answer reaches the client, without waiting for the disk: what only a power cut loses is lost with
the kernel's tables anyway. When lines have become many, the file is replaced by one with what is known now.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from axoneme.core import logs
from axoneme.core.state.persist import write_atomic
from axoneme.plugins.dns.cache import Entry, NameCache, Pair

log = logs.get(__name__)

#: So many lines more than twice the entries before the file is written anew.
SLACK = 1000
#: A longer expiry is written when it is longer by so much, in seconds, or by the answer's TTL.
REFRESH = 60


class Journal:
    """:param path: its folder exists. Raises `OSError` when it cannot be opened."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines = 0
        self._file = -1
        #: Why the last write failed, or empty.
        self.problem = ""

    def load(self, cache: NameCache, now: float, grace: float) -> None:
        """Fills the cache with what is not over, and begins a new file. A line that was cut off or is wrong is skipped."""
        wrong = 0
        for line in self._read():
            try:
                self._take(json.loads(line), cache)
            except (ValueError, TypeError, KeyError):
                wrong += 1
        if wrong:
            log.warning("dns_journal_lines_skipped", file=str(self._path), lines=wrong)
        cache.expire(now, grace, lambda: ())
        self.compact(cache)

    def _read(self) -> list[bytes]:
        try:
            return self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []

    def _take(self, value: Any, cache: NameCache) -> None:
        name, address = str(value["name"]), ip_address(value["address"])
        if "expires" not in value:
            cache.remove(name, address)
            return
        expires, asked = float(value["expires"]), value.get("endpoints", {})
        endpoints = {int(number): float(when) for number, when in asked.items()}
        cache.restore(name, address, Entry(int(value["ttl"]), expires, endpoints, expires))

    def learned(self, cache: NameCache, pairs: Iterable[Pair]) -> None:
        """Writes those of these pairs that are new or known for much longer than the file says."""
        lines = []
        for pair in pairs:
            entry = cache.get(*pair)
            if entry is None:
                continue
            if not entry.written or entry.expires - entry.written >= min(REFRESH, max(entry.ttl, 1)):
                lines.append(_line(pair, entry))
                entry.written = entry.expires
        self._append(lines)
        if self._lines > 2 * len(cache) + SLACK:
            self.compact(cache)

    def forgotten(self, pairs: Iterable[Pair]) -> None:
        self._append([json.dumps({"name": name, "address": str(address)}) for name, address in pairs])

    def _append(self, lines: list[str]) -> None:
        if not lines:
            return
        try:
            os.write(self._file, "".join(f"{line}\n" for line in lines).encode())
            self._lines += len(lines)
            self.problem = ""
        except OSError as error:
            self._failed(error)

    def compact(self, cache: NameCache) -> None:
        """Replaces the file by one with what is known, in one step."""
        lines = list(_all(cache))
        try:
            write_atomic(self._path, "".join(f"{line}\n" for line in lines).encode())
            self.close()
            self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
            self._lines, self.problem = len(lines), ""
        except (OSError, ValueError) as error:
            self._failed(error)
        except Exception as error:  # noqa: BLE001 - PersistError and its like: the disk must not stop the answers
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        if not self.problem:
            log.error("dns_journal_not_written", file=str(self._path), error=error)
        self.problem = f"names cannot be written down: {error}"

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _all(cache: NameCache) -> Iterator[str]:
    for pair, entry in cache.items():
        entry.written = entry.expires
        yield _line(pair, entry)


def _line(pair: Pair, entry: Entry) -> str:
    value = {
        "name": pair[0],
        "address": str(pair[1]),
        "ttl": entry.ttl,
        "expires": entry.expires,
        "endpoints": {str(number): when for number, when in entry.endpoints.items()},
    }
    return json.dumps(value)
