"""The section `hubble` of the configuration."""

from __future__ import annotations

from attrs import frozen

from axoneme.core.structure import setting


@frozen(kw_only=True)
class HubbleConfig:
    flows: int = setting(
        65_536, help="how many flows are kept in memory, about 100 bytes each", minimum=256, maximum=1 << 24
    )
    cluster: str = setting(
        "default", help="the cluster's name in the names of nodes", pattern=r"[a-z0-9][-a-z0-9]{0,31}"
    )
