"""The section `lb` of the configuration."""

from __future__ import annotations

from attrs import frozen

from axoneme.core.structure import setting
from axoneme.plugins.lb.maps import Sizes


@frozen(kw_only=True)
class LbConfig:
    services: int = setting(65_536, help="room for service addresses, per family", minimum=1024)
    slots: int = setting(
        1_048_576, help="room for what algorithms choose from, of all services", minimum=1024
    )
    backends: int = setting(131_072, help="room for backends", minimum=1024)
    sockets: int = setting(65_536, help="room for translated sockets, per family", minimum=1024)
    affinity: int = setting(65_536, help="room for clients that keep their backend", minimum=1024)
    sources: int = setting(65_536, help="room for source ranges, per family", minimum=1024)

    @property
    def sizes(self) -> Sizes:
        return Sizes(
            services=self.services,
            slots=self.slots,
            backends=self.backends,
            sockets=self.sockets,
            affinity=self.affinity,
            sources=self.sources,
        )
