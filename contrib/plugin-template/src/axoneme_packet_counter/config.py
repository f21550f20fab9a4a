"""The section `packet-counter` of the configuration, below `plugins`."""

from __future__ import annotations

from attrs import frozen

from axoneme.core.structure import setting


@frozen(kw_only=True)
class PacketCounterConfig:
    log_interval: float = setting(
        0.0, help="seconds between two log lines with the busiest; 0: none", minimum=0
    )
    top: int = setting(10, help="how many workloads are shown unless somebody asks for more", minimum=1)
    workloads: int = setting(1024, help="room for so many workloads in the kernel", minimum=1, maximum=65535)
