"""The section `hubble` of the configuration."""

from __future__ import annotations

from attrs import frozen

from axoneme.core.structure import setting
from axoneme.plugins.hubble.export.config import ExportSettings
from axoneme.plugins.hubble.metrics.config import MetricsSettings
from axoneme.plugins.hubble.peers import Peer
from axoneme.plugins.hubble.relay.config import RelaySettings
from axoneme.plugins.hubble.server.config import ServerSettings
from axoneme.plugins.hubble.ui.config import UiSettings


@frozen(kw_only=True)
class HubbleConfig:
    flows: int = setting(
        65_536, help="how many flows are kept in memory, about 100 bytes each", minimum=256, maximum=1 << 24
    )
    policy_verdicts: bool = setting(
        True,
        help="whether what a policy said of a new connection is a flow of its own, with the policy's name",
    )
    cluster: str = setting(
        "default", help="the cluster's name in the names of nodes", pattern=r"[a-z0-9][-a-z0-9]{0,31}"
    )
    server: ServerSettings = setting(ServerSettings(), help="the gRPC API of this node")
    peers: tuple[Peer, ...] = setting((), help="other nodes that a relay learns of from this one")
    export: ExportSettings = setting(
        ExportSettings(), help="flows into files and to OpenTelemetry collectors"
    )
    metrics: MetricsSettings = setting(MetricsSettings(), help="Prometheus metrics of flows")
    relay: RelaySettings = setting(RelaySettings(), help="one API over many nodes: `axoneme hubble relay`")
    ui: UiSettings = setting(UiSettings(), help="the page that shows who talks to whom")
