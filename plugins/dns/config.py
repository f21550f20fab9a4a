"""The section `dns` of the configuration."""

from __future__ import annotations

import enum

from attrs import frozen

from axoneme.core.structure import setting


class Refusal(enum.StrEnum):
    REFUSED = "refused"
    NXDOMAIN = "nxdomain"


@frozen(kw_only=True)
class DnsConfig:
    refusal: Refusal = setting(Refusal.REFUSED, help="what is answered about a name that no rule allows")
    min_ttl: int = setting(
        60,
        help="seconds for which an address is known at least, whatever its answer says",
        minimum=0,
        maximum=86_400,
    )
    grace: int = setting(
        30, help="seconds for which an address is known beyond that", minimum=0, maximum=86_400
    )
    response_delay: float = setting(
        0.5,
        help="seconds that an answer waits for the kernel to know its addresses, at most",
        minimum=0.0,
        maximum=10.0,
    )
    upstream_timeout: float = setting(
        4.0, help="seconds to wait for the server that was asked", minimum=0.1, maximum=60.0
    )
    concurrent: int = setting(1024, help="questions at a time; beyond that the answer is SERVFAIL", minimum=1)
    connections: int = setting(256, help="TCP connections of clients at a time", minimum=1)
    names: int = setting(
        10_000, help="names that are remembered; then those asked for longest ago go", minimum=1
    )
    addresses: int = setting(
        1000, help="addresses of one name that are remembered; then those that expire first go", minimum=1
    )
