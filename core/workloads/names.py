"""DNS names behind addresses: what somebody learnt, and which names matter to anybody.

`dns_names` has the addresses that names stand for now; whoever learns them (a DNS proxy) writes the rows, removes those that
are over, and says `mark_initialized` once it has those of its last run. `fqdn_selectors` has the names and patterns that
policies select. Neither writer needs to be there.
"""

from __future__ import annotations

import re
from functools import lru_cache

from attrs import frozen

from axoneme.core.records import TableSpec
from axoneme.core.workloads.endpoints import Address


@frozen(kw_only=True)
class DnsName:
    """A name stands for this address, among others. The name is in lower case, without the dot at its end."""

    name: str
    address: Address


@frozen(kw_only=True)
class FqdnSelector:
    """:param pattern: a name, or a pattern with `*`, as `name_matches` has it; also the key of the label `fqdn:PATTERN`."""

    pattern: str


DNS_NAMES = TableSpec(
    name="dns_names",
    row=DnsName,
    key=("name", "address"),
    indexes=("name", "address"),
    doc="addresses of DNS names",
)
FQDN_SELECTORS = TableSpec(
    name="fqdn_selectors", row=FqdnSelector, key="pattern", doc="DNS names and patterns that policies select"
)


def name_matches(pattern: str, name: str) -> bool:
    """Whether a DNS name is what a name or pattern of a policy selects; case does not count.

    `*` stands for any characters of one label, also none; the pattern `*` alone for every name.
    """
    return _compiled(normal(pattern)).fullmatch(normal(name)) is not None


def normal(name: str) -> str:
    """A name or pattern in lower case, without the dot at its end."""
    return name.lower().rstrip(".")


@lru_cache(4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    if pattern == "*":
        return re.compile(r"[^\n]*")
    return re.compile("[-a-z0-9_]*".join(re.escape(part) for part in pattern.split("*")))
