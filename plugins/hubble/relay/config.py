"""The part `relay` of the configuration section."""

from __future__ import annotations

from pathlib import Path

from attrs import frozen

from axoneme.core.structure import setting
from axoneme.plugins.hubble.peers import Peer
from axoneme.plugins.hubble.server.config import ServerTls, check_listen


@frozen(kw_only=True)
class NodeTls:
    """How the relay speaks TLS towards nodes. The files are read again with each new connection."""

    ca: tuple[Path, ...] = setting(
        (), help="authorities of the nodes' certificates, PEM; empty: no TLS towards nodes"
    )
    certificate: Path | None = setting(None, help="the relay's own certificate for nodes that want one, PEM")
    key: Path | None = setting(None, help="the certificate's private key, PEM")

    def __attrs_post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together, and one of them is missing")
        if self.certificate is not None and not self.ca:
            raise ValueError("certificate means something only with ca")


@frozen(kw_only=True)
class RelaySettings:
    listen: str = setting("127.0.0.1:4245", help="HOST:PORT that clients connect to")
    tls: ServerTls = setting(ServerTls(), help="TLS 1.3 at `listen`")
    plaintext: bool = setting(
        False, help="allow `listen` without TLS beyond loopback: anybody there sees all flows"
    )
    streams: int = setting(256, help="requests that are answered at the same time", minimum=1, maximum=65_536)
    peer_service: str = setting(
        "", help="the agent that knows the nodes, HOST:PORT or unix:///PATH; empty: the agent of this machine"
    )
    peer_server_name: str = setting(
        "",
        help="the name on the peer service's certificate; empty: its host, or Cilium's name for it when that is an address",
    )
    peers: tuple[Peer, ...] = setting((), help="the nodes, in place of a peer service")
    node_tls: NodeTls = setting(NodeTls(), help="TLS towards nodes and the peer service")
    sort_buffer: int = setting(
        100, help="flows that are held back to be put in order, per request", minimum=1, maximum=100_000
    )
    sort_wait: float = setting(
        1.0, help="seconds that the others wait for a silent node", minimum=0, maximum=60
    )
    retry: float = setting(
        30.0, help="the longest time in seconds between two attempts to connect", minimum=0.05, maximum=3600
    )

    def __attrs_post_init__(self) -> None:
        check_listen(self.listen, secure=self.tls.certificate is not None, plaintext=self.plaintext)
